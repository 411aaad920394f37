"""Fetch real cells from a public repository: exact files of a fixed revision, by checksum.

    isl-fetch --dataset=deepcell2016 --subset=hela --dry_run     # what it would fetch, and how much
    isl-fetch --dataset=deepcell2016 --subset=hela --out=RAW
    isl-prepare --source=RAW --layout=deepcell2016 --out=DATA

Sets that are marked as not yet seen lie at Zenodo: what they hold is asked there, held against its
own checksums, and kept in CHECKSUMS.json beside the files, against which later calls hold them.

Run again, it fetches what is missing or damaged and nothing else. Without access to the internet,
--base_url names a mirror of the repository's folders: http://SERVER/FOLDER or file:///FOLDER
(of a Zenodo record with record.json, the answer of https://zenodo.org/api/records/NUMBER).
Licence and citation are printed, and saved as SOURCE.txt beside the files.
"""

from pathlib import Path

from absl import flags

from isl_jax.ingest.public import (
    PublicFile,
    PublicSet,
    fetch,
    is_present,
    listed,
    load_registry,
)
from isl_jax.launch.command import command
from isl_jax.launch.waiting import Waiting
from isl_jax.locks import locked

_REGISTRY = load_registry()
_DATASET = flags.DEFINE_enum("dataset", None, sorted(_REGISTRY), "Which public set.")
_SUBSET = flags.DEFINE_string("subset", None, "Part of the set (default: all of it).")
_OUT = flags.DEFINE_string("out", None, "Folder to write; what it holds already is kept.")
_BASE_URL = flags.DEFINE_string("base_url", None, "Mirror: http://…, https://… or file:///…")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "List files and sizes, fetch nothing.")


def main() -> None:
    """Fetch, or list, what the flags name."""
    if _DATASET.value is None:
        raise ValueError(f"no --dataset: choose one of {_known()}")
    public_set = _REGISTRY[_DATASET.value]
    print(public_set.notice())
    if not public_set.files:
        print("Not yet seen: no checksum of this set has been taken for this package so far.\n")
    public_set = listed(public_set, Path(_OUT.value) if _OUT.value else None, _BASE_URL.value)
    files = public_set.select(_SUBSET.value)
    if _DRY_RUN.value:
        _list(public_set, files)
        return
    if _OUT.value is None:
        raise ValueError("no --out: give the folder to write, or --dry_run to look only")
    out = Path(_OUT.value)
    todo = sum(file.bytes for file in files if not is_present(file, out))
    bar = Waiting("fetch", todo, "B", scaled=True)
    with locked(out, "choose another --out"), bar:
        fetched = fetch(public_set, files, out, base_url=_BASE_URL.value, on_bytes=bar.update)
    print(
        f"{out}: {len(files)} files, {_megabytes(files)}; {len(fetched)} fetched "
        f"({_megabytes(fetched)}), {len(files) - len(fetched)} were there"
    )


def _list(public_set: PublicSet, files: tuple[PublicFile, ...]) -> None:
    missing = [f for f in files if _OUT.value is None or not is_present(f, Path(_OUT.value))]
    for file in files:
        print(f"{file.bytes:>12,}  {'' if file in missing else 'there  '}{file.path}")
    print(
        f"{_megabytes(files)} in {len(files)} files, {_megabytes(missing)} in {len(missing)} to "
        f"fetch from {_BASE_URL.value or public_set.url}"
    )


def _megabytes(files) -> str:
    return f"{sum(file.bytes for file in files) / 1e6:.1f} MB"


def _known() -> str:
    return "; ".join(
        f"{name} ({_megabytes(entry.files) if entry.files else 'not yet seen'}"
        + (f", subsets {', '.join(entry.subsets)}" if entry.subsets else "")
        + ")"
        for name, entry in _REGISTRY.items()
    )


run = command(main)

if __name__ == "__main__":
    run()
