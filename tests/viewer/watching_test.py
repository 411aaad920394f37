"""How far a training has come, as its folder tells."""

import json
import os

import pytest

from isl_jax.locks import locked, user_of
from isl_jax.viewer import watching
from isl_jax.viewer.watching import PRETEXT, SEGMENT, TrainingPlan, is_newer, look


def write_stage(folder, lines, *, num_steps=20, model=False):
    folder.mkdir(parents=True)
    config = {"train": {"batch_size": 4, "num_steps": num_steps}, "data": {"root": "D"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if model:
        (folder / "model").mkdir()
        (folder / "model" / "model.json").write_text("{}")


def train_line(step, loss, **more):
    return {"step": step, "split": "train", "loss": loss, **more}


def test_nothing_has_begun(tmp_path):
    training = look(tmp_path / "new")
    assert not training.is_running and not training.is_done and training.told == ""
    assert training.current.name == PRETEXT


def test_a_stage_under_way_with_its_pace(tmp_path):
    lines = [
        train_line(5, 1.0, images_per_second=1.0),
        train_line(10, 0.5, images_per_second=2.0),
        {"step": 10, "split": "validation", "loss": 0.7},
        train_line(11, float("nan")),
    ]
    write_stage(tmp_path / PRETEXT, lines)
    (tmp_path / PRETEXT / "checkpoints" / "10").mkdir(parents=True)
    training = look(tmp_path)
    stage = training.current
    assert (stage.step, stage.num_steps, stage.checkpoint) == (11, 20, 10)
    assert stage.losses == [(5, 1.0), (10, 0.5)] and stage.validation == [(10, 0.7)]
    assert stage.seconds_left == 9 * 4 / 2.0
    assert training.told == (
        "pretrain: step 11 of 20, 2.0 images/s, about 1 min left\n"
        "not running: Start goes on from the last checkpoint"
    )


def test_the_second_stage_and_the_score(tmp_path):
    ended = {"step": 20, "split": "run", "images_per_second": 3.0}
    write_stage(tmp_path / PRETEXT, [train_line(20, 0.1), ended], model=True)
    write_stage(tmp_path / SEGMENT, [train_line(3, 0.4)], num_steps=None)
    training = look(tmp_path)
    assert training.stages[0].is_done and training.current.name == SEGMENT
    assert training.current.seconds_left is None and "segment: step 3" in training.told
    # Told of its end, but the model is not there yet.
    (tmp_path / SEGMENT / "metrics.jsonl").write_text(json.dumps(ended) + "\n")
    assert not look(tmp_path).is_done
    (tmp_path / SEGMENT / "model").mkdir()
    (tmp_path / SEGMENT / "model" / "model.json").write_text("{}")
    assert look(tmp_path).is_done
    (tmp_path / SEGMENT / "evaluation").mkdir()
    score = {"mean": 0.4321, "std": 0.1, "count": 3}
    summary = {"metric": "map", "crops": score, "fields": score}
    (tmp_path / SEGMENT / "evaluation" / "summary.json").write_text(json.dumps(summary))
    assert "withheld fields: mAP 0.43 over 3" in look(tmp_path).told


@pytest.mark.parametrize("place", ["", PRETEXT, SEGMENT])
def test_whoever_works_there_is_found(tmp_path, monkeypatch, place):
    (tmp_path / place).mkdir(exist_ok=True)
    with locked(tmp_path / place, "wait"):
        words = user_of(tmp_path / place)
    monkeypatch.setattr(watching, "user_of", lambda f: words if f == tmp_path / place else None)
    assert look(tmp_path).is_running and "running since" in look(tmp_path).told


def test_the_commands_of_a_plan():
    plan = TrainingPlan(
        "DATA",
        "W",
        config="configs/demo.py:study=cell",
        init="random",
        num_annotated=3,
        pretrain_steps=7,
        crop_size=64,
        encoder="tiny",
        scores=False,
    )
    assert list(map(str, plan.commands())) == [
        "isl-train --config=configs/demo.py:study=cell,pretrain,init=random "
        "--config.data.root=DATA --config.data.crop_size=64 --config.model.encoder=tiny "
        "--config.train.num_steps=7 "
        "--workdir=W/pretrain",
        "isl-train --config=configs/demo.py:study=cell,segment,init=isl,n=3 "
        "--config.init.checkpoint=W/pretrain --config.data.root=DATA --config.data.crop_size=64 "
        "--config.model.encoder=tiny --workdir=W/segment",
    ]
    assert str(TrainingPlan("", "").commands()[-1]) == "isl-evaluate --workdir=FOLDER/segment"


def test_data_that_are_newer_than_a_training_are_noticed(tmp_path):
    write_stage(tmp_path / "W" / SEGMENT, [])
    (tmp_path / "data").mkdir()
    assert not is_newer(tmp_path / "data", tmp_path / "W")
    (tmp_path / "data" / "dataset.json").write_text("{}")
    os.utime(tmp_path / "data" / "dataset.json", (2e9, 2e9))
    assert is_newer(tmp_path / "data", tmp_path / "W")
