"""How long a training lasts, how often it looks up, and what it keeps."""

import dataclasses

from isl_jax.training.augmentation import NO_AUGMENTATION, Augmentation
from isl_jax.training.optimizer import OptimizerSettings


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How long and how often. Steps count optimiser updates.

    `batch_size` is global. `alpha` of eq. (2) is a number or `auto`: the ratio of MSE to BCE over
    the first `alpha_batches` batches of the untrained network. `keep`: `best` keeps the variables
    with the lowest validation loss (without a validation set, the last), `last` those of the last
    step. `patience` stops the run after that many validations without a lower loss (0: never);
    those before `patience_from` do not count, because the running statistics of BatchNorm lag
    behind at first. A checkpoint is saved every `checkpoint_every` steps and, if more than 0, every
    `checkpoint_minutes`; `keep_checkpoints` is the number that stay on disk. `steps_per_call`
    updates are made in one dispatch, for crops so small that dispatching costs. `profile` (first,
    last) traces these steps for XProf. `writers` are those beside the terminal and metrics.jsonl.
    """

    batch_size: int
    optimizer: OptimizerSettings
    augmentation: Augmentation = NO_AUGMENTATION
    seed: int = 0
    checkpoint_every: int = 1000
    checkpoint_minutes: float = 0.0
    validate_every: int = 500
    log_every: int = 10
    keep: str = "best"
    patience: int = 0
    patience_from: int = 0
    keep_checkpoints: int = 2
    steps_per_call: int = 1
    profile: tuple[int, int] | None = None
    writers: tuple[str, ...] = ()
    alpha: str | float = "auto"
    alpha_batches: int = 8

    def __post_init__(self) -> None:
        if self.keep not in ("best", "last"):
            raise ValueError(f"unknown train.keep={self.keep!r}: choose best or last")
        if self.alpha != "auto":
            try:
                float(self.alpha)
            except ValueError:
                raise ValueError(
                    f"loss alpha={self.alpha!r} is neither a number nor auto"
                ) from None
        at_least_one = {
            "num_steps": self.optimizer.num_steps,
            "checkpoint_every": self.checkpoint_every,
            "validate_every": self.validate_every,
            "log_every": self.log_every,
            "steps_per_call": self.steps_per_call,
        }
        for name, value in at_least_one.items():
            if value < 1:
                raise ValueError(f"train.{name}={value}: choose 1 or more")
        for name in ("num_steps", "checkpoint_every", "validate_every"):
            if at_least_one[name] % self.steps_per_call:
                raise ValueError(
                    f"train.{name}={at_least_one[name]} is not a multiple of "
                    f"train.steps_per_call={self.steps_per_call}"
                )
