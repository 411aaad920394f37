"""What README, docs and help texts show can be typed: commands, options and keys are there."""

import importlib.util
import re

import pytest

from tests.docs.written import ROOT, commands, options_of, pages, unknown_options

SHOWN = [
    shown
    for path in pages()
    for shown in commands(path.read_text(), path.relative_to(ROOT).as_posix())
]


def test_the_commands_of_all_pages_have_the_options_that_are_shown():
    wrong = {f"{s.path}: {s.text}": unknown_options(s) for s in SHOWN if unknown_options(s)}
    assert not wrong


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md", "launch/demo.sh"])
def test_the_commands_of_a_page_are_found(page):
    assert len([s for s in SHOWN if s.path == page]) >= 4


def test_an_option_that_is_not_there_is_found():
    text = "run `isl-train --workdir=W --wrkdir=W` and\n  isl-predict \\\n    --modell=W  # --no\n"
    first, second = commands(text, "x.md")
    assert unknown_options(first) == ["wrkdir"] and unknown_options(second) == ["modell"]
    assert {"workdir", "config", "debug"} <= options_of("train")


def _configured():
    for shown in SHOWN:
        options = dict(shown.options)
        keys = [name.partition(".")[2] for name in options if name.startswith("config.")]
        file, _, text = options.get("config", "").partition(":")
        plain = re.fullmatch(r"configs/\w+\.py", file) and not re.search(r"[A-Z$…]", text)
        # Upper case stands for something: --config.KEY=VALUE.
        keys = [key for key in keys if key == key.lower()]
        if plain and keys:
            yield shown, file, text, keys


def test_the_keys_that_are_shown_are_those_of_the_configuration():
    found = list(_configured())
    assert len(found) >= 10
    for shown, file, text, keys in found:
        spec = importlib.util.spec_from_file_location("shown_config", ROOT / file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config(text)
        for key in keys:
            *above, last = key.split(".")
            table = config
            for name in above:
                assert name in table, (shown.path, shown.text, key)
                table = table[name]
            assert last in table, (shown.path, shown.text, key)
