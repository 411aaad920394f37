"""One mutant in a child of its own, with limits on time and memory, and what became of it."""

import contextlib
import dataclasses
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.mutations import mutated
from tests.fuzz.surfaces import SURFACES, Surface

OUTCOMES = ("accepted", "named", "unnamed", "traceback", "hang", "memory", "crash")
SECONDS, BYTES = 20, 3 << 30
# Of the mutants of a rare surface, so many are tried.
_SHARE_OF_RARE = 0.15


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of mutant `number` of a seed: one of OUTCOMES, and the words or the traceback."""

    surface: str
    file: str
    seed: int
    number: int
    outcome: str
    told: str


def trials(number: int, seed: int, folder: Path, only: str = "") -> Iterator[Result]:
    """`number` mutants, in turns over all surfaces; the same for the same seed."""
    chosen = [surface for surface in SURFACES if only in surface.name]
    sound = {s.name: folder / f"sound{k}" for k, s in enumerate(chosen)}
    for surface in chosen:
        sound[surface.name].mkdir(parents=True)
        surface.make(sound[surface.name])
        shutil.copytree(sound[surface.name], folder / "tried")  # using it may change it
        outcome, told = _outcome(surface, folder / "tried", set())
        shutil.rmtree(folder / "tried")
        if outcome != "accepted":
            raise AssertionError(f"{surface.name}: the sound seed is {outcome}\n{told}")
    for k in range(number):
        rng = random.Random(f"{seed} {k}")
        surface = chosen[k % len(chosen)]
        while surface.rare and rng.random() > _SHARE_OF_RARE and len(chosen) > 4:
            surface = rng.choice(chosen)
        yield _trial(surface, sound[surface.name], folder / f"mutant{k}", (seed, k), rng)


def _trial(
    surface: Surface, sound: Path, place: Path, number: tuple[int, int], rng: random.Random
) -> Result:
    shutil.copytree(sound, place)
    for path in place.rglob("*.json"):  # paths that the seed noted
        path.write_text(path.read_text().replace(str(sound), str(place)))
    path = rng.choice(sorted(path for path in place.rglob("*") if path.is_file()))
    suffix = path.suffix or path.name
    path.write_bytes(mutated(path.read_bytes(), suffix, rng))
    inside = path.relative_to(place)
    outcome, told = _outcome(surface, place, {str(place), *inside.parts, *surface.names})
    if outcome in ("accepted", "named"):
        shutil.rmtree(place)
    return Result(surface.name, str(inside), *number, outcome, told)


def _outcome(surface: Surface, place: Path, names: set[str]) -> tuple[str, str]:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            _limit()
            with open(os.devnull, "w") as nothing:  # noqa: PTH123
                os.dup2(nothing.fileno(), 1)
                os.dup2(nothing.fileno(), 2)
            answer = _answer(surface, place, names)
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name
        return ("hang" if number in (signal.SIGALRM, signal.SIGXCPU) else "crash"), name
    return pickle.loads(content) if content else ("crash", "no answer")


def _limit() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28,) * 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)


def _answer(surface: Surface, place: Path, names: set[str]) -> tuple[str, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            surface.use(place)
    except MemoryError:
        return "memory", traceback.format_exc()
    except (ValueError, OSError) as error:
        lines = str(error)
        if any(name in lines for name in names) and type(error) is not UnicodeEncodeError:
            return "named", lines
        return "unnamed", traceback.format_exc()
    except BaseException:
        return "traceback", traceback.format_exc()
    return "accepted", ""


def main(arguments: list[str]) -> int:
    """`python -m tests.fuzz.trial N [SEED] [SURFACE]`: a table, and every outcome that is wrong."""
    number, seed = int(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 0
    only = arguments[2] if len(arguments) > 2 else ""
    folder = Path(os.environ.get("FUZZ_FOLDER", "runs/fuzz"))
    shutil.rmtree(folder, ignore_errors=True)
    counts: dict[str, dict[str, int]] = {}
    wrong = []
    for result in trials(number, seed, folder, only):
        row = counts.setdefault(result.surface, dict.fromkeys(OUTCOMES, 0))
        row[result.outcome] += 1
        if result.outcome not in ("accepted", "named"):
            wrong.append(result)
            print(f"{result}", file=sys.stderr, flush=True)
    print("| surface | " + " | ".join(OUTCOMES) + " |\n|---|" + "---|" * len(OUTCOMES))
    total = {outcome: sum(row[outcome] for row in counts.values()) for outcome in OUTCOMES}
    for name, row in [*sorted(counts.items()), ("all", total)]:
        print(f"| {name} | " + " | ".join(str(row[outcome]) for outcome in OUTCOMES) + " |")
    for name in counts:
        with contextlib.suppress(OSError):
            (folder / name).rmdir()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
