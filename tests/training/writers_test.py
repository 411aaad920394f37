"""Writers, each against what it leaves behind."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from isl_jax.training.writers import TRACKERS, JsonLines

PICTURES = np.zeros((2, 4, 8, 1), np.uint8)


def use(name, workdir, *, start_step=0):
    tracker = TRACKERS[name](workdir, start_step=start_step)
    tracker.scalars(7, "train", {"loss": 0.25})
    tracker.images(7, "validation", PICTURES)
    tracker.close()


def test_tensorboard_gets_curves_and_pictures(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    use("tensorboard", tmp_path)
    (path,) = (tmp_path / "tensorboard").iterdir()
    data, events = path.read_bytes(), []
    while data:  # records: length, its checksum, the event, its checksum
        length = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    values = {v.tag: v for event in events if event.step == 7 for v in event.summary.value}
    assert values["train/loss"].simple_value == 0.25
    assert (values["validation/1"].image.height, values["validation/1"].image.width) == (4, 8)


class Recorder:
    """Stands in for a package: remembers what was called with what."""

    def __init__(self):
        self.calls = []
        self.util = SimpleNamespace(generate_id=lambda: "abc")
        self.info = SimpleNamespace(run_id="abc")

    def Image(self, image):  # noqa: N802
        return image.shape

    def __getattr__(self, name):
        def call(*arguments, **options):
            self.calls.append((name, arguments, options))
            return self

        return call


@pytest.mark.parametrize(
    ("name", "begin", "metric"), [("wandb", "init", "log"), ("mlflow", "start_run", "log_metrics")]
)
def test_a_resumed_run_goes_on_under_its_id(monkeypatch, tmp_path, name, begin, metric):
    (tmp_path / "config.json").write_text(json.dumps({"seed": 3}))
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, name, recorder)
    use(name, tmp_path)
    use(name, tmp_path, start_step=7)
    begun = [options for called, _, options in recorder.calls if called == begin]
    assert begun[1].get("id", begun[1].get("run_id")) == "abc"
    assert (metric, ({"train/loss": 0.25},), {"step": 7}) in recorder.calls


def test_a_package_that_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"pip install 'isl-jax\[wandb\]'"):
        use("wandb", tmp_path)


def test_lines_of_steps_that_are_run_again_and_a_cut_one_are_dropped(tmp_path):
    lines = ['{"step": 1, "loss": 0.1}', '{"step": 2, "loss": 0.2}', '{"step": 2, "lo']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    writer = JsonLines(tmp_path, start_step=1)
    writer.scalars(2, "train", {"loss": 0.3})
    writer.close()
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in found] == [0.1, 0.3]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
