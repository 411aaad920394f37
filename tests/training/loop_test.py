"""The loop, with a network of a few parameters: resume, abort, what is kept and told."""

import dataclasses
import json
import os
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isl_jax.task import Kind, Task
from isl_jax.training import devices as sharding
from isl_jax.training.augmentation import Augmentation
from isl_jax.training.checkpoint import Checkpoints
from isl_jax.training.loop import check_training, train
from isl_jax.training.losses import LossSettings, loss_parameters, task_loss
from isl_jax.training.progress import Progress
from isl_jax.training.settings import RunSettings, TrainSettings
from isl_jax.training.step import create_state, make_train_step
from isl_jax.training.stopping import InterruptedTrainingError

SIZE, BATCH = 8, 4
STAIN = Task(Kind.STAIN)


class Batches:
    """Endless random batches that are a function of their index alone."""

    def __init__(self, num_targets=1, fail_at=None, stop_at=None):
        self.index, self.num_targets, self.fail_at, self.stop_at = 0, num_targets, fail_at, stop_at

    def batch(self, index):
        rng = np.random.default_rng(index)
        return {
            "image": rng.normal(size=(BATCH, SIZE, SIZE, 3)).astype(np.float32),
            "target": rng.random((BATCH, SIZE, SIZE, self.num_targets)).astype(np.float32),
            "weight": np.ones((BATCH, SIZE, SIZE, 1), np.float32),
        }

    def __next__(self):
        if self.index == self.stop_at:
            self.stop_at = None
            os.kill(os.getpid(), signal.SIGTERM)
        batch = self.batch(self.index)
        if self.index == self.fail_at:
            batch["image"][0, 0, 0, 0] = np.nan
        self.index += 1
        return batch

    def get_state(self):
        return {"index": self.index}

    def set_state(self, state):
        self.index = state["index"]


def initial(network):
    variables = network.init(jax.random.key(0), np.zeros((1, SIZE, SIZE, 3), np.float32))
    return jax.tree.map(np.asarray, variables)


def settings(**changes):
    values = {"batch_size": BATCH, "num_steps": 12, "learning_rate": 1e-2, "schedule": "cosine"}
    values |= {"checkpoint_every": 4, "validate_every": 4, "log_every": 1}
    return TrainSettings(**values | changes)


def run(network, workdir, batches, *, task=STAIN, options=None, run=None, **changes):
    """Train; what was kept. `options` are those of TrainingData, `run` those of RunSettings."""
    saved = []
    train(
        network,
        initial(network),
        task,
        sharding.TrainingData(batches, **options or {}),
        settings(**changes),
        RunSettings(**run or {}),
        workdir=workdir,
        save_model=lambda variables, summary: saved.append((variables, summary)),
    )
    return saved


def losses_of(workdir):
    return {line["step"]: line["loss"] for line in lines_of(workdir, "train")}


def lines_of(workdir, split):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


