"""Train other programs on the same annotated fields, and score them as our runs are scored.

    python3 -m venv PEERS && PEERS/bin/pip install --group PYPROJECT:peers
    python -m isl_jax.launch.benchmarks.peers --sweep=S --python=PEERS/bin/python --num_crops=800

For each program, N and seed: the very fields that the runs of the sweep S were trained on, binned
as they were, go to the program as plain files, each plane once; it trains with its own
augmentation, loss and schedule and segments the test fields with its own post-processing; its label
images are scored as `isl-evaluate --predictions --sweep` does. The report of S then shows them.
Programs:

stardist   StarDist 2D, random first weights
cellpose   the network of Cellpose 3, random first weights
cyto3      the same from the pretrained weights that Cellpose downloads; --n=0: not trained further
cpsam      Cellpose-SAM likewise (cellpose 4, in an environment of its own)

They need packages that exclude ours, hence an environment of their own: PYPROJECT is the path of
pyproject.toml. --num_crops is the number of crops that each trains on, to be set to what our runs
saw (steps x batch); without it each trains for as long as it does by itself. What is done is
skipped.
"""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from isl_jax.data.coverage import annotated_subset
from isl_jax.data.crops import CropPlan
from isl_jax.data.store import Dataset, open_dataset
from isl_jax.files import read_json, write_json, written_whole
from isl_jax.ingest.labels import read_label_image
from isl_jax.ingest.listing import stem_of_image
from isl_jax.launch.command import command
from isl_jax.locks import locked
from isl_jax.study.evaluate import evaluate_labels
from isl_jax.study.records import OTHERS, read_summary, read_sweep, recorded_crops, run_name
from isl_jax.study.scoring import Summary

PROGRAMS = ("stardist", "cellpose", "cyto3", "cpsam")
# Those whose weights know something before they are trained.
_PRETRAINED = ("cyto3", "cpsam")
_FIGURES = {"train_seconds": float, "seconds_a_field": float, "peak_memory_mib": float}
_SCRIPT = Path(__file__).with_name("_peer_programs.py")

_SWEEP = flags.DEFINE_string("sweep", None, "Sweep to compare with: its data, N, seeds and crops.")
_PROGRAMS = flags.DEFINE_list("programs", ["stardist", "cellpose"], f"Among {', '.join(PROGRAMS)}.")
_PYTHON = flags.DEFINE_string("python", sys.executable, "Interpreter that has the programs.")
_N = flags.DEFINE_list("n", None, "Numbers of annotated images; default: the sweep's.")
_SEEDS = flags.DEFINE_list("seeds", None, "Seeds; default: the sweep's.")
_NUM_CROPS = flags.DEFINE_integer(
    "num_crops", None, "Crops to train on; default: each program's own number.", lower_bound=1
)
_CROP_SIZE = flags.DEFINE_integer(
    "crop_size", None, "Side of a training crop; default: each program's own.", lower_bound=32
)
_PLANES = flags.DEFINE_list("planes", None, "Channels to give; default: each of the data set once.")


@dataclasses.dataclass(frozen=True)
class Task:
    """One program on one choice of annotated fields: what stands in task.json."""

    program: str
    seed: int
    num_crops: int | None
    crop_size: int | None
    train: tuple[str, ...]
    test: tuple[str, ...]
    planes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, tuples as lists."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }


def main() -> int:
    """Train, segment and score what the flags name."""
    if not _SWEEP.value:
        raise ValueError("--sweep=FOLDER is needed: the workdir of isl-sweep to compare with")
    unknown = set(_PROGRAMS.value) - set(PROGRAMS)
    if unknown:
        raise ValueError(f"--programs: {min(unknown)!r} is none of {', '.join(PROGRAMS)}")
    sweep = Path(_SWEEP.value)
    stored = read_sweep(sweep)
    plan = recorded_crops(stored)
    if plan is None:
        raise ValueError(f"{sweep}: names no test crops; run the sweep again to write them")
    dataset = open_dataset(stored["data_root"])
    _check_python(_PYTHON.value)
    tasks = {
        run_name(_told_length(program), n, seed): _task(dataset, program, n, seed)
        for program in _PROGRAMS.value
        for n in _numbers("n", _N.value, stored["n"])
        for seed in _numbers("seeds", _SEEDS.value, stored["seeds"])
    }
    rows = []
    for name, task in tasks.items():
        folder = sweep / OTHERS / name
        with locked(folder, "wait, or compare with another --sweep"):
            _train(folder, task, dataset)
            rows.append((name, folder, _scored(folder, dataset, plan)))
    print(_table(rows))
    return 0


