"""What a distilled object leaves on disk: pictures, a turntable, a mesh, and figures.

Where the prompt names a solid of the world, the object is measured against the exact one.
"""

import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from geojax.geometry.camera_sampling import ViewSample, orbit
from geojax.io.media import color_depth, color_normals, grid, write_png, write_video
from geojax.io.mesh_files import mesh_from_density, write_mesh
from geojax.methods.radiance import Rendering, render
from geojax.methods.text_to_3d import BackgroundOf, State, collapse
from geojax.models.fields import Field
from geojax.models.judge import Judge, JudgeConfig, joint_log_probability
from geojax.weights.folder import load_component, load_config
from geojax.worlds import captions, measure, solids

_DISTANCE, _FOCAL = 1.45, 1.26  # the middle of the world's cameras
_TURNTABLE_FRAMES = 48
_BACKGROUND = 0.85
_CHUNK = 4096  # rays


class Pictures:
    """Renders a state of a run without jitter, one view at a time, compiled once a size.

    Samples in empty space are skipped; none in occupied space is left out.
    """

    def __init__(self, config: Any, field: Field, background: BackgroundOf | None = None):
        """`background` is learnt with the field; None is a plain grey."""
        samples, capacity = 2 * config.samples, 2 * config.capacity

        def draw(state: State, camera: Any, *, normals: bool, packed: bool) -> Rendering:
            return render(
                field.apply,
                state.params,
                camera,
                None,
                samples=samples,
                radius=config.field.radius,
                background=(
                    _BACKGROUND
                    if background is None
                    else lambda directions: background(state.params, directions)
                ),
                normals=normals,
                occupancy=state.grid,
                capacity=capacity if packed else None,
                # Either way no more samples at a time than the capacity, where a ray allows it.
                chunk=_CHUNK if packed else min(_CHUNK, max(1, capacity // samples)),
            )

        self._draw = jax.jit(draw, static_argnames=("normals", "packed"))
        self.density = jax.jit(lambda params, points: field.apply(params, points)[0])

    def _view(self, state: State, camera: Any, normals: bool) -> Rendering:
        """One view: packed, which is several times faster, unless that would drop samples."""
        seen = jax.device_get(self._draw(state, camera, normals=normals, packed=True))
        if seen.dropped > 0.0:
            seen = jax.device_get(self._draw(state, camera, normals=normals, packed=False))
        return seen

    def __call__(self, state: State, views: ViewSample, *, normals: bool = False) -> Rendering:
        """Renderings of V views, as numpy arrays."""
        parts = [
            self._view(state, views.camera[i : i + 1], normals) for i in range(len(views.azimuth))
        ]
        return jax.tree.map(lambda *leaf: np.concatenate([np.atleast_1d(x) for x in leaf]), *parts)


def progress_picture(pictures: Pictures, state: State, size: int) -> np.ndarray:
    """Four views in a row, to look at while the run goes on."""
    views = orbit(4, np.radians(20.0), _DISTANCE, _FOCAL, size, size)
    return grid(np.clip(pictures(state, views).rgb, 0.0, 1.0)[None])


def progress_bytes(config: Any) -> int:
    """Most bytes of `progress_picture` as a PNG, and the same for TensorBoard."""
    return 2 * (4 * 3 * (config.large_size + 8) ** 2 + 2**12)


def report_bytes(config: Any) -> int:
    """Most bytes that `write_report` writes."""
    pictures = (_TURNTABLE_FRAMES + 3 * 8) * 3 * (config.picture_size + 16) ** 2
    # Of a surface that fills the cube: vertices with colours and normals, and their triangles.
    return pictures + 400 * config.mesh_resolution**2 + 2**16


def density_grid(pictures: Pictures, state: State, resolution: int, radius: float) -> np.ndarray:
    """Density at the cell centres of [-radius, radius]^3: [N, N, N]."""
    points = measure.grid_points(resolution, radius).reshape(-1, 3)
    slabs = [pictures.density(state.params, p) for p in np.split(points, resolution)]
    return np.concatenate(slabs).reshape(resolution, resolution, resolution)


@functools.partial(jax.jit, static_argnums=0)
def judge_logits(judge: Judge, params: Any, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits of kind and colour of pictures of any size, brought to the judge's."""
    size = judge.config.image_size
    if image.shape[1:3] != (size, size):
        image = jax.image.resize(image, (len(image), size, size, 3), "linear")
    return judge.apply({"params": params}, image)


def load_judge(model: Path) -> tuple[Judge, Any]:
    """The judge in a family's folder, and its parameters."""
    judge = Judge(JudgeConfig.from_dict(load_config(model / "judge", "Judge")))
    return judge, load_component(model / "judge", judge)


def judge_rank(
    model: Path, image: np.ndarray, kind: str, colour: str
) -> tuple[int, tuple[str, str]]:
    """Rank of (kind, colour) among all pairs by the judge's mean log-probability over views.

    Args:
      model: folder of the family; its `judge/` shares no weights with the prior.
      image: [V, S, S, 3] in [0, 1].
      kind: of the prompt.
      colour: of the prompt.

    Returns:
      rank (1 is best), and the pair that the judge puts first.
    """
    judge, params = load_judge(model)
    config = judge.config
    logits = judge_logits(judge, params, jnp.asarray(image))
    score = np.asarray(jnp.mean(joint_log_probability(*logits), axis=0))
    mine = score[config.kinds.index(kind), config.colours.index(colour)]
    first = np.unravel_index(np.argmax(score), score.shape)
    return int(np.sum(score > mine)) + 1, (config.kinds[first[0]], config.colours[first[1]])


def measure_object(
    config: Any, prompt: str, field: Field, state: State, pictures: Pictures
) -> dict[str, Any]:
    """Figures against the exact solid, where the prompt names one; else only the opacity."""
    views = measure.test_views(config.large_size)
    rendering = pictures(state, views)
    opacity = float(np.mean(rendering.opacity))
    trouble = collapse(opacity)
    if trouble:
        logging.error("the object has collapsed, it is %s", trouble)
    figures: dict[str, Any] = {
        "opacity": opacity,
        "collapsed": trouble is not None,
        "collapse": trouble,
    }
    subject = captions.parse_subject(prompt)
    if subject is None:
        return figures
    kind, colour = subject
    hull = None
    if solids.KINDS[kind].cavity:
        # Finer than the prior's pictures: a carved cell is as wide as a pixel.
        silhouettes = measure.hull_views(3 * config.large_size // 2)
        hull = np.asarray(pictures(state, silhouettes).opacity) > 0.5
    density = density_grid(pictures, state, 64, config.field.radius)
    occupied = density > config.density_threshold
    volume = measure.volume_score(kind, occupied, config.field.radius, hull)
    silhouette, depth = measure.picture_scores(
        kind,
        views.camera,
        np.asarray(rendering.opacity),
        np.asarray(rendering.depth),
        volume.yaw,
    )
    figures |= {
        "iou": volume.iou,
        "yaw_degrees": float(np.degrees(volume.yaw)),
        "silhouette_iou": silhouette,
        "depth_error": None if math.isnan(depth) else depth,  # JSON has no NaN
        "pieces": measure.pieces(occupied),
        "two_faced": measure.two_faced(kind, occupied, config.field.radius),
    }
    if (Path(config.model) / "judge").is_dir():
        rank, first = judge_rank(Path(config.model), np.clip(rendering.rgb, 0, 1), kind, colour)
        figures |= {"judge_rank": rank, "judge_says": f"{first[1]} {first[0]}"}
    return figures


def write_object_mesh(
    config: Any, field: Field, state: State, pictures: Pictures, out: Path
) -> str | None:
    """Write mesh.glb; returns its name, or None where nothing is dense enough for a surface.

    A mesh of an earlier state, which would pass for one of this, is then renamed.
    """
    file, threshold = out / "mesh.glb", config.density_threshold
    density = density_grid(pictures, state, config.mesh_resolution, config.field.radius)
    if not density.max() > threshold:
        logging.warning(
            "no mesh: the density is nowhere over config.density_threshold=%g, at most %.3g",
            threshold,
            density.max(),
        )
        if file.exists():
            earlier = file.replace(out / "mesh_earlier.glb")
            logging.warning("%s is of an earlier state: it is now %s", file, earlier.name)
        return None
    # Grid values lie at cell centres: half a cell inside the cube.
    edge = config.field.radius * (1.0 - 1.0 / config.mesh_resolution)
    mesh = mesh_from_density(density, threshold, (-edge,) * 3, (edge,) * 3)
    colour = field.apply(state.params, jnp.asarray(mesh.vertices, jnp.float32))[1]
    write_mesh(file, mesh._replace(colors=np.clip(np.asarray(colour), 0.0, 1.0)))
    return file.name


def write_report(
    config: Any, prompt: str, field: Field, state: State, pictures: Pictures, out: Path
) -> dict[str, Any]:
    """Write views.png, turntable.mp4 and mesh.glb; returns the figures of the object."""
    size = config.picture_size
    eight = orbit(8, np.radians(20.0), _DISTANCE, _FOCAL, size, size)
    seen = pictures(state, eight, normals=True)
    assert seen.normal is not None
    rows = [
        np.clip(seen.rgb, 0.0, 1.0),
        color_normals(seen.normal, seen.opacity),
        color_depth(seen.depth, seen.opacity > 0.5),
    ]
    degrees = [f"{45 * i} deg" for i in range(8)]
    write_png(out / "views.png", grid(np.stack(rows), ("colour", "normal", "depth"), degrees))
    turn = orbit(_TURNTABLE_FRAMES, np.radians(20.0), _DISTANCE, _FOCAL, size, size)
    frames = np.clip(pictures(state, turn).rgb, 0.0, 1.0)
    write_video(out / "turntable.mp4", frames, fps=16)
    mesh = write_object_mesh(config, field, state, pictures, out)
    return {"mesh": mesh, **measure_object(config, prompt, field, state, pictures)}
