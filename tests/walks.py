"""How many files of isl_jax one crop and one image enter, and how often a TIFF is opened.

    python tests/walks.py [--study=nucleus]

A crop: `isl-prepare`, `isl-train` and `isl-evaluate` of a tiny network on two simulated fields. An
image: `isl-predict` of the raw TIFFs with the network of that run. A file counts when one of its
functions is called while the command works; what only importing does is left out, and so are the
commands themselves (launch/, configs/).
"""

import argparse
import importlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

_LAYOUTS = {"nucleus": "dataset1", "cell": "dataset2"}
_SMALL = ("model.encoder=tiny", "data.crop_size=64", "data.crops_per_image=2", "writers=")
_SHORT = ("num_steps=2", "batch_size=2", "validate_every=2", "checkpoint_every=2")


class Trace:
    """Files of the package whose functions were called, and how often each TIFF was opened."""

    def __init__(self, package: Path) -> None:
        self.files: set[str] = set()
        self.opened: Counter[str] = Counter()
        self._root = str(package) + os.sep
        self._seen: set[Any] = set()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """One event of `sys.setprofile`."""
        code = frame.f_code
        if event != "call" or code in self._seen:
            return
        if not code.co_filename.startswith(self._root):
            self._seen.add(code)
        elif not self._is_importing(frame):
            self._seen.add(code)
            self.files.add(code.co_filename.removeprefix(self._root))

    def _is_importing(self, frame: FrameType | None) -> bool:
        # Bodies of modules and classes are the code without fast local variables.
        while frame is not None:
            code = frame.f_code
            if code.co_filename.startswith(self._root) and not code.co_flags & inspect.CO_OPTIMIZED:
                return True
            frame = frame.f_back
        return False


def traced(command: str, arguments: Sequence[str], out: Path) -> None:
    """Run a command of launch/ in this process and write what it entered to `out`."""
    import tifffile

    import isl_jax

    trace = Trace(Path(isl_jax.__file__).parent)
    opening = tifffile.TiffFile.__init__

    def counted(self: Any, file: Any, *args: Any, **options: Any) -> None:
        trace.opened[str(file)] += 1
        opening(self, file, *args, **options)

    tifffile.TiffFile.__init__ = counted
    module = importlib.import_module(f"isl_jax.launch.{command}")
    sys.argv = [f"isl-{command}", *arguments]
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        module.run()
    except SystemExit as ended:
        assert not ended.code, f"isl-{command} ended with {ended.code}"
    finally:
        sys.setprofile(None)
    entered = sorted(name for name in trace.files if not name.startswith(("launch", "configs")))
    out.write_text(json.dumps({"files": entered, "opened": dict(trace.opened)}))


def walk(folder: Path, study: str = "nucleus") -> dict[str, Any]:
    """Both walks in `folder`: the files of each, and the openings of the predicted TIFF."""
    raw = folder / "raw"
    environment = dict(os.environ, JAX_PLATFORMS="cpu", XLA_FLAGS="")

    def run(command: str, *arguments: str) -> dict[str, Any]:
        out = folder / f"{command}.json"
        line = [sys.executable, __file__, f"--out={out}", f"--command={command}", "--", *arguments]
        ended = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return json.loads(out.read_text())

    config = f"--config={_config()}:study={study},stage=segment,init=random,n=1"
    settings = [f"--config.{s}" for s in (*_SMALL, *(f"train.{s}" for s in _SHORT))]
    run("simulate", f"--out={raw}", f"--study={study}", "--fields=2", "--size=144")
    crop = [
        run("prepare", f"--source={raw}", f"--layout={_LAYOUTS[study]}", "--test=0.5", "--val=0",
            "--out=data"),
        run("train", config, "--config.data.root=data", *settings, "--workdir=run"),
        run("evaluate", "--workdir=run"),
    ]  # fmt: skip
    images = f"--input={raw}", f"--layout={_LAYOUTS[study]}"
    predicted = run("predict", "--model=run", *images, "--out=predicted")
    return {
        "crop": sorted(set().union(*(part["files"] for part in crop))),
        "image": predicted["files"],
        "opened": predicted["opened"],
    }


def _config() -> Path:
    import isl_jax.configs.demo as demo

    return Path(demo.__file__)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder holds folders named as rooms
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", default="nucleus", choices=sorted(_LAYOUTS))
    parser.add_argument("--command", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.command:
        traced(options.command, options.rest, options.out)
        sys.exit()
    with tempfile.TemporaryDirectory() as temporary:
        found = walk(Path(temporary), options.study)
    for name in ("crop", "image"):
        print(f"one {name} enters {len(found[name])} files of isl_jax:")
        print("  " + "\n  ".join(found[name]))
    print("times that each TIFF was opened in prediction:")
    for path, times in found["opened"].items():
        print(f"  {Path(path).name}: {times}")
