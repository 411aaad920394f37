"""Lay out the pages of the site under build/docs, those that are generated among them.

    make docs

README.md is the start page. Each key of a configuration comes with the comment that stands over it
in configs/base.py, each command with its own --help.
"""

import ast
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from isl_jax.configs import base, brightfield, cell, demo, hela, nucleus, t98g

ROOT = Path(__file__).parents[1]
STUDIES = (nucleus, cell, demo, hela, brightfield, t98g)


class Keys(NamedTuple):
    """Keys that stand under one comment of configs/base.py, in dotted form."""

    names: tuple[str, ...]
    comment: str


def main(out: Path) -> None:
    """Write every page to `out`, which is made anew."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(ROOT / "docs", out, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copy(ROOT / "CITATION.cff", out)
    for page, source in (("index.md", "README.md"), ("changelog.md", "CHANGELOG.md")):
        (out / page).write_text((ROOT / source).read_text().replace("](docs/", "]("))
    for page in out.glob("*.md"):
        text = page.read_text()
        text = text.replace("](../configs/base.py)", "](configuration.md)")
        page.write_text(
            text.replace("`configs/base.py`.", "[`configs/base.py`](configuration.md).")
        )
    (out / "configuration.md").write_text(configuration_page())
    (out / "commands.md").write_text(commands_page())


def configuration_page() -> str:
    """Every key with its default and what configs/base.py says of it; what each study changes."""
    defaults = flat(base.study_config("cell", base.parse_argument("")))
    lines = [
        "# Configuration keys",
        "",
        "Made from the comments of `configs/base.py`. Any key is set on the command line,",
        "`--config.train.num_steps=2000`. In a sweep `pretrain.*` are the keys of the pretext run,",
        "the same as `train.*`. The text after the colon of `--config=FILE:TEXT`:",
        "",
        *re.findall(r"^    .*$", inspect.getdoc(base) or "", re.MULTILINE),
    ]
    section = None
    for group in documented_keys():
        room = group.names[0].rpartition(".")[0]
        if room != section:
            section = room
            lines += ["", f"## {room or 'The run'}", "", "| key | default | |", "|---|---|---|"]
        names = "<br>".join(f"`{name}`" for name in group.names)
        values = "<br>".join(f"`{_shown(defaults[name])}`" for name in group.names)
        lines.append(f"| {names} | {values} | {_cell(group.comment)} |")
    lines += ["", "## What each study sets", ""]
    for module in STUDIES:
        config = module.get_config()
        normal = flat(base.study_config(config.study, base.parse_argument("")))
        changed = [
            f"`{k}={_shown(v)}`" for k, v in flat(config).items() if k in normal and v != normal[k]
        ]
        name = f"configs/{module.__name__.rpartition('.')[2]}.py"
        says = (inspect.getdoc(module) or "").splitlines()[0]
        lines += [f"**`{name}`**: {says}", "", ", ".join(changed) or "All defaults.", ""]
    return "\n".join(lines) + "\n"


def documented_keys() -> list[Keys]:
    """The keys of configs/base.py in its order, each with the comment over it.

    A key without a comment of its own belongs to the one above: they are explained together.
    """
    source = Path(inspect.getfile(base)).read_text()
    functions = {f.name: f for f in ast.parse(source).body if isinstance(f, ast.FunctionDef)}
    groups: list[Keys] = []
    for name, line in _keys(functions["study_config"], functions, ""):
        comment = _comment_over(source.splitlines(), line)
        alone = not groups or name.rpartition(".")[0] != groups[-1].names[0].rpartition(".")[0]
        if comment or alone:
            groups.append(Keys((name,), comment))
        else:
            groups[-1] = groups[-1]._replace(names=(*groups[-1].names, name))
    # Keys of the run itself first, as they stand in no section.
    return sorted(groups, key=lambda group: "." in group.names[0])


def flat(config: ConfigDict | dict[str, Any], above: str = "") -> dict[str, Any]:
    """Leaves of a configuration by their dotted names; the pretext run's own are left out."""
    found: dict[str, Any] = {}
    for name, value in dict(config).items():
        if isinstance(value, ConfigDict | dict):
            found |= flat(value, f"{above}{name}.") if name != "pretrain" else {}
        else:
            found[above + name] = value
    return found


def _keys(
    function: ast.FunctionDef, functions: dict[str, ast.FunctionDef], above: str
) -> Iterator[tuple[str, int]]:
    """Dotted names and lines of the keys in the first dictionary that a function writes down."""
    table = next(node for node in ast.walk(function) if isinstance(node, ast.Dict))
    yield from _keys_of_table(table, functions, above)


def _keys_of_table(
    table: ast.Dict, functions: dict[str, ast.FunctionDef], above: str
) -> Iterator[tuple[str, int]]:
    for key, value in zip(table.keys, table.values, strict=True):
        if not isinstance(key, ast.Constant):
            raise ValueError(f"configs/base.py, line {value.lineno}: a key that is no text")
        name = f"{above}{key.value}"
        called = getattr(getattr(value, "func", None), "id", None)
        if isinstance(value, ast.Dict):
            yield from _keys_of_table(value, functions, f"{name}.")
        elif called in functions:
            yield from _keys(functions[called], functions, f"{name}.")
        else:
            yield name, key.lineno


def _comment_over(lines: list[str], line: int) -> str:
    found: list[str] = []
    for text in reversed(lines[: line - 1]):
        if not text.strip().startswith("#"):
            break
        found.insert(0, text.strip().removeprefix("#").strip())
    return " ".join(found)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return "(empty)" if value == "" else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def commands_page() -> str:
    """What each command of the package says when it is asked for --help."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    lines = ["# Commands", "", "What each says itself, `--help`."]
    for command, target in scripts.items():
        module = target.partition(":")[0]
        asked = subprocess.run(
            [sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT
        )
        if "--" not in asked.stdout:
            raise RuntimeError(f"{command} --help: {asked.stderr.strip() or 'printed nothing'}")
        lines += ["", f"## {command}", "", "````text", asked.stdout.strip(), "````"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(ROOT / "build" / "docs")
