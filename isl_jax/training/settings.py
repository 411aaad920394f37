"""Settings of a training: `train.*` of the configuration, and what else the loop is told."""

import dataclasses
import functools
import math
import re

from isl_jax.training.augmentation import NO_AUGMENTATION, Augmentation
from isl_jax.training.losses import LossSettings
from isl_jax.training.writers import TRACKERS

Rates = tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """`train.*` of `configs/base.py`, which says what each is for; by default nothing special.

    Hashable. Steps count optimiser updates; `batch_size` is global. `num_steps` outranks
    `num_epochs`, and that `num_samples`: what is outranked becomes 0, and samples become steps.
    With `num_epochs`, `num_steps` is 0 until `with_length`. ValueError for what no run could work
    with.
    """

    batch_size: int
    learning_rate: float
    num_samples: int = 0
    num_epochs: float = 0.0
    num_steps: int = 0
    patience: int = 0
    patience_from: int = 0
    schedule: str = "constant"
    warmup_steps: int = 0
    b1: float = 0.9
    b2: float = 0.999
    clip_norm: float = 0.0
    head_rate: float = 1.0
    rates: str = ""
    checkpoint_every: int = 1000
    checkpoint_minutes: float = 0.0
    validate_every: int = 500
    log_every: int = 10
    keep: str = "best"

    def __post_init__(self) -> None:
        choices = {"keep": ("best", "last"), "schedule": ("constant", "cosine")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"unknown train.{name}={getattr(self, name)!r}: choose {' or '.join(allowed)}"
                )
        # A length of 0, or of None, is not set.
        lengths = [name for name in ("num_steps", "num_samples") if getattr(self, name)]
        for name in ("batch_size", "checkpoint_every", "validate_every", "log_every", *lengths):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name}={getattr(self, name)}: choose 1 or more")
        if not 0 <= self.num_epochs < math.inf:
            raise ValueError(f"train.num_epochs={self.num_epochs}: choose more than 0")
        self._keep_one_length()
        _ = self.rate_pairs

    def _keep_one_length(self) -> None:
        steps, epochs = self.num_steps or 0, self.num_epochs
        if steps:
            epochs = 0.0
        elif not epochs:
            if not self.num_samples:
                raise ValueError(
                    "the length is not set: give train.num_samples, num_epochs or num_steps"
                )
            steps = math.ceil(self.num_samples / self.batch_size)
        for name, value in {"num_steps": steps, "num_epochs": epochs, "num_samples": 0}.items():
            object.__setattr__(self, name, value)

    def with_length(self, num_crops: int) -> "TrainSettings":
        """The same with `num_steps`, where the length is a number of passes over the crops."""
        if not self.num_epochs:
            return self
        num_steps = math.ceil(self.num_epochs * num_crops / self.batch_size)
        return dataclasses.replace(self, num_steps=num_steps)

    @functools.cached_property
    def rate_pairs(self) -> Rates:
        """`rates`, `encoder/=0.1; decoder/=0.5`, as pairs of pattern and rate, in order."""
        pairs = []
        for part in filter(None, (part.strip() for part in self.rates.split(";"))):
            pattern, _, value = part.rpartition("=")
            try:
                pairs.append((re.compile(pattern).pattern, float(value)))
            except (re.error, ValueError) as error:
                raise ValueError(
                    f"train.rates: {part!r} is not PATTERN=RATE, as encoder/=0.1 ({error})"
                ) from None
            if not pattern or not pairs[-1][1] >= 0:
                raise ValueError(
                    f"train.rates: {part!r} is not PATTERN=RATE with a rate of 0 or more"
                )
        return tuple(pairs)


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """What the loop is told beside `train.*`; ValueError for what is none.

    `seed` is that of the augmentation. `profile`, `FIRST:LAST`, traces these steps for XProf.
    `writers` are those beside the terminal and metrics.jsonl, with commas between.
    """

    seed: int = 0
    augmentation: Augmentation = NO_AUGMENTATION
    loss: LossSettings = dataclasses.field(default_factory=LossSettings)
    profile: str = ""
    writers: str = ""

    def __post_init__(self) -> None:
        _ = self.profiled_steps
        for name in self.writer_names:
            if name not in TRACKERS:
                raise ValueError(f"writers: {name!r} is none of {', '.join(TRACKERS)}")

    @functools.cached_property
    def profiled_steps(self) -> tuple[int, int] | None:
        """First and last step of the trace; None for no trace."""
        if not self.profile:
            return None
        first, _, last = self.profile.partition(":")
        if not (first.isdigit() and last.isdigit() and 0 < int(first) <= int(last)):
            raise ValueError(f"profile={self.profile!r}: want FIRST:LAST, two steps, as 100:110")
        return int(first), int(last)

    @property
    def writer_names(self) -> tuple[str, ...]:
        """Names of the trackers."""
        return tuple(name.strip() for name in self.writers.split(",") if name.strip())
