"""The commands that README, docs and the help texts show, and the options that commands have."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
# What absl gives to every command.
ABSL = {"help", "helpfull", "verbosity", "flagfile", "pdb"}
COMMAND = re.compile(r"(?<![\w./-])(?:isl-|(?:isl_jax/)?launch/)(?P<name>[a-z]+)(?:\.py)?(?= +-)")
# A command ends where its line, its quotation or its comment does, or the next command begins.
END = re.compile(r"`|\s#|\s[|&;]|[;&|]\s|\)")
OPTION = re.compile(r"(?<!\S)--([A-Za-z_][\w.]*)(?:=(\S*))?")


class Shown(NamedTuple):
    """A command as a page shows it: where, `train` for `isl-train`, options with their values."""

    path: str
    name: str
    options: tuple[tuple[str, str], ...]
    text: str


def pages() -> Iterator[Path]:
    """Where commands are shown: pages, the help texts of commands and configurations, scripts."""
    yield ROOT / "README.md"
    for pattern in ("docs/*.md", "launch/*.py", "launch/*.sh", "launch/slurm/*", "configs/*.py"):
        yield from sorted(p for p in ROOT.glob(pattern) if p.is_file())


def commands(text: str, path: str) -> Iterator[Shown]:
    """The commands in a page."""
    for line in re.sub(r"\\+\n\s*", " ", text).splitlines():
        for found in COMMAND.finditer(line):
            rest = END.split(line[found.end() :], maxsplit=1)[0]
            options = tuple((m[1], m[2] or "") for m in OPTION.finditer(rest))
            yield Shown(path, found["name"], options, f"isl-{found['name']}{rest}")


@functools.cache
def options_of(module: str) -> frozenset[str]:
    """Options that launch/<module>.py defines, itself or in what it imports of launch/."""
    found = set()
    tree = ast.parse((ROOT / "launch" / f"{module}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("isl_jax.launch"):
            of = node.module.removeprefix("isl_jax.launch").strip(".")
            for name in [of] if of else [alias.name for alias in node.names]:
                if (ROOT / "launch" / f"{name}.py").exists():
                    found |= options_of(name)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "").startswith("DEFINE_"):
            first = node.args[0]
            found |= {first.value} if isinstance(first, ast.Constant) else _words_in_tables(tree)
    return frozenset(found)


def _words_in_tables(tree: ast.Module) -> set[str]:
    """For options that are defined in a loop: the words in the tuples of a module."""
    entries = (e for node in ast.walk(tree) if isinstance(node, ast.Tuple) for e in node.elts)
    return {e.value for e in entries if isinstance(e, ast.Constant) and str(e.value).isidentifier()}


def unknown_options(shown: Shown) -> list[str]:
    """Options of a command that it does not have; `--config.KEY` counts as `--config`."""
    if not (ROOT / "launch" / f"{shown.name}.py").exists():
        return [f"isl-{shown.name}"]
    known = options_of(shown.name) | ABSL
    known |= {f"no{name}" for name in known}
    return [name for name, _ in shown.options if name.partition(".")[0] not in known]
