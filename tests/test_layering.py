"""The floors of the package, read from the imports: each imports only floors below it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "geometry": 0,
    "diffusion": 0,
    "worlds": 1,
    "models": 2,
    "weights": 2,
    "priors": 3,
    "methods": 4,
}
SIDE = "io"  # imported by experiments alone, imports no floor
MAX_LINES = 350
FORBIDDEN = ("experiments", "configs", "tests", "torch")


def imported_modules(source: str, module: str) -> set[str]:
    """Dotted names of everything a module imports, at any depth of the code, relative ones too."""
    package = module.split(".")[:-1]
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            # `from geojax import io` and `from geojax.io import media` both name a room.
            names |= {".".join([*base, alias.name]) for alias in node.names}
    return names


def room_of(name: str) -> str | None:
    """`geometry` for `geojax.geometry.camera`; None outside the package."""
    parts = name.split(".")
    return parts[1] if parts[0] == "geojax" and len(parts) > 1 else None


def faults(source: str, module: str) -> list[str]:
    """What is wrong with the imports and the length of one module of geojax."""
    room = room_of(module)
    found = []
    for name in sorted(imported_modules(source, module)):
        other = room_of(name)
        if name.split(".")[0] in FORBIDDEN:
            found.append(f"{module} imports {name}")
        if name.split(".")[0] == "flax" and room != "models":
            found.append(f"{module} imports {name}: only models/ may")
        if other is None or other == room:
            continue
        if SIDE in (other, room):
            found.append(f"{module} imports {name}: io/ and the floors do not know each other")
        elif other in FLOORS and FLOORS[other] >= FLOORS.get(room, -1):
            found.append(f"{module} (floor {FLOORS.get(room)}) imports {name} (not below it)")
    lines = source.count("\n")
    if lines > MAX_LINES:
        found.append(f"{module} has {lines} lines, at most {MAX_LINES} fit one idea")
    return found


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in sorted((ROOT / "geojax").rglob("*.py"))
    }


def test_every_import_runs_downward():
    found = [fault for name, path in modules().items() for fault in faults(path.read_text(), name)]
    assert not found, "\n".join(found)


def test_every_room_has_a_floor():
    """A new folder must be given a floor here, or nothing would be checked in it."""
    rooms = {path.relative_to(ROOT / "geojax").parts[0] for path in modules().values()}
    assert {room for room in rooms if not room.endswith(".py")} <= {*FLOORS, SIDE}


def test_the_files_around_the_package_are_short():
    for folder in ("experiments", "configs", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = path.read_text().count("\n")
            assert lines <= MAX_LINES, f"{path.relative_to(ROOT)} has {lines} lines"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("geojax.geometry.bad", "from geojax.models.unet import UNet"),
        ("geojax.geometry.bad", "from geojax.diffusion import schedule"),
        ("geojax.geometry.bad", "def f():\n    import geojax.worlds.render"),
        ("geojax.worlds.bad", "from ..priors import prior"),
        ("geojax.models.bad", "from geojax import weights"),
        ("geojax.priors.bad", "import flax.linen as nn"),
        ("geojax.methods.bad", "from geojax.io import media"),
        ("geojax.methods.bad", "from geojax import io"),
        ("geojax.io.bad", "from geojax.geometry import camera"),
        ("geojax.io.bad", "import torch.nn"),
        ("geojax.methods.bad", "from experiments import distill"),
        ("geojax.methods.bad", "import configs.distill.worlds"),
        ("geojax.methods.bad", "x = 1\n" * (MAX_LINES + 1)),
    ],
)
def test_the_check_finds_a_fault(module, source):
    assert len(faults(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("geojax.methods.good", "from geojax.priors.prior import Prior\nimport jax"),
        ("geojax.models.good", "import flax.linen as nn\nfrom geojax.models import layers"),
        ("geojax.worlds.good", "from ..geometry import camera\nfrom . import solids"),
        ("geojax.io.good", "from geojax.io import atomic\nimport orbax.checkpoint"),
    ],
)
def test_the_check_passes_what_is_right(module, source):
    assert faults(source, module) == []
