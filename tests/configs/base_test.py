"""The argument after the colon of --config, and the keys that commands rely on."""

import pytest

from isl_jax.configs import base, brightfield, cell, demo, hela, nucleus, t98g


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("pretrane", "pretrain, segment"),
        ("segment,inits=isl", "init, n, preset, stage"),
        ("segment,preset=old", "default, paper"),
        ("segment,init=magic", "random, imagenet, isl"),
        ("segment,n=0", "1 or more"),
        ("segment,n=few", "1 or more"),
    ],
)
def test_unknown_arguments_are_refused_with_what_is_known(argument, told):
    with pytest.raises(ValueError, match=told):
        cell.get_config(argument)


@pytest.mark.parametrize("study", [nucleus, cell, demo, hela, brightfield, t98g])
def test_every_study_has_both_stages_and_a_sweep_of_them(study):
    pretrain, segment = study.get_config("pretrain"), study.get_config("segment,init=isl,n=7")
    both = study.get_config("")
    assert (segment.init.kind, segment.num_annotated) == ("isl", 7)
    assert both.pretrain.to_dict() == pretrain.train.to_dict()
    assert both.train.to_dict() == segment.train.to_dict()
    assert "pretrain" not in segment
    for name in ("seed", "data.root", "data.crop_size", "train.batch_size", "train.num_steps"):
        assert name in base_names(segment)


def base_names(config, prefix=""):
    names = set()
    for name, value in config.items():
        names.add(prefix + name)
        if hasattr(value, "items"):
            names |= base_names(value, f"{prefix}{name}.")
    return names


def test_the_demo_holds_both_studies():
    assert demo.get_config("study=cell,segment").study == "cell"
    assert base.parse_argument("segment", study="nucleus")["study"] == "nucleus"


def test_the_small_hela_study_differs_in_its_steps_alone():
    default, small = hela.get_config(), hela.get_config("size=small")
    assert (small.pretrain.num_steps, small.train.num_steps) == (200, 100)
    for config in (default, small):
        config.pretrain.num_steps = config.train.num_steps = 0
    assert default.to_dict() == small.to_dict()
    with pytest.raises(ValueError, match="size is one of default, small"):
        hela.get_config("size=tiny")
