"""The rules of the house, read from the imports."""

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "isl_jax"

# Rooms by layer: a room may import those of lower layers and itself.
LAYERS = {
    "data": 0,
    "models": 0,
    "losses": 0,
    "metrics": 0,
    "instances": 0,
    "training": 1,
    "inference": 2,
    "study": 3,
    "launch": 4,
}
JAX_FAMILY = {"jax", "jaxlib", "flax", "optax", "orbax"}
NETWORK = {"urllib", "requests", "http", "huggingface_hub", "pooch", "httpx", "socket"}


@functools.cache
def imports_of(path: Path) -> frozenset[str]:
    """Dotted names that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            assert node.module is not None
            # `from isl_jax.models import weights` imports a module, not only a name.
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def top_levels(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports_of(path)}


def package_files(*rooms: str) -> list[Path]:
    folders = [PACKAGE / room for room in rooms] or [PACKAGE]
    return sorted(f for folder in folders for f in folder.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_imported(path: Path) -> set[str]:
    names = (name.split(".") for name in imports_of(path))
    return {parts[1] for parts in names if parts[0] == "isl_jax" and len(parts) > 1}


def violations(
    files: list[Path], forbidden: set[str], allowed: set[str] = frozenset()
) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        if str(path.relative_to(ROOT)) not in allowed
        for name in sorted(top_levels(path) & forbidden)
    ]


def test_arrows_run_one_way():
    wrong = [
        f"{path.relative_to(ROOT)} imports isl_jax.{room}"
        for path in package_files()
        if room_of(path) in LAYERS
        for room in rooms_imported(path) & LAYERS.keys()
        if room != room_of(path) and LAYERS[room] >= LAYERS[room_of(path)]
    ]
    assert not wrong


def test_no_circles_between_modules():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in package_files()
    }
    graph = {
        name: {found for found in imports_of(path) if found in modules and found != name}
        for name, path in modules.items()
    }
    while leaves := {name for name, targets in graph.items() if not targets & graph.keys()}:
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
    assert not graph, f"modules that import each other: {sorted(graph)}"


def test_loaders_and_postprocessing_never_import_jax():
    assert not violations(package_files("data", "instances"), JAX_FAMILY)


def test_models_know_neither_data_nor_training():
    wrong = [f for f in package_files("models") if rooms_imported(f) & {"data", "training"}]
    assert not wrong


def test_training_knows_neither_instances_nor_figures():
    files = package_files("training")
    assert not [f for f in files if rooms_imported(f) & {"instances", "inference", "study"}]
    assert not violations(files, {"matplotlib"})


def test_only_launch_knows_flags_configs_and_environment_variables():
    files = package_files()
    assert not violations(files, {"absl", "ml_collections"})
    reads = [
        f"{path.relative_to(ROOT)}:{node.lineno} reads {node.value.id}.{node.attr}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr)
        in {
            ("os", "environ"),
            ("os", "getenv"),
            ("jax", "config"),
            ("jax", "distributed"),
        }
    ]
    assert not reads


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ({"orbax"}, {"isl_jax/training/checkpoint.py"}),
        ({"grain"}, {"isl_jax/data/batches.py", "isl_jax/data/crops.py"}),
        (NETWORK, {"isl_jax/ingest/public.py", "isl_jax/models/weights.py"}),
        ({"matplotlib"}, {"isl_jax/report/figures.py", "isl_jax/outputs.py"}),
        ({"torch", "torchvision"}, {"isl_jax/models/weights.py"}),
    ],
)
def test_libraries_stay_in_their_rooms(library: set[str], homes: set[str]):
    assert not violations(package_files(), library, homes)


def test_configs_hold_configuration_only():
    for path in sorted((ROOT / "configs").glob("*.py")):
        assert top_levels(path) <= {"isl_jax", "ml_collections", "typing"}, path
        assert rooms_imported(path) <= {"configs"}, path


def test_launch_files_are_commands():
    for path in sorted((ROOT / "launch").glob("*.py")):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path}: --help has nothing to say"
        assert rooms_imported(path) <= {*LAYERS, "configs"}, path


def test_no_drawer_for_odds_and_ends():
    banned = {"utils", "util", "helpers", "helper", "misc", "common"}
    assert not [path for path in package_files() if path.stem in banned]


def test_every_test_file_mirrors_a_module():
    for path in sorted((ROOT / "tests").rglob("*_test.py")):
        inside = path.relative_to(ROOT / "tests")
        if len(inside.parts) > 1 and inside.parts[0] in LAYERS:
            top = ROOT if inside.parts[0] == "launch" else PACKAGE
            assert (top / inside.parent).is_dir(), f"{path} tests a room that does not exist"
