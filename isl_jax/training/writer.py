"""What a run tells while it trains: a progress line and `metrics.jsonl`."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm


class MetricsWriter:
    """Appends one JSON object a line to `metrics.jsonl` and keeps a terminal line up to date.

    On resume from `start_step`, lines of later steps are dropped: the steps are about to be run
    again.
    """

    def __init__(
        self, workdir: Path, *, start_step: int, num_steps: int, description: str = "training"
    ) -> None:
        self._path = workdir / "metrics.jsonl"
        self._throughput: Mapping[str, float] = {}
        self._drop_after(start_step)
        self._file = self._path.open("a", buffering=1)
        self._bar = tqdm(
            total=num_steps,
            initial=start_step,
            desc=description,
            unit="step",
            file=sys.stderr,
            # A log file gets a line now and then, a terminal a smooth bar.
            mininterval=0.5 if sys.stderr.isatty() else 15.0,
        )

    def _drop_after(self, step: int) -> None:
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except json.JSONDecodeError:
                continue  # the last line of a killed run may be cut
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(kept))
        temporary.replace(self._path)

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Record named values of a step."""
        if "images_per_second" in metrics:
            self._throughput = metrics
        self._file.write(json.dumps({"step": step, "split": split, **metrics}) + "\n")

    def progress(self, step: int, loss: float) -> None:
        """Move the progress line to `step`."""
        text = f"loss {loss:.4f}"
        if self._throughput:
            text += (
                f", {self._throughput['images_per_second']:.1f} images/s"
                f", data wait {self._throughput['data_wait']:.0%}"
            )
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(step - self._bar.n)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._file.close()
