"""Checkpoints of a run: the state and the loader's position, saved together (the orbax wrapper)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from isl_jax.files import misfit
from isl_jax.training.step import TrainState

# The newest, and one before it should the disk fail.
_KEPT = 2
# What is known here of the position of a run (`training/loop.py`, `training/stopping.py`).
_POSITION = {
    "loader": (dict, int), "best?": {"loss": (float, None), "step": int, "misses": int},
}  # fmt: skip


def latest_step(workdir: Path) -> int | None:
    """Step of the newest complete checkpoint of a run; None without one."""
    steps = (f.name for f in workdir.glob("checkpoints/*") if f.name.isdigit())
    return max(map(int, steps), default=None)


def stored_variables(workdir: Path) -> tuple[int, dict[str, Any]]:
    """Step and network variables, host arrays, of the newest checkpoint of a run, finished or not.

    The devices need not be those of the training. Raises FileNotFoundError without a checkpoint,
    ValueError for a damaged one.
    """
    step = latest_step(workdir)
    if step is None:
        raise FileNotFoundError(f"{workdir / 'checkpoints'}: no checkpoint yet")
    path = (workdir / "checkpoints" / str(step) / "state").absolute()
    try:
        with ocp.PyTreeCheckpointer() as reader:
            tree = reader.metadata(path).item_metadata.tree
            wanted = {name: tree[name] for name in ("params", "batch_stats")}
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
            found = reader.restore(path, item=wanted, restore_args=as_numpy, partial_restore=True)
    except Exception as error:  # whatever orbax and tensorstore make of damaged files
        raise ValueError(f"{path}: damaged ({_reason(error)})") from error
    return step, found


class Checkpoints:
    """The `checkpoints/<step>/` folders of the run in `workdir`; use as a context manager.

    Saving is asynchronous and atomic: a folder gets its final name only when it is complete, so
    that a half-written checkpoint is never taken for one. The last two are kept. A save that
    fails raises OSError, at the latest with the next save or at the end.
    """

    def __init__(self, workdir: Path) -> None:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_KEPT, cleanup_tmp_directories=True, enable_async_checkpointing=True
        )
        self._directory = (workdir / "checkpoints").absolute()
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=options,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "loader": ocp.JsonCheckpointHandler(),
            },
        )
        self._saved = self._manager.latest_step()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Waits for the save in flight: leaving early would throw it away.
        try:
            self.wait()
            self._manager.close()
        except OSError:
            if error is None:  # else the run ends for a reason of its own, which must be told
                raise

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, position: dict[str, Any]) -> None:
        """Save the state and the JSON-like position of the run, in the background.

        By the names of its arrays, not as the vectors that a step works on.
        """
        step = int(state.step)
        if step == self._saved:
            return
        self.wait()  # the save before must be whole: a disk that is full is noticed here
        self._saved = step
        with self._explained():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(jax.device_get(state).named()),  # pyright: ignore[reportCallIssue]
                    loader=ocp.args.JsonSave(position),  # pyright: ignore[reportCallIssue]
                ),
            )

    def wait(self) -> None:
        """Wait for the save in flight."""
        with self._explained():
            self._manager.wait_until_finished()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        # Orbax and tensorstore raise what they like, over several lines, about files of their own.
        try:
            yield
        except Exception as error:
            reason = _reason(error)
            complete = [step for step in self._manager.all_steps(read=True) if step != self._saved]
            last = f"the one of step {max(complete)} stays" if complete else "there is none before"
            raise OSError(
                f"{self._directory}: the checkpoint of step {self._saved} could not be written "
                f"({reason}); {last}: make room, then the same command goes on from there"
            ) from error

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Load the newest checkpoint into the structure and sharding of `like`.

        Raises ValueError naming the folder when its arrays do not fit the network of `like`.
        """
        step = self.latest_step
        if step is None:
            raise FileNotFoundError(f"{self._directory}: no complete checkpoint to resume from")
        abstract = jax.device_get(like).named()
        self._check_fit(step, abstract)
        with self._read(step):
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(abstract),  # pyright: ignore[reportCallIssue]
                    loader=ocp.args.JsonRestore(),  # pyright: ignore[reportCallIssue]
                ),
            )
            if told := misfit(restored["loader"], _POSITION):
                raise ValueError(f"the position of the run: {told}")
        shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
        return jax.device_put(restored["state"].joined(), shardings), restored["loader"]

    @contextmanager
    def _read(self, step: int) -> Iterator[None]:
        # Whatever orbax and tensorstore make of damaged files of theirs.
        try:
            yield
        except Exception as error:
            raise ValueError(
                f"{self._directory / str(step)}: damaged ({_reason(error)}); remove this folder, "
                "then the same command goes on from the checkpoint before, or from the beginning"
            ) from error

    def _check_fit(self, step: int, abstract: TrainState) -> None:
        # Orbax would only notice half-way through reading, in words about its own files.
        path = self._directory / str(step) / "state"
        with self._read(step):
            stored = _shapes(self._manager.item_metadata(step)["state"])
        wanted = _shapes(abstract)
        differ = sorted(
            name for name in stored.keys() | wanted.keys() if stored.get(name) != wanted.get(name)
        )
        if differ:
            name = differ[0]
            raise ValueError(
                f"{path}: does not fit the configured network: {len(differ)} arrays "
                f"differ, {name} has shape {stored.get(name)}, expected {wanted.get(name)}; use "
                "another --workdir or the configuration that the checkpoint was trained with"
            )


def _reason(error: BaseException) -> str:
    """The operating system's words for a failure, wherever in the chain of errors they stand."""
    told: BaseException | None = error
    while told is not None:
        if isinstance(told, OSError) and told.strerror:
            return told.strerror
        told = told.__cause__ or told.__context__
    text = str(error)
    for words in ("No space left on device", "Disk quota exceeded", "File too large"):
        if words in text:
            return words
    return f"{type(error).__name__}: {' '.join(text.split())[:200]}"


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {
        "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path): (
            tuple(leaf.shape)
        )
        for path, leaf in leaves
    }
