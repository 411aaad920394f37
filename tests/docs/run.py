"""Run the commands of the README and the notebook, on simulated cells. `make check-docs`.

Commands run as they are written, trainings made small by options that are added at the end. What
needs a network connection (`isl-fetch`) and what is installed (`make`, `pip`) is left out and said.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import imagecodecs
import nbformat
import numpy as np
import tifffile
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
SMALL = "--config.model.encoder=tiny --config.data.crop_size=64 --config.data.crops_per_image=2"
STEPS = "--config.train.num_steps=2 --config.train.batch_size=2"
ADDED = {
    "isl-train": f"{SMALL} {STEPS}",
    "isl-sweep": f"{SMALL} {STEPS} --config.pretrain.num_steps=2 --config.pretrain.batch_size=2 "
    "--imagenet_stand_in=random --n=1 --seeds=0",
}


def fenced(text: str, language: str) -> list[str]:
    """Blocks of a page between fences, of one language."""
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


def commands(page: str) -> list[str]:
    """Command lines in the blocks of a page, continued lines joined, without comments."""
    lines = "\n".join(fenced(page, "")).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def reduced(command: str) -> list[str]:
    """A command, made small by options at its end; a pretext run starts from random weights."""
    words = [*shlex.split(command), *ADDED.get(command.split()[0], "").split()]
    if any(word.endswith(":pretrain") for word in words):
        words.append("--config.init.kind=random")
    return words


def raw_images(folder: Path) -> None:
    """Pairs as the README asks for, `<field>_{phase,dapi,masks}.tif`, and images to predict."""
    made = folder / "simulated"
    run(["isl-simulate", f"--out={made}", "--study=cell", "--fields=16", "--size=160"], folder)
    (folder / "RAW").mkdir()
    (folder / "images").mkdir()
    for path in sorted(made.glob("*_cell_instance_*.png")):
        field = path.stem.rpartition("_")[2]
        phase = tifffile.imread(next(made.glob(f"*_w5*_{field}.TIF")))[0]
        stain = tifffile.imread(next(made.glob(f"*_w4*_{field}.TIF")))
        stain = stain.max(0) if stain.ndim == 3 else stain
        masks = np.asarray(imagecodecs.imread(path))
        for channel, image in (("phase", phase), ("dapi", stain), ("masks", masks)):
            tifffile.imwrite(folder / "RAW" / f"{field}_{channel}.tif", image)
        tifffile.imwrite(folder / "images" / f"{field}.tif", phase)


def run(words: list[str], folder: Path) -> None:
    """One command, said before; its output is shown if it fails."""
    print("$", shlex.join(words), flush=True)
    words = [str(Path(sys.executable).parent / words[0]), *words[1:]]
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}\nexit status {done.returncode}")


def notebook(folder: Path) -> None:
    """The notebook from top to bottom, at a size that shows nothing."""
    print("docs/notebooks/hela.ipynb", flush=True)
    os.environ |= {"ISL_NOTEBOOK_SIZE": "tiny", "ISL_NOTEBOOK_WORK": str(folder / "notebook")}
    cells = nbformat.read(ROOT / "docs" / "notebooks" / "hela.ipynb", 4)
    NotebookClient(cells, timeout=None, resources={"metadata": {"path": folder}}).execute()
    *_, last = (cell.outputs for cell in cells.cells if cell.cell_type == "code")
    if "mAP" not in last[0].text or "image/png" not in last[-1].data:
        raise SystemExit("the last cell shows no score, or no picture")


def main() -> None:
    page = (ROOT / "README.md").read_text()
    left = []
    with tempfile.TemporaryDirectory(prefix="isl-docs-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "configs", folder / "configs")
        raw_images(folder)
        for command in commands(page):
            if command.startswith("isl-"):
                run(reduced(command), folder)
            else:
                left.append(command)
        image = "import numpy as np\nimage = np.zeros((1, 64, 96), np.uint16)\n"
        for block in fenced(page, "python"):
            run(["python", "-c", image + block], folder)
        notebook(folder)
    print("not run:", *sorted(set(left)), sep="\n  ")


if __name__ == "__main__":
    main()
