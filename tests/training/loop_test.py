"""The loop, with a network of a few parameters: resume, devices, golden step, abort."""

import dataclasses
import json
import os
import signal
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isl_jax.training import devices as sharding
from isl_jax.training.augmentation import Augmentation
from isl_jax.training.checkpoint import Checkpoints
from isl_jax.training.loop import train
from isl_jax.training.objectives import Objective, objective_loss
from isl_jax.training.optimizer import OptimizerSettings, make_optimizer
from isl_jax.training.progress import Progress
from isl_jax.training.settings import TrainSettings
from isl_jax.training.state import create_state
from isl_jax.training.step import make_train_step
from isl_jax.training.stopping import InterruptedTrainingError

SIZE, BATCH = 8, 4


class SmallNetwork(nn.Module):
    out_channels: int = 1

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Conv(self.out_channels, (1, 1))(x)


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


@pytest.fixture
def network():
    return SmallNetwork()


def initial(network):
    variables = network.init(jax.random.key(0), np.zeros((1, SIZE, SIZE, 3), np.float32))
    return jax.tree.map(np.asarray, variables)


def settings(num_steps=12, **changes):
    optimizer = OptimizerSettings(num_steps=num_steps, learning_rate=1e-2, schedule="cosine")
    values = {"checkpoint_every": 4, "validate_every": 4, "log_every": 1} | changes
    return TrainSettings(batch_size=BATCH, optimizer=optimizer, **values)


