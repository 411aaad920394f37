"""A disk that fills up costs the newest checkpoint, never the one before."""

import resource
from contextlib import contextmanager

import jax
import numpy as np
import pytest

from isl_jax.training.checkpoint import Checkpoints
from isl_jax.training.devices import data_mesh
from isl_jax.training.objectives import Objective
from isl_jax.training.optimizer import OptimizerSettings, make_optimizer
from isl_jax.training.state import create_state


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
    optimizer = make_optimizer(OptimizerSettings(num_steps=1, learning_rate=1e-3))
    parameters = Objective("stain").loss_parameters()
    state = create_state(variables, optimizer, data_mesh(), parameters)
    return state.replace(step=state.step + step)


# Orbax writes in threads of its own, which die of the same error or call back when all is over.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("noticed", ["at the end", "at the next save"])
def test_a_full_disk_is_one_clear_error_and_the_last_good_checkpoint_stays(tmp_path, noticed):
    folder = tmp_path / "checkpoints"
    with (
        files_end_at(resource.RLIM_INFINITY),
        pytest.raises(OSError, match=r"checkpoint of step 8 could not.*step 4 stays") as raised,
        Checkpoints(folder) as checkpoints,
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
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step == 4
        restored, position = checkpoints.restore(state_at(0))
        assert position == {"loader": 4}
        np.testing.assert_array_equal(restored.params["kernel"], state_at(4).params["kernel"])
        checkpoints.save(state_at(8), {"loader": 8})
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step == 8


def test_a_half_written_checkpoint_is_never_taken(tmp_path):
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state_at(4), {"loader": 4})
    half = folder / "8.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    (half / "state" / "manifest.ocdbt").write_bytes(b"half")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step == 4
        assert jax.device_get(checkpoints.restore(state_at(0))[0].step) == 4
        checkpoints.save(state_at(8), {"loader": 8})
    assert not half.exists()
