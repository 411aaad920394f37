"""The rules of the house, each a function from sources (path → text) to offences.

A rule is held against the project as it stands, and against an offence planted in it: a rule that
cannot fail keeps nothing. docs/architecture.md says the same in words.
"""

import ast
import functools
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Sources = Mapping[str, str]

# A room may import itself and those of lower layers.
LAYERS = {
    "files": -1,
    "locks": 0,
    "tabular": 0,
    "compiled": 0,
    "task": 0,
    "metrics": 0,
    "data": 1,
    "models": 1,
    "instances": 1,
}
LAYERS |= {"training": 2, "inference": 3, "study": 4, "launch": 5}
# The loop is given iterators and evaluators: it knows no instances, though these lie lower.
STRANGERS = {("training", "instances")}
# Rooms on the core, which know neither each other nor are known to it; and what of the core each
# may know beside files, task and metrics.
SATELLITES = {
    "ingest": {"data"},
    "annotate": {"data", "instances", "study"},
    "simulate": {"data", "instances"},
    "outputs": {"data", "instances", "inference"},
    "export": {"data", "models", "inference"},
    "report": {"data", "instances", "inference", "study"},
}
# What predicts reads foreign images; who asks for a viewer asks for everything.
KNOWS_INGEST = {f"isl_jax/inference/{n}.py" for n in ("expansion", "opening", "sources")}
VIEWER = "viewer"

JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}
# Library → the files (or rooms) that may import it; each of them must exist.
HOMES: dict[str, set[str]] = {
    "orbax": {"isl_jax/training/checkpoint.py"},
    "grain": {"isl_jax/data/batches.py", "isl_jax/data/crops.py", "launch/benchmarks/"},
    "matplotlib": {"isl_jax/report/", "isl_jax/outputs/"},
    "jinja2": {"isl_jax/report/page.py"},
    "numba": {"isl_jax/compiled.py"},
    "cellpose": {"isl_jax/annotate/drafting.py", "launch/benchmarks/"},
    "submitit": {"launch/submission.py"},
    "safetensors": {
        "isl_jax/models/",
        "isl_jax/inference/stored.py",
        "isl_jax/export/smp.py",
        "isl_jax/export/pretrained.py",
    },
}
NETWORK = {"urllib", "requests", "http", "huggingface_hub", "pooch", "httpx", "socket"}
HOMES |= {name: {"isl_jax/ingest/public.py", "isl_jax/models/weights.py"} for name in NETWORK}
HOMES |= {"torch": {"launch/benchmarks/"}, "torchvision": {"launch/benchmarks/"}}
# Qt through qtpy, whichever there is.
HOMES |= {name: {"isl_jax/viewer/"} for name in ("napari", "qtpy", "superqt", "dask")}
HOMES |= {name: set() for name in ("PySide6", "PyQt6")}

MOST_LINES, MOST_LINES_OF_FUNCTION, MOST_PARAMETERS = 250, 80, 8
FEWEST_LINES = 40
# Modules under 40 lines, with their reasons.
SMALL: dict[str, str] = {
    "isl_jax/data/binning.py": "numpy alone: preparation and prediction bin by the same code",
    "isl_jax/models/architecture.py": "imports nothing: read where no network is built",
    "isl_jax/export/smp.py": "a format is a module, imported when it is asked for",
    "isl_jax/export/stablehlo.py": "a format is a module, imported when it is asked for",
    "isl_jax/viewer/sample.py": "what napari offers as sample data",
}
# Modules of one name in two rooms that mean one thing.
NAMESAKES: dict[str, str] = {
    "settings": "dataclasses of the configuration: of a run, and of its training",
}
NAMESAKE_CLASSES: dict[str, str] = {}
# Test files that mirror no module, with what they test.
OWN_TESTS: dict[str, str] = {
    "tests/architecture_test.py": "the rules of the house",
    "tests/walks_test.py": "how many files a crop and an image enter",
    "tests/docs/build_test.py": "docs/build.py, which makes pages of the site",
    "tests/docs/commands_test.py": "commands that pages show, against those there are",
    "tests/docs/notebook_test.py": "the notebook, as it lies in git",
    "tests/earlier/earlier_test.py": "what the version before wrote",
    "tests/ingest/bad_input_test.py": "what is refused, and in which words",
    "tests/launch/compile_test.py": "the step as compilers for absent devices make it",
    "tests/fuzz/fuzz_test.py": "damaged files of every kind",
    "tests/launch/slurm_test.py": "the job scripts",
    "tests/models/parity_test.py": "the network against its PyTorch original",
    "tests/reliability/kill_test.py": "commands killed, and two of one at once",
    "tests/report/browser_test.py": "the page as a browser shows it",
    "tests/training/interruption_test.py": "kills at random moments",
    "tests/viewer/formats_test.py": "what isl-predict writes, as napari and others read it",
    "tests/viewer/window_test.py": "the plugin in a window of napari",
    "tests/training/processes_test.py": "two processes against one",
    "tests/training/reductions_test.py": "sums as XLA compiles them against float64",
}


