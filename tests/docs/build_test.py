"""Pages of the site that are generated, and what the site must not leave out."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

from isl_jax.configs import base

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_is_documented_once_with_a_comment(build):
    groups = build.documented_keys()
    named = [name for group in groups for name in group.names]
    assert sorted(named) == sorted(build.flat(base.study_config("cell", base.parse_argument(""))))
    assert [group.names for group in groups if not group.comment] == []


def test_the_page_has_the_default_and_the_comment_of_a_key(build):
    page = build.configuration_page()
    assert "| `data.crop_size` | `512` | Side of the square crops in pixels. Paper: 512. |" in page
    assert "| `train.b1`<br>`train.b2` | `0.9`<br>`0.999` | Adam's beta 1." in page
    assert "`data.crop_size=128`" in page.partition("configs/hela.py")[2]


def test_every_page_is_in_the_navigation(build, tmp_path, monkeypatch):
    def pages(nav):
        for entry in nav:
            for value in entry.values():
                yield from pages(value) if isinstance(value, list) else [value]

    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    monkeypatch.setattr(build, "commands_page", lambda: "# Commands\n")
    build.main(tmp_path / "docs")
    written = {path.name for path in (tmp_path / "docs").glob("*.md")}
    assert sorted(pages(nav)) == sorted(written)