def assert_equal_trees(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_a_stopped_run_resumes_bit_for_bit(network, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir(), cut.mkdir()
    expected = run(network, whole, Batches())[-1][0]
    for stop_at in (3, 7):  # between checkpoints; the signal saves one of its own
        with pytest.raises(InterruptedTrainingError, match="resumes"):
            run(network, cut, Batches(stop_at=stop_at))
    found = run(network, cut, Batches())[-1][0]
    assert_equal_trees(found, expected)
    assert losses_of(cut) == losses_of(whole)
    assert sorted(losses_of(whole)) == list(range(1, 13))


def test_a_killed_run_repeats_from_its_last_checkpoint(network, tmp_path, monkeypatch):
    expected = run(network, tmp_path, Batches())[-1][0]
    killed = tmp_path / "killed"
    killed.mkdir()

    class KilledError(Exception):
        pass

    batches = Batches()

    def die(self, step, values):
        if step == 7:
            raise KilledError
        report(self, step, values)

    report = Progress.report
    monkeypatch.setattr(Progress, "report", die)
    with pytest.raises(KilledError):
        run(network, killed, batches)
    monkeypatch.undo()
    with Checkpoints(killed) as checkpoints:
        assert checkpoints.latest_step == 4
    assert_equal_trees(run(network, killed, Batches())[-1][0], expected)
    assert losses_of(killed) == losses_of(tmp_path)


def test_finished_run_changes_nothing_when_started_again(network, tmp_path):
    first = run(network, tmp_path, Batches())[-1][0]
    again = run(network, tmp_path, Batches())[-1][0]
    assert_equal_trees(again, first)


def test_the_best_model_by_validation_is_kept(network, tmp_path):
    validation = lambda: iter([Batches().batch(99)])  # noqa: E731
    saved = run(network, tmp_path, Batches(), options={"validation": validation})
    recorded = [summary["validation_loss"] for _, summary in saved]
    assert recorded == sorted(recorded, reverse=True)
    assert min(line["loss"] for line in lines_of(tmp_path, "validation")) == recorded[-1]


def test_alpha_is_the_initial_ratio_and_survives_a_resume(network, tmp_path, capfd):
    network = network.clone(out_channels=2)
    task = Task(Kind.INSTANCES)
    make_train_step.cache_clear()
    three = {"loss": LossSettings(alpha_batches=3)}
    saved = run(network, tmp_path, Batches(num_targets=2), task=task, run=three)
    alpha = saved[-1][1]["alpha"]
    source = Batches(num_targets=2)
    parts = []
    for _ in range(3):
        batch = next(source)
        outputs, _ = network.apply(
            initial(network), batch["image"], train=True, mutable=["batch_stats"]
        )
        outputs, targets = jnp.asarray(outputs), batch["target"]
        parameters = loss_parameters(task)
        parts.append(task_loss(task.kind, outputs, targets, batch["weight"], parameters)[1])
    expected = sum(p["mse"] for p in parts) / sum(p["bce"] for p in parts)
    assert alpha == pytest.approx(float(expected), rel=1e-5)
    # Measuring and training share one compilation: at full size each takes half a minute.
    assert make_train_step.cache_info().currsize == 1
    assert "compiled again" not in capfd.readouterr().err
    given = {"loss": LossSettings(alpha="2000")}
    again = run(network, tmp_path, Batches(num_targets=2), task=task, run=given)
    assert again[-1][1]["alpha"] == alpha  # resumed: the run keeps what it began with


def test_a_step_that_is_not_finite_is_kept_and_leaves_the_last_good_checkpoint(network, tmp_path):
    with pytest.raises(FloatingPointError, match=r"step 7: .*failed_step.*learning_rate"):
        run(network, tmp_path, Batches(fail_at=6))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 4
    names = ("before", "batch", "after")
    before, batch, after = (np.load(tmp_path / "failed_step" / f"{name}.npz") for name in names)
    assert all(np.isfinite(before[name]).all() for name in before.files)
    assert np.isnan(after["params/Conv_0/kernel"]).any()
    expected = Batches().batch(6)
    expected["image"][0, 0, 0, 0] = np.nan
    for name, array in expected.items():
        np.testing.assert_array_equal(batch[name], array)
    # Six steps without the seventh lead to the state before it.
    mesh, config = sharding.data_mesh(), settings()
    parameters = loss_parameters(STAIN)
    state = create_state(initial(network), config, mesh, parameters)
    step, batches = make_train_step(network, "stain", config), Batches()
    for _ in range(6):
        state, _ = step(state, sharding.shard_batch(next(batches), mesh))
    np.testing.assert_allclose(
        before["params/Conv_0/kernel"], state.variables["params"]["Conv_0"]["kernel"], atol=1e-6
    )
    assert before["step"] == 6


def test_a_checkpoint_of_another_network_is_refused_by_name(network, tmp_path):
    run(network, tmp_path, Batches())
    with pytest.raises(ValueError, match="does not fit"):
        run(network.clone(out_channels=2), tmp_path, Batches(num_targets=2))


class Order(Batches):
    """Indices into a set of ten crops, as a function of their number alone."""

    def batch(self, index):
        return {"index": np.random.default_rng(index).permutation(10)[:BATCH].astype(np.int32)}


class Picked(Order):
    """The crops of `Order`, on the host."""

    def __init__(self, crops, **options):
        super().__init__(**options)
        self.crops = crops

    def batch(self, index):
        return {
            name: a[super(Picked, self).batch(index)["index"]] for name, a in self.crops.items()
        }


def ten_crops():
    batches = [Batches().batch(index) for index in range(3)]
    return {name: np.concatenate([b[name] for b in batches])[:10] for name in batches[0]}


def test_crops_on_the_device_give_the_numbers_of_the_host_and_resume_there(network, tmp_path):
    folders = [tmp_path / name for name in ("host", "device", "moved")]
    for folder in folders:
        folder.mkdir()
    augmented = {"run": {"augmentation": Augmentation(flips=True, intensity=0.1), "seed": 3}}
    on_device = {"options": {"resident": ten_crops()}}
    crops, (host, device, moved) = ten_crops(), folders
    expected = run(network, host, Picked(crops), **augmented)[-1][0]
    found = run(network, device, Order(), **on_device, **augmented)[-1][0]
    with pytest.raises(InterruptedTrainingError):
        run(network, moved, Picked(crops, stop_at=6), **augmented)
    resumed = run(network, moved, Order(), **on_device, **augmented)[-1][0]
    for variables, folder in ((found, device), (resumed, moved)):
        assert_equal_trees(variables, expected)
        assert losses_of(folder) == losses_of(host)


def test_a_run_that_stops_learning_ends_early_and_stays_ended(network, tmp_path, capfd):
    worse = iter(range(100))

    def validation():  # farther from anything that can be learnt each time
        batch = Batches().batch(99)
        batch["target"] += 10 * next(worse)
        return iter([batch])

    options = {"options": {"validation": validation}}
    options |= {"validate_every": 2, "patience": 3, "num_steps": 24}
    saved = run(network, tmp_path, Batches(), **options)
    assert [summary["step"] for _, summary in saved] == [2]
    assert max(losses_of(tmp_path)) == 8
    assert (
        "stopped earlier, at step 8 of 24, as the model was not learning" in capfd.readouterr().err
    )
    assert run(network, tmp_path, Batches(), **options) == []
    assert max(losses_of(tmp_path)) == 8


def test_a_validation_batch_need_not_divide_over_the_devices(network, tmp_path):
    batch = Batches().batch(99)
    uneven = {name: array[:3] for name, array in batch.items()}
    options = {"validation": lambda: iter([uneven])}
    run(network, tmp_path, Batches(), options=options, num_steps=4)
    mesh, config = sharding.data_mesh(jax.devices()[:1]), settings()
    with Checkpoints(tmp_path) as checkpoints:
        parameters = loss_parameters(STAIN)
        state, _ = checkpoints.restore(create_state(initial(network), config, mesh, parameters))
    outputs = network.apply(jax.device_get(state).variables, uneven["image"])
    expected = np.abs(np.asarray(outputs) - uneven["target"]).mean()
    assert lines_of(tmp_path, "validation")[-1]["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_pace_leaves_out_what_is_not_training(network, tmp_path):
    def slow():
        time.sleep(0.5)
        return iter([Batches().batch(99)])

    summary = run(network, tmp_path, Batches(), options={"validation": slow})[-1][1]
    whole = lines_of(tmp_path, "run")
    assert len(whole) == 1
    for told in (summary["throughput"], whole[0]):
        assert told["compile_seconds"] >= 0
        assert told["peak_host_memory"] > 1 << 20
        assert 0 <= told["data_wait"] <= 1
    # Three looks of half a second would leave 12 steps no more than 32 crops a second.
    assert whole[0]["images_per_second"] > 32


def test_compiling_again_is_told(network, tmp_path, capfd):
    class Changing(Batches):
        def batch(self, index):
            batch = super().batch(index)
            return {name: np.tile(a, (1, 2, 1, 1)) for name, a in batch.items()} if index else batch

    run(network, tmp_path, Changing(), num_steps=4)
    assert "compiled again" in capfd.readouterr().err
    (tmp_path / "steady").mkdir()
    run(network, tmp_path / "steady", Batches(), num_steps=4)
    assert "compiled again" not in capfd.readouterr().err


def test_a_trace_of_chosen_steps_is_written(network, tmp_path):
    run(network, tmp_path, Batches(), run={"profile": "3:5"}, num_steps=8)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


@pytest.mark.parametrize(
    ("changes", "told"), [({"batch_size": 6}, "choose 4, 8 or"), ({"rates": "head/=2"}, "'head/'")]
)
def test_what_the_loop_would_refuse_is_known_before_anything_is_written(
    network, tmp_path, changes, told
):
    unfit = dataclasses.replace(settings(), **changes)
    with pytest.raises(ValueError, match=told):
        check_training(unfit, initial(network))
    with pytest.raises(ValueError, match=told):
        run(network, tmp_path, Batches(), **changes)
    assert not list(tmp_path.iterdir())