def run(network, workdir, batches, *, objective=None, validation=None, resident=None, **changes):
    saved = []
    train(
        network,
        initial(network),
        objective or Objective("stain"),
        batches,
        settings=settings(**changes),
        workdir=workdir,
        save_model=lambda variables, summary: saved.append((variables, summary)),
        validation=validation,
        resident=resident,
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
    with Checkpoints(killed / "checkpoints") as checkpoints:
        assert checkpoints.latest_step == 4
    assert_equal_trees(run(network, killed, Batches())[-1][0], expected)
    assert losses_of(killed) == losses_of(tmp_path)


def test_finished_run_changes_nothing_when_started_again(network, tmp_path):
    first = run(network, tmp_path, Batches())[-1][0]
    again = run(network, tmp_path, Batches())[-1][0]
    assert_equal_trees(again, first)


@pytest.mark.parametrize("num_devices", [2, 4])
def test_the_same_numbers_on_any_number_of_devices(network, num_devices):
    results = []
    for count in (1, num_devices):
        mesh = sharding.data_mesh(jax.devices()[:count])
        config = settings().optimizer
        parameters = Objective("stain").loss_parameters()
        state = create_state(initial(network), make_optimizer(config), mesh, parameters)
        step, batches = make_train_step(network, "stain", config), Batches()
        for _ in range(5):
            state, metrics = step(state, sharding.shard_batch(next(batches), mesh))
        results.append(jax.device_get((state.params, state.batch_stats, metrics)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)


def test_one_step_of_adam_against_its_definition(network, tmp_path):
    """Golden step: gradient by finite differences in float64, update by Adam's formula."""
    batch = Batches().batch(0)
    variables = initial(network)

    def loss(bias):
        params = {**variables["params"], "Conv_1": {**variables["params"]["Conv_1"], "bias": bias}}
        output, _ = network.apply(
            {**variables, "params": params}, batch["image"], train=True, mutable=["batch_stats"]
        )
        return float(np.abs(np.asarray(output, np.float64) - batch["target"]).mean())

    bias = variables["params"]["Conv_1"]["bias"].astype(np.float64)
    slope = (loss(bias + 1e-3) - loss(bias - 1e-3)) / 2e-3
    # The first step of Adam is lr * g / (|g| + eps): its sign alone.
    expected = bias - 1e-2 * np.sign(slope)
    config = OptimizerSettings(num_steps=1, learning_rate=1e-2)
    mesh = sharding.data_mesh()
    parameters = Objective("stain").loss_parameters()
    state = create_state(variables, make_optimizer(config), mesh, parameters)
    step = make_train_step(network, "stain", config)
    state, metrics = step(state, sharding.shard_batch(batch, mesh))
    np.testing.assert_allclose(state.params["Conv_1"]["bias"], expected, rtol=1e-4)
    assert metrics["loss"] == pytest.approx(loss(bias), rel=1e-5)


def test_both_activations_of_the_nucleus_study_share_one_compilation(network):
    config = OptimizerSettings(num_steps=3, learning_rate=1e-2)
    mesh, batch = sharding.data_mesh(), Batches().batch(0)
    batch["target"] = (batch["target"] > 0).astype(np.float32)
    make_train_step.cache_clear()
    losses = []
    for objective in (Objective("semantic"), Objective("semantic", "shifted_sigmoid", slope=3.0)):
        step = make_train_step(network, objective.target, config)
        parameters = objective.loss_parameters()
        state = create_state(initial(network), make_optimizer(config), mesh, parameters)
        losses.append(float(step(state, sharding.shard_batch(batch, mesh))[1]["loss"]))
        outputs, _ = network.apply(
            initial(network), batch["image"], train=True, mutable=["batch_stats"]
        )
        p, t = np.asarray(objective.probability(outputs), np.float64), batch["target"]
        expected = 1 - ((p * t).sum() + 1) / ((p + t - p * t).sum() + 1)
        assert losses[-1] == pytest.approx(expected, rel=1e-5)
    assert losses[0] != losses[1]
    assert step._cache_size() == 1


def test_the_best_model_by_validation_is_kept(network, tmp_path):
    validation = lambda: iter([Batches().batch(99)])  # noqa: E731
    saved = run(network, tmp_path, Batches(), validation=validation)
    recorded = [summary["validation_loss"] for _, summary in saved]
    assert recorded == sorted(recorded, reverse=True)
    assert min(line["loss"] for line in lines_of(tmp_path, "validation")) == recorded[-1]


def test_alpha_is_the_initial_ratio_and_survives_a_resume(tmp_path, capfd):
    network = SmallNetwork(out_channels=2)
    objective = Objective("distance_and_semantic")
    make_train_step.cache_clear()
    saved = run(network, tmp_path, Batches(num_targets=2), objective=objective, alpha_batches=3)
    alpha = saved[-1][1]["alpha"]
    source = Batches(num_targets=2)
    parts = []
    for _ in range(3):
        batch = next(source)
        outputs, _ = network.apply(
            initial(network), batch["image"], train=True, mutable=["batch_stats"]
        )
        parameters = objective.loss_parameters()
        outputs, targets = jnp.asarray(outputs), batch["target"]
        parts.append(
            objective_loss(objective.target, outputs, targets, batch["weight"], parameters)[1]
        )
    expected = sum(p["mse"] for p in parts) / sum(p["bce"] for p in parts)
    assert alpha == pytest.approx(float(expected), rel=1e-5)
    # Measuring and training share one compilation: at full size each takes half a minute.
    assert make_train_step.cache_info().currsize == 1
    assert "compiled again" not in capfd.readouterr().err
    again = run(network, tmp_path, Batches(num_targets=2), objective=objective, alpha="2000")
    assert again[-1][1]["alpha"] == alpha  # resumed: the run keeps what it began with


@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_a_step_that_is_not_finite_is_kept_and_leaves_the_last_good_checkpoint(
    network, tmp_path, steps_per_call
):
    with pytest.raises(FloatingPointError, match=r"step 7: .*failed_step.*learning_rate"):
        run(network, tmp_path, Batches(fail_at=6), steps_per_call=steps_per_call)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
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
    mesh, config = sharding.data_mesh(), settings().optimizer
    parameters = Objective("stain").loss_parameters()
    state = create_state(initial(network), make_optimizer(config), mesh, parameters)
    step, batches = make_train_step(network, "stain", config), Batches()
    for _ in range(6):
        state, _ = step(state, sharding.shard_batch(next(batches), mesh))
    np.testing.assert_allclose(
        before["params/Conv_0/kernel"], state.params["Conv_0"]["kernel"], atol=1e-6
    )
    assert before["step"] == 6


def test_a_checkpoint_of_another_network_is_refused_by_name(network, tmp_path):
    run(network, tmp_path, Batches())
    with pytest.raises(ValueError, match="does not fit"):
        run(SmallNetwork(out_channels=2), tmp_path, Batches(num_targets=2))


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
    augmented = {"augmentation": Augmentation(flips=True, intensity=0.1), "seed": 3}
    crops, (host, device, moved) = ten_crops(), folders
    expected = run(network, host, Picked(crops), **augmented)[-1][0]
    found = run(network, device, Order(), resident=crops, **augmented)[-1][0]
    with pytest.raises(InterruptedTrainingError):
        run(network, moved, Picked(crops, stop_at=6), **augmented)
    resumed = run(network, moved, Order(), resident=crops, **augmented)[-1][0]
    for variables, folder in ((found, device), (resumed, moved)):
        assert_equal_trees(variables, expected)
        assert losses_of(folder) == losses_of(host)


def test_several_steps_in_one_call_are_the_same_steps(network, tmp_path):
    (tmp_path / "one").mkdir(), (tmp_path / "four").mkdir()
    augmentation = Augmentation(flips=True)
    one = run(network, tmp_path / "one", Batches(), augmentation=augmentation)[-1][0]
    options = {"augmentation": augmentation, "steps_per_call": 4}
    four = run(network, tmp_path / "four", Batches(), **options)[-1][0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, four)
    left, right = losses_of(tmp_path / "one"), losses_of(tmp_path / "four")
    assert left.keys() == right.keys()
    assert list(left.values()) == pytest.approx(list(right.values()), rel=1e-5)


def test_a_run_that_stops_learning_ends_early_and_stays_ended(network, tmp_path, capfd):
    worse = iter(range(100))

    def validation():  # farther from anything that can be learnt each time
        batch = Batches().batch(99)
        batch["target"] += 10 * next(worse)
        return iter([batch])

    options = {"validation": validation, "validate_every": 2, "patience": 3, "num_steps": 24}
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
    run(network, tmp_path, Batches(), validation=lambda: iter([uneven]), num_steps=4)
    mesh, config = sharding.data_mesh(jax.devices()[:1]), settings().optimizer
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        parameters = Objective("stain").loss_parameters()
        state, _ = checkpoints.restore(
            create_state(initial(network), make_optimizer(config), mesh, parameters)
        )
    outputs = network.apply(jax.device_get(state.variables), uneven["image"])
    expected = np.abs(np.asarray(outputs) - uneven["target"]).mean()
    assert lines_of(tmp_path, "validation")[-1]["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_pace_leaves_out_what_is_not_training(network, tmp_path):
    def slow():
        time.sleep(0.5)
        return iter([Batches().batch(99)])

    summary = run(network, tmp_path, Batches(), validation=slow)[-1][1]
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
    run(network, tmp_path, Batches(), profile=(3, 5), num_steps=8)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_batches_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        sharding.check_batch_size(6, sharding.data_mesh())


@pytest.mark.parametrize(
    "changes",
    [{"keep": "newest"}, {"alpha": "large"}, {"validate_every": 0}, {"steps_per_call": 5}],
    ids=lambda c: next(iter(c)),
)
def test_unusable_settings_are_refused(changes):
    with pytest.raises(ValueError, match=str(next(iter(changes.values())))):
        dataclasses.replace(settings(), **changes)
