"""Kill -9 at random moments, then the same command: the same result, and nothing left over.

    python -m tests.reliability.kill [TIMES] [COMMAND …]

Each command is started in a folder of its own, killed with everything it started, and run again;
what it then has made is held against what it makes when nobody interferes.
"""

import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import tifffile
from safetensors.numpy import load_file

HERE = Path(__file__).parents[2]
# Names and values that differ between two runs of one command.
_FREE = ("timing.json", "environment.json")
_TIMES = re.compile(
    rb'"(created|\w*seconds|images_per_second|\w*time|data_wait|inputs|git_revision|peak_\w+)"'
    rb"|Made .* by isl_jax|config_hash|memory_mib"
)
_TINY = [
    f"--config.{stage}.{setting}"
    for stage in ("pretrain", "train")
    for setting in ("num_steps=6", "batch_size=2", "checkpoint_every=2")
]
_TINY += ["--config.model.encoder=tiny", "--config.data.crop_size=64", "--config.writers="]
_TINY += ["--config.data.crops_per_image=2", "--config.data.fresh_crops=False"]


def commands() -> dict[str, list[str]]:
    """What is killed: paths are in the folder of the trial, inputs in `given/` beside it."""
    return {
        "simulate": ["simulate", "--out=out", "--study=nucleus", "--fields=3", "--size=160"],
        "prepare": [
            "prepare", "--source=given/raw", "--layout=dataset1", "--test=0.5", "--val=0",
            "--out=out",
        ],
        "sweep": [
            "sweep", f"--config={HERE}/configs/demo.py:study=nucleus,init=random",
            "--config.data.root=given/data", *_TINY, "--n=1", "--inits=random,isl", "--seeds=0",
            "--workdir=out",
        ],
        "predict": [
            "predict", "--model=given/sweep/runs/random_n1_seed0", "--input=given/raw",
            "--layout=dataset1", "--outputs=labels,table,overlay,zarr", "--out=out",
        ],
        "evaluate": ["evaluate", "--workdir=out/runs/random_n1_seed0", "--overwrite"],
        "report": ["report", "--workdir=out"],
        "export": ["export", "--model=given/sweep/runs/random_n1_seed0", "--format=smp",
                   "--out=out.safetensors"],
    }  # fmt: skip


def start(arguments: Sequence[str], folder: Path) -> subprocess.Popen:
    """A command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, str(HERE / "launch" / f"{arguments[0]}.py"), *arguments[1:]],
        cwd=folder,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def finished(arguments: Sequence[str], folder: Path) -> float:
    """Run a command to its end; seconds. AssertionError with its words if it fails."""
    began = time.monotonic()
    process = start(arguments, folder)
    words, _ = process.communicate(timeout=600)
    assert process.returncode == 0, words.decode(errors="replace")[-3000:]
    return time.monotonic() - began


def killed(arguments: Sequence[str], folder: Path, after: float) -> bool:
    """Start a command and kill it; whether it was still there."""
    process = start(arguments, folder)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=after)
    was_there = process.poll() is None
    if was_there:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return was_there


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file that a command made, without what must differ between two runs."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.startswith("given") or not path.is_file() or path.name in _FREE:
            continue
        if "/checkpoints/" in name:  # orbax names and numbers its files anew
            found[name.split("/checkpoints/")[0] + "/checkpoints"] = ""
            continue
        data = _content(path)
        if path.suffix in (".json", ".jsonl", ".html"):
            data = b"\n".join(line for line in data.splitlines() if not _TIMES.search(line))
            data = re.sub(rb"[\d:.]+(e-\d+)? ?s\b", b"", data)
        if path.suffix == ".html" or path.parent.name == "records":
            data = b""
        found[name] = hashlib.sha256(data).hexdigest()[:12]
    return found


def _content(path: Path) -> bytes:
    """What a file holds; of formats that note a date or a number of their own, the arrays."""
    if path.suffix == ".tif":
        return tifffile.imread(path).tobytes()
    if path.suffix == ".safetensors":
        return repr([(k, v.tobytes()) for k, v in sorted(load_file(path).items())]).encode()
    return path.read_bytes()


def given(root: Path) -> None:
    """Raw images, a prepared data set and a sweep, for all trials."""
    folder = root / "given"
    if (folder / "sweep/report").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    every = commands()
    finished([*every["simulate"][:1], "--out=given/raw", *every["simulate"][2:]], root)
    finished([*every["prepare"][:-1], "--out=given/data"], root)
    finished([*every["sweep"][:-1], "--workdir=given/sweep"], root)
    finished(["report", "--workdir=given/sweep"], root)


def fresh(root: Path, name: str, made: Path | None = None) -> Path:
    """A folder for a trial; `made` holds what `given` made, elsewhere than in `root`."""
    made = made or root / "given"
    folder = root / "trial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "given").symlink_to(made)
    if name in ("evaluate", "report"):
        shutil.copytree(made / "sweep", folder / "out")
    return folder


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Names of files that are missing, left over or other."""
    return [
        *(f"{name}: missing" for name in sorted(expected.keys() - found.keys())),
        *(f"{name}: left over" for name in sorted(found.keys() - expected.keys())),
        *(f"{n}: other" for n in sorted(expected.keys() & found.keys()) if expected[n] != found[n]),
    ]


def trial(root: Path, name: str, times: int, rng: random.Random) -> list[str]:
    """Kill a command `times` times, each time followed by a whole run; what was not as it is."""
    arguments = commands()[name]
    folder = fresh(root, name)
    seconds = finished(arguments, folder)
    expected, wrong = contents(folder), []
    for k in range(times):
        folder = fresh(root, name)
        # Most of the time goes to imports: the moments that matter come after them.
        after = seconds * rng.uniform(0.4, 1.0)
        killed(arguments, folder, after)
        try:
            if name == "prepare" and (folder / "out").exists():  # its last breath: it is whole
                (folder / ".out.lock").unlink(missing_ok=True)
            else:
                finished(arguments, folder)
            found = differences(expected, contents(folder))
        except AssertionError as error:
            found = [str(error)]
        print(
            f"{name} {k}: killed after {after:.1f} of {seconds:.1f} s: {found or 'same'}",
            flush=True,
        )
        wrong += [f"{name} {k} ({after:.2f} s): {text}" for text in found]
    return wrong


def main(arguments: list[str]) -> int:
    """All commands, 20 times each."""
    times = int(arguments[0]) if arguments else 20
    root = Path(os.environ.get("KILL_FOLDER", "runs/kill")).absolute()
    root.mkdir(parents=True, exist_ok=True)
    given(root)
    wrong = []
    for name in arguments[1:] or commands():
        wrong += trial(root, name, times, random.Random(name))
    print("\n".join(["wrong:", *wrong] if wrong else ["all as it should be"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