def _told_length(program: str) -> str:
    return f"{program}-{_NUM_CROPS.value}crops" if _NUM_CROPS.value else program


def _numbers(name: str, given: list[str] | None, stored: list[int]) -> list[int]:
    if given is not None and not (given and all(text.isdigit() for text in given)):
        raise ValueError(f"--{name}={','.join(given)}: want whole numbers, as --{name}=1,3")
    return stored if given is None else [int(text) for text in given]


def _check_python(python: str) -> None:
    if shutil.which(python) is None:
        raise FileNotFoundError(f"{python}: no such program; name an interpreter with --python")


def _task(dataset: Dataset, program: str, n: int, seed: int) -> Task:
    if n == 0 and program not in _PRETRAINED:
        raise ValueError(f"--n=0: {program} has random first weights, it needs an annotated field")
    chosen = annotated_subset(dataset, n, seed) if n else ()
    test = dataset.select("test", labels=True)
    if not test:
        raise ValueError(f"{dataset.root}: no test field has labels to score against")
    planes = tuple(_PLANES.value or dict.fromkeys(dataset.channels))
    if missing := set(planes) - set(dataset.channels):
        known = ", ".join(dict.fromkeys(dataset.channels))
        raise ValueError(f"--planes: {min(missing)!r} is none of the channels {known}")
    train, test = (tuple(field.name for field in found) for found in (chosen, test))
    return Task(program, seed, _NUM_CROPS.value, _CROP_SIZE.value, train, test, planes)


def _train(folder: Path, task: Task, dataset: Dataset) -> None:
    """Let the program do its task in `folder`, unless it has done that very one."""
    path, wanted = folder / "task.json", task.to_json()
    if path.exists() and (before := read_json(path, remedy="remove the folder")) != wanted:
        keys = ", ".join(key for key in wanted if before.get(key) != wanted[key])
        raise ValueError(f"{path}: made with other settings ({keys}); repeat them, or remove it")
    if (folder / "figures.json").exists():
        print(f"{folder.name}: done before")
        return
    write_json(path, wanted)
    index = [dataset.channels.index(name) for name in task.planes]
    with written_whole(folder / "data") as data:
        data.mkdir()
        for name in task.train + task.test:
            image = np.moveaxis(dataset.inputs(name)[..., index], -1, 0).astype(np.float32)
            path = data / f"{name}.npz"
            if name in task.train:
                np.savez(path, image=image, labels=dataset.labels(name))
            else:
                np.savez(path, image=image)
    with (folder / "log.txt").open("w") as log:
        ended = subprocess.run([_PYTHON.value, _SCRIPT, folder], stdout=log, stderr=log)
    shutil.rmtree(folder / "data")
    if ended.returncode:
        last = (folder / "log.txt").read_text(errors="replace").strip().splitlines()[-1:]
        raise ValueError(f"{folder}: {task.program} failed: {''.join(last)} (see log.txt there)")


def _scored(folder: Path, dataset: Dataset, plan: CropPlan) -> Summary:
    summary = evaluate_labels(
        folder / "masks", folder, dataset, plan, read=read_label_image, stem_of=stem_of_image
    )
    assert read_summary(folder) is not None
    return summary


def _table(rows: list[tuple[str, Path, Summary]]) -> str:
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'program':{width}}  {'crops':>14}  {'fields':>14}  train s  s a field  peak MiB"]
    for name, folder, summary in rows:
        figures = read_json(folder / "figures.json", remedy="remove the folder", keys=_FIGURES)
        train, field, memory = (figures[key] for key in _FIGURES)
        told = f"{summary.crops!s:>14}  {summary.fields!s:>14}"
        lines.append(f"{name:{width}}  {told}  {train:7.0f}  {field:9.1f}  {memory:8.0f}")
    lines.append(f"{rows[0][2].metric}, mean ± standard deviation over the test images")
    return "\n".join(lines)


run = command(main)

if __name__ == "__main__":
    run()
