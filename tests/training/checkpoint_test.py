"""A disk that fills up costs the newest checkpoint, never the one before."""

import resource
from contextlib import contextmanager

import jax
import numpy as np
import pytest

from isl_jax.task import Kind, Task
from isl_jax.training.checkpoint import Checkpoints, latest_step
from isl_jax.training.devices import data_mesh
from isl_jax.training.losses import loss_parameters
from isl_jax.training.settings import TrainSettings
from isl_jax.training.step import create_state


@contextmanager
def files_end_at(num_bytes):
    """Let the system refuse to write further into any file, as it does on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def state_at(step):
    rng = np.random.default_rng(step)
    variables = {
        "params": {"kernel": rng.normal(size=(400, 400)).astype(np.float32)},
        "batch_stats": {"mean": np.zeros(3, np.float32)},
    }
    settings = TrainSettings(4, num_steps=1, learning_rate=1e-3)
    parameters = loss_parameters(Task(Kind.STAIN))
    state = create_state(variables, settings, data_mesh(), parameters)
    return state.replace(step=state.step + step)


# Orbax writes in threads of its own, which die of the same error or call back when all is over.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("noticed", ["at the end", "at the next save"])
def test_a_full_disk_is_one_clear_error_and_the_last_good_checkpoint_stays(tmp_path, noticed):
    with (
        files_end_at(resource.RLIM_INFINITY),
        pytest.raises(OSError, match=r"checkpoint of step 8 could not.*step 4 stays") as raised,
        Checkpoints(tmp_path) as checkpoints,
    ):
        checkpoints.save(state_at(4), {"loader": 4})
        checkpoints.wait()
        with files_end_at(100_000):
            checkpoints.save(state_at(8), {"loader": 8})
            if noticed == "at the next save":
                checkpoints.save(state_at(12), {"loader": 12})
            else:
                checkpoints.wait()
    assert "\n" not in str(raised.value)
    assert "File too large" in str(raised.value)
    # With room again, the run goes on from what is there.
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 4
        restored, position = checkpoints.restore(state_at(0))
        assert position == {"loader": 4}
        np.testing.assert_array_equal(restored.params, state_at(4).params)
        checkpoints.save(state_at(8), {"loader": 8})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 8


def test_a_half_written_checkpoint_is_never_taken(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state_at(4), {"loader": 4})
    half = tmp_path / "checkpoints" / "8.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    (half / "state" / "manifest.ocdbt").write_bytes(b"half")
    assert latest_step(tmp_path) == 4
    assert latest_step(tmp_path / "elsewhere") is None
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 4
        assert jax.device_get(checkpoints.restore(state_at(0))[0].step) == 4
        checkpoints.save(state_at(8), {"loader": 8})
    assert not half.exists()


def test_arrays_of_a_checkpoint_keep_their_names():
    leaves = jax.tree.leaves_with_path(state_at(0).named())
    names = {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves}
    # Those of the first release: its checkpoints go on.
    moments = {f"opt_state/0/0/{moment}/kernel" for moment in ("mu", "nu")}
    assert names == moments | {
        "step",
        "params/kernel",
        "batch_stats/mean",
        "opt_state/0/0/count",
        "opt_state/0/1/count",
        "loss_parameters/alpha",
        "loss_parameters/slope",
        "loss_parameters/centre",
        "seed",
        "finite",
    }


# The read that fails leaves callbacks behind.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("what", ["state/manifest.ocdbt", "state/_METADATA", "loader/metadata"])
def test_a_damaged_checkpoint_is_named_with_the_way_on(tmp_path, what):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state_at(4), {"loader": 4})
    path = tmp_path / "checkpoints" / "4" / what
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with (
        pytest.raises(ValueError, match=r"checkpoints/4: damaged .*remove this folder") as raised,
        Checkpoints(tmp_path) as checkpoints,
    ):
        checkpoints.restore(state_at(0))
    assert "\n" not in str(raised.value)
