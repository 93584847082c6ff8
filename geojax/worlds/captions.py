"""What an object picture is called: "a red mug, front view, from above".

The camera's direction is named on a grid: eight azimuths, one every 45 degrees from the front, and
four elevations. A picture between two names has a caption between them: their embeddings are
interpolated (DreamFusion, section 3.2), by the weights that `methods/view_prompts` also uses when
it distils. The names are exact at the grid's nodes only.
"""

import math

import numpy as np

from geojax.worlds.solids import COLOURS, KINDS

AZIMUTHS: tuple[str, ...] = (
    "front view",
    "front right view",
    "right side view",
    "back right view",
    "back view",
    "back left view",
    "left side view",
    "front left view",
)
"""Names of azimuth 2 pi k / 8, counter-clockwise from above; azimuth 0 faces the front."""

ELEVATIONS: tuple[tuple[float, str], ...] = (
    (0.0, "at eye level"),
    (30.0, "from above"),
    (60.0, "from high above"),
    (90.0, "from overhead"),
)
"""Degrees and name of each elevation; below the first, the first is used."""

PHRASES: tuple[str, ...] = ("a {}", "a photo of a {}", "a picture of a {}", "one {}", "{}")
"""Ways to open a caption; the first is the canonical one."""

COARSE_OVERHEAD = 60.0  # degrees; threestudio's threshold


def subject(colour: str, kind: str, phrase: str = PHRASES[0]) -> str:
    """Caption without a view: "a red mug", "an orange house"."""
    return phrase.format(f"{colour} {kind}").replace("a orange", "an orange")


def view_suffix(azimuth_index: int, elevation_index: int) -> str:
    """The part of a caption that names a node of the view grid: ", front view, from above"."""
    return f", {AZIMUTHS[azimuth_index]}, {ELEVATIONS[elevation_index][1]}"


def view_captions(caption: str) -> list[list[str]]:
    """A caption at every node of the view grid: [elevation][azimuth]."""
    return [
        [caption + view_suffix(a, e) for a in range(len(AZIMUTHS))] for e in range(len(ELEVATIONS))
    ]


def coarse_view(azimuth: float, elevation: float) -> str:
    """DreamFusion's four view names, by threestudio's thresholds; angles in radians."""
    if math.degrees(elevation) > COARSE_OVERHEAD:
        return "overhead view"
    turned = abs((math.degrees(azimuth) + 180.0) % 360.0 - 180.0)
    if turned < 45.0:
        return "front view"
    return "back view" if turned > 135.0 else "side view"


def parse_subject(prompt: str) -> tuple[str, str] | None:
    """(kind, colour) when a prompt names exactly one of each, else None."""
    words = prompt.lower().replace(",", " ").replace(".", " ").split()
    kinds = [w for w in words if w in KINDS]
    colours = [w for w in words if w in COLOURS]
    return (kinds[0], colours[0]) if len(kinds) == 1 and len(colours) == 1 else None


def grid_weights(azimuth: float, elevation: float) -> list[tuple[int, int, float]]:
    """The four (elevation, azimuth) nodes around a direction and their bilinear weights.

    Args:
      azimuth: radians, any turn.
      elevation: radians, clamped to the grid.

    Returns:
      four (elevation index, azimuth index, weight); the weights sum to 1.
    """
    turn = (azimuth / (2.0 * math.pi) * len(AZIMUTHS)) % len(AZIMUTHS)
    a0 = int(turn) % len(AZIMUTHS)
    a1, fa = (a0 + 1) % len(AZIMUTHS), turn - int(turn)
    rows = np.asarray([e for e, _ in ELEVATIONS])
    row = float(np.interp(math.degrees(elevation), rows, np.arange(len(rows))))
    e0 = min(int(row), len(rows) - 2)
    fe = row - e0
    return [
        (e0, a0, (1 - fe) * (1 - fa)),
        (e0, a1, (1 - fe) * fa),
        (e0 + 1, a0, fe * (1 - fa)),
        (e0 + 1, a1, fe * fa),
    ]