# --- reading sources ---------------------------------------------------------------------------


@functools.cache
def tree_of(text: str) -> ast.Module:
    return ast.parse(text)


@functools.cache
def imports_in(text: str) -> frozenset[str]:
    """Dotted names that a source imports, wherever in it."""
    names = set()
    for node in ast.walk(tree_of(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # `from isl_jax.models import weights` imports a module, not only a name.
            start = "." * node.level + (node.module or "")
            names |= {start} | {f"{start}.{alias.name}" for alias in node.names}
    return frozenset(names)


def package(sources: Sources) -> dict[str, str]:
    """Python files of isl_jax/ alone."""
    return {p: t for p, t in sources.items() if p.startswith("isl_jax/") and p.endswith(".py")}


def python(sources: Sources) -> dict[str, str]:
    """Python files that are installed: isl_jax/, launch/ and configs/."""
    homes = ("isl_jax/", "launch/", "configs/")
    return {p: t for p, t in sources.items() if p.startswith(homes) and p.endswith(".py")}


def room_of(path: str) -> str:
    """`data` of isl_jax/data/store.py, `task` of isl_jax/task.py, `launch` of launch/train.py."""
    parts = path.removeprefix("isl_jax/").split("/")
    return parts[0].removesuffix(".py")


def rooms_imported(text: str) -> set[str]:
    names = (name.split(".") for name in imports_in(text))
    return {parts[1] for parts in names if parts[0] == "isl_jax" and len(parts) > 1}


def functions(text: str) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Functions of a source, and whether each is a method."""
    methods = {
        id(member)
        for node in ast.walk(tree_of(text))
        if isinstance(node, ast.ClassDef)
        for member in node.body
    }
    for node in ast.walk(tree_of(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, id(node) in methods


def in_home(path: str, homes: Iterable[str]) -> bool:
    return any(path == home or (home.endswith("/") and path.startswith(home)) for home in homes)


# --- rules -------------------------------------------------------------------------------------


def arrows(sources: Sources) -> Iterator[str]:
    """Files, task, metrics → data, models, instances → training → inference → study → launch."""
    for path, text in python(sources).items():
        room = room_of(path)
        for other in sorted(rooms_imported(text) - {room}):
            if other == "configs":
                known = room in ("launch", "configs")
            elif other in SATELLITES:
                known = room in ("launch", VIEWER)
                known |= other == "ingest" and path in KNOWS_INGEST
            elif room in SATELLITES:
                known = LAYERS.get(other, 9) <= 0 or other in SATELLITES[room]
            elif room == VIEWER:
                known = other in LAYERS
            else:
                known = (room, other) not in STRANGERS
                known &= LAYERS.get(other, 9) < LAYERS.get(room, 0)
            if not known:
                yield f"{path} imports isl_jax.{other}"


def rooms(sources: Sources) -> Iterator[str]:
    """Every room has its place among the layers or the satellites."""
    known = {*LAYERS, *SATELLITES, VIEWER, "configs", "__init__"}
    yield from (
        f"{path}: no room of the house" for path in python(sources) if room_of(path) not in known
    )


def circles(sources: Sources) -> Iterator[str]:
    """No module imports itself, however far round."""
    modules = {
        path.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): text
        for path, text in package(sources).items()
    }
    graph = {
        name: {found for found in imports_in(text) if found in modules and found != name}
        for name, text in modules.items()
    }
    while leaves := {name for name, targets in graph.items() if not targets & graph.keys()}:
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
    if graph:
        yield f"modules that import each other: {sorted(graph)}"


def whole_names(sources: Sources) -> Iterator[str]:
    """No relative imports: a name says where it is from."""
    for path, text in python(sources).items():
        yield from (f"{path} imports {n}" for n in imports_in(text) if n.startswith("."))


def homes_of_libraries(sources: Sources) -> Iterator[str]:
    """A library is imported by the files named for it, and those files exist and do so."""
    users = defaultdict(set)
    for path, text in python(sources).items():
        for library in {name.split(".")[0] for name in imports_in(text)} & HOMES.keys():
            users[library].add(path)
    for library, paths in users.items():
        yield from (
            f"{path} imports {library}"
            for path in sorted(paths)
            if not in_home(path, HOMES[library])
        )
    for home in sorted(set().union(*HOMES.values())):
        if not any(in_home(path, {home}) for path in sources):
            yield f"{home}: no such file; who imports its libraries now?"


def no_jax_in_loaders(sources: Sources) -> Iterator[str]:
    """Loader workers must not start a backend: data, ingest and instances never import jax."""
    for path, text in package(sources).items():
        if room_of(path) in ("data", "ingest", "instances", "simulate", "files", "task"):
            found = {name.split(".")[0] for name in imports_in(text)} & JAX
            yield from (f"{path} imports {name}" for name in sorted(found))


def plain_arguments(sources: Sources) -> Iterator[str]:
    """Only launch/ knows flags, ConfigDict, environment variables, jax.config, jax.distributed."""
    read = {("os", "environ"), ("os", "getenv"), ("jax", "config"), ("jax", "distributed")}
    for path, text in package(sources).items():
        found = {name.split(".")[0] for name in imports_in(text)} & {"absl", "ml_collections"}
        yield from (f"{path} imports {name}" for name in sorted(found))
        for node in ast.walk(tree_of(text)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                name = node.value.id, node.attr
                if name in read:
                    yield f"{path}:{node.lineno} reads {'.'.join(name)}"


def configs_hold_configuration(sources: Sources) -> Iterator[str]:
    """configs/ holds ConfigDicts; no I/O, nothing of isl_jax."""
    for path, text in sources.items():
        if path.startswith("configs/") and path.endswith(".py"):
            found = {name.split(".")[0] for name in imports_in(text)}
            found -= {"isl_jax", "ml_collections", "typing"}
            found |= rooms_imported(text) - {"configs"}
            yield from (f"{path} imports {name}" for name in sorted(found))


def commands_explain_themselves(sources: Sources) -> Iterator[str]:
    """A file of launch/ opens with the words of --help."""
    for path, text in python(sources).items():
        if re.fullmatch(r"launch/\w+\.py", path) and not ast.get_docstring(tree_of(text)):
            yield f"{path}: --help has nothing to say"


def rooms_explain_themselves(sources: Sources) -> Iterator[str]:
    """A room's __init__ says what it holds, and imports nothing at the top of the package."""
    for path, text in package(sources).items():
        if path.endswith("__init__.py"):
            if not ast.get_docstring(tree_of(text)):
                yield f"{path}: does not say what the room holds"
            if path == "isl_jax/__init__.py" and imports_in(text):
                yield f"{path}: a map, but it imports {', '.join(sorted(imports_in(text)))}"


def sizes(sources: Sources) -> Iterator[str]:
    """Modules of 40 to 250 lines, functions of 80 lines and 8 parameters at most."""
    for path, text in python(sources).items():
        lines = text.count("\n")
        if lines > MOST_LINES:
            yield f"{path}: {lines} lines"
        small = path.startswith("isl_jax/") and lines < FEWEST_LINES
        if small and not path.endswith("__init__.py") and path not in SMALL:
            yield f"{path}: only {lines} lines; merge it, or give a reason in SMALL"
        for node, is_method in functions(text):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MOST_LINES_OF_FUNCTION:
                yield f"{path}: {node.name} has {length} lines"
            a = node.args
            count = len(
                [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
            )
            static = any(ast.unparse(d) == "staticmethod" for d in node.decorator_list)
            count -= is_method and not static
            if count > MOST_PARAMETERS:
                yield f"{path}: {node.name} has {count} parameters"
    for path in SMALL:
        if path not in sources or sources[path].count("\n") >= FEWEST_LINES:
            yield f"{path}: in SMALL, but it is gone or has grown"


def no_drawer_for_odds_and_ends(sources: Sources) -> Iterator[str]:
    """No module called utils, helpers, misc or common."""
    banned = {"utils", "util", "helpers", "helper", "misc", "common"}
    yield from (
        p for p in python(sources) if banned & {part.strip("_") for part in re.split(r"[/.]", p)}
    )


def one_meaning_a_name(sources: Sources) -> Iterator[str]:
    """No two modules, and no two public classes, of one name unless they mean one thing."""
    modules, classes = defaultdict(list), defaultdict(list)
    for path, text in package(sources).items():
        modules[path.rsplit("/")[-1].removesuffix(".py")].append(path)
        for node in tree_of(text).body:
            if isinstance(node, ast.ClassDef):
                classes[node.name.strip("_")].append(path)
    del modules["__init__"]
    for found, allowed in ((modules, NAMESAKES), (classes, NAMESAKE_CLASSES)):
        for name, paths in sorted(found.items()):
            if len(paths) > 1 and name not in allowed:
                yield f"{name}: {', '.join(paths)}"
        yield from (
            f"{name}: allowed twice, but there are not two"
            for name in allowed
            if len(found[name]) < 2
        )


# Path.rename and Path.replace take one argument, str.replace two; this one renames no file.
_NO_PATHS = {"layout.rename"}
_DRAFT = re.compile(r"\.(tmp|partial|part)\b")


def written_whole_in_one_place(sources: Sources) -> Iterator[str]:
    """Write-then-rename stands in files.py alone."""
    for path, text in python(sources).items():
        if path == "isl_jax/files.py":
            continue
        for node in ast.walk(tree_of(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                one = len(node.args) == 1 and not node.keywords
                one &= ast.unparse(node.func) not in _NO_PATHS
                if one and node.func.attr in ("rename", "replace"):
                    yield f"{path}:{node.lineno}: .{node.func.attr}(…) of a path"
                name = ast.unparse(node.func)
                if name in ("os.rename", "os.replace", "shutil.move"):
                    yield f"{path}:{node.lineno}: {name}"
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and " " not in text and _DRAFT.search(text):
                yield f"{path}:{node.lineno}: the name of a draft, {text!r}"


def tasks_spelled_once(sources: Sources) -> Iterator[str]:
    """The words of Kind stand in task.py; `stain` is a channel's and a map's word as well."""
    for path, text in python(sources).items():
        if path == "isl_jax/task.py":
            continue
        for node in ast.walk(tree_of(text)):
            if isinstance(node, ast.Constant) and node.value in (
                "semantic",
                "distance_and_semantic",
            ):
                yield f"{path}:{node.lineno}: {node.value!r}"


def mirrored_tests(sources: Sources) -> Iterator[str]:
    """tests/<room>/<module>_test.py tests <room>/<module>.py; others are listed, with a topic."""
    for path in sources:
        if not re.fullmatch(r"tests/.*_test\.py", path):
            continue
        inside = path.removeprefix("tests/").removesuffix("_test.py")
        homes = [f"isl_jax/{inside}.py", f"{inside}.py"]
        if (room := Path(inside).parent.name) == Path(inside).name:  # the whole room
            homes.append(f"isl_jax/{room}/__init__.py")
        if not any(home in sources for home in homes) and path not in OWN_TESTS:
            yield f"{path}: mirrors no module; rename it, or say in OWN_TESTS what it tests"
    yield from (
        f"{path}: in OWN_TESTS, but it is gone" for path in OWN_TESTS if path not in sources
    )


def tree_in_the_docs(sources: Sources) -> Iterator[str]:
    """docs/architecture.md names every module of isl_jax/, room by room, and none that is gone."""
    text = sources.get("docs/architecture.md", "")
    blocks = re.findall(r"^```tree\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    told, folder = set(), ""
    for line in "".join(blocks).splitlines():
        if found := re.match(r"(\w+/)\s", line + " "):
            folder = "" if found[1] == "isl_jax/" else found[1]
        elif found := re.match(r"  (\w+)\.py\b", line):
            told.add(f"isl_jax/{folder}{found[1]}.py")
    there = {path for path in package(sources) if not path.endswith("__init__.py")}
    yield from (f"{path}: not in the tree of docs/architecture.md" for path in sorted(there - told))
    yield from (f"{path}: in docs/architecture.md, but gone" for path in sorted(told - there))


def docs_name_what_is_there(sources: Sources) -> Iterator[str]:
    """Paths of Python files that the documentation names exist."""
    for path, text in sources.items():
        if path.endswith(".md"):
            for name in re.findall(r"\b(?:\w+/)+\w+\.py\b", text):
                if name not in sources and f"isl_jax/{name}" not in sources:
                    yield f"{path} names {name}"


def packages_are_installed(sources: Sources) -> Iterator[str]:
    """pyproject.toml lists every package."""
    listed = set(tomllib.loads(sources["pyproject.toml"])["tool"]["setuptools"]["packages"])
    for path in python(sources):
        folder = path.rpartition("/")[0].replace("/", ".")
        name = folder if folder.startswith("isl_jax") else f"isl_jax.{folder}"
        if name not in listed:
            yield f"pyproject.toml does not list {name} of {path}"


RULES: tuple[Callable[[Sources], Iterator[str]], ...] = (
    rooms,
    arrows,
    circles,
    whole_names,
    homes_of_libraries,
    no_jax_in_loaders,
    plain_arguments,
    configs_hold_configuration,
    commands_explain_themselves,
    rooms_explain_themselves,
    sizes,
    no_drawer_for_odds_and_ends,
    one_meaning_a_name,
    written_whole_in_one_place,
    tasks_spelled_once,
    mirrored_tests,
    tree_in_the_docs,
    docs_name_what_is_there,
    packages_are_installed,
)


# --- the project as it stands, and planted offences --------------------------------------------


@functools.cache
def project() -> Sources:
    files = [ROOT / "README.md", ROOT / "pyproject.toml", *(ROOT / "docs").glob("*.md")]
    for folder in ("isl_jax", "launch", "configs", "tests"):
        files += (ROOT / folder).rglob("*.py")
    return {p.relative_to(ROOT).as_posix(): p.read_text() for p in sorted(files)}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule):
    offences = list(rule(project()))
    assert not offences, "\n".join([rule.__doc__, *offences])


LONG = "def f():\n" + "    pass\n" * 81
PLANTED: list[tuple[Callable[[Sources], Iterator[str]], dict[str, str | None], str]] = [
    (rooms, {"isl_jax/attic/boxes.py": ""}, "isl_jax/attic/boxes.py"),
    (arrows, {"isl_jax/models/a.py": "import isl_jax.data.store"}, "imports isl_jax.data"),
    (arrows, {"isl_jax/data/a.py": "from isl_jax import training"}, "imports isl_jax.training"),
    (arrows, {"isl_jax/training/a.py": "import isl_jax.instances.flooding as f"}, ""),
    (arrows, {"isl_jax/task.py": "from isl_jax.metrics import Score"}, "isl_jax.metrics"),
    (arrows, {"isl_jax/study/a.py": "def f():\n    import isl_jax.report.page"}, "isl_jax.report"),
    (arrows, {"isl_jax/inference/job.py": "import isl_jax.ingest.tiff"}, "isl_jax.ingest"),
    (arrows, {"isl_jax/inference/sources.py": "import isl_jax.outputs.table"}, "isl_jax.outputs"),
    (arrows, {"isl_jax/outputs/a.py": "import isl_jax.ingest.tiff"}, "isl_jax.ingest"),
    (arrows, {"isl_jax/export/a.py": "import isl_jax.study.records"}, "isl_jax.study"),
    (arrows, {"isl_jax/study/a.py": "import isl_jax.launch.train"}, "isl_jax.launch"),
    (circles, {"isl_jax/data/a.py": "import isl_jax.data.b",
               "isl_jax/data/b.py": "from isl_jax.data import a"}, "isl_jax.data.a"),
    (whole_names, {"isl_jax/data/a.py": "from .store import open_dataset"}, ".store"),
    (homes_of_libraries, {"isl_jax/training/a.py": "import orbax.checkpoint"}, "imports orbax"),
    (homes_of_libraries, {"isl_jax/study/a.py": "from grain import python"}, "imports grain"),
    (homes_of_libraries, {"isl_jax/data/a.py": "import requests"}, "imports requests"),
    (homes_of_libraries, {"isl_jax/study/a.py": "import matplotlib.figure"}, "matplotlib"),
    (homes_of_libraries, {"isl_jax/models/weights.py": "import torch"}, "imports torch"),
    (homes_of_libraries, {"isl_jax/outputs/a.py": "import napari"}, "imports napari"),
    (homes_of_libraries, {"isl_jax/viewer/a.py": "from PySide6 import QtCore"}, "PySide6"),
    (homes_of_libraries, {"isl_jax/training/checkpoint.py": None}, "checkpoint.py: no such file"),
    (no_jax_in_loaders, {"isl_jax/data/a.py": "import jax.numpy as jnp"}, "imports jax"),
    (no_jax_in_loaders, {"isl_jax/instances/a.py": "def f():\n    from flax import linen"}, "flax"),
    (plain_arguments, {"isl_jax/data/a.py": "from absl import logging"}, "absl"),
    (plain_arguments, {"isl_jax/data/a.py": "import os\nos.environ['A']"}, "reads os.environ"),
    (plain_arguments, {"isl_jax/models/a.py": "import jax\njax.config.x"}, "jax.config"),
    (configs_hold_configuration, {"configs/a.py": "import numpy"}, "numpy"),
    (configs_hold_configuration, {"configs/a.py": "import isl_jax.task"}, "task"),
    (commands_explain_themselves, {"launch/a.py": "x = 1"}, "launch/a.py"),
    (rooms_explain_themselves, {"isl_jax/data/__init__.py": ""}, "isl_jax/data/__init__.py"),
    (rooms_explain_themselves, {"isl_jax/__init__.py": '"""A."""\nimport jax'}, "imports jax"),
    (sizes, {"isl_jax/data/a.py": "\n" * 251}, "251 lines"),
    (sizes, {"isl_jax/data/a.py": "\n" * 39}, "only 39 lines"),
    (sizes, {"isl_jax/data/a.py": LONG}, "f has 82 lines"),
    (sizes, {"launch/a.py": "def f(a, b, c, d, e, f, g, *, h, **i): ..."}, "f has 9 parameters"),
    (sizes, {"launch/a.py": "class A:\n def m(self, a, b, c, d, e, f, g, h, i): ..."}, "m has 9"),
    (no_drawer_for_odds_and_ends, {"isl_jax/data/utils.py": ""}, "utils.py"),
    (no_drawer_for_odds_and_ends, {"isl_jax/helpers/a.py": ""}, "helpers"),
    (one_meaning_a_name, {"isl_jax/data/a1.py": "", "isl_jax/study/a1.py": ""}, "a1: "),
    (one_meaning_a_name, {"isl_jax/data/a1.py": "class Ab1: ...",
                          "isl_jax/study/b1.py": "class _Ab1: ..."}, "Ab1: "),
    (written_whole_in_one_place, {"launch/a.py": "draft.replace(path)"}, "a.py:1"),
    (written_whole_in_one_place, {"isl_jax/data/a.py": "draft.rename(path)"}, ".rename"),
    (written_whole_in_one_place, {"isl_jax/data/a.py": "import os\nos.replace(a, b)"}, "a.py:2"),
    (written_whole_in_one_place, {"isl_jax/data/a.py": "p = folder / (name + '.tmp')"}, "'.tmp'"),
    (written_whole_in_one_place, {"isl_jax/data/a.py": "p = f'.{name}.partial'"}, "partial"),
    (tasks_spelled_once, {"isl_jax/data/a.py": "x = target == 'semantic'"}, "a.py:1"),
    (tasks_spelled_once, {"launch/a.py": "y = {'distance_and_semantic': 2}"}, "launch/a.py:1"),
    (mirrored_tests, {"tests/data/nothing_test.py": ""}, "nothing_test.py"),
    (mirrored_tests, {"tests/nothing_test.py": ""}, "nothing_test.py"),
    (tree_in_the_docs, {"isl_jax/data/a.py": ""}, "isl_jax/data/a.py: not in the tree"),
    (tree_in_the_docs, {"isl_jax/files.py": None}, "isl_jax/files.py: in docs/architecture.md"),
    (docs_name_what_is_there, {"docs/a.md": "see `data/samples.py`"}, "data/samples.py"),
    (packages_are_installed, {"isl_jax/attic/a.py": ""}, "isl_jax.attic"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "changes", "told"), PLANTED)
def test_every_rule_can_fail(rule, changes, told):
    before = set(rule(project()))
    changed = {p: t for p, t in {**project(), **changes}.items() if t is not None}
    offences = [offence for offence in rule(changed) if offence not in before]
    assert any(told in offence for offence in offences), offences


def test_every_rule_is_shown_failing():
    assert {rule for rule, _, _ in PLANTED} == set(RULES)
