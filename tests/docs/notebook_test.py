"""The notebook as it lies in git: no outputs, real commands. `make check-docs` runs it."""

import ast
import json

import pytest

from tests.docs.written import ROOT, Shown, unknown_options

CELLS = json.loads((ROOT / "docs" / "notebooks" / "hela.ipynb").read_text())["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def test_outputs_are_stripped():
    assert CODE and all(not c["outputs"] and c["execution_count"] is None for c in CODE)


def _called():
    for cell in CODE:
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isl":
                first, *words = (_start(word) for word in node.args)
                options = tuple((w[2:].partition("=")[0], "") for w in words if w.startswith("--"))
                yield Shown("docs/notebooks/hela.ipynb", first, options, ast.unparse(node))


def _start(word):
    """What a word begins with: up to the first value that is put in."""
    first = word.values[0] if isinstance(word, ast.JoinedStr) else word
    first = first.left if isinstance(first, ast.BinOp) else first
    return first.value if isinstance(first, ast.Constant) else ""


@pytest.mark.parametrize("shown", list(_called()), ids=lambda shown: shown.name)
def test_its_commands_have_the_options_that_it_gives(shown):
    assert shown.options and not unknown_options(shown)


def test_it_calls_the_whole_chain():
    named = {shown.name for shown in _called()}
    assert named == {"fetch", "simulate", "prepare", "sweep", "report"}
