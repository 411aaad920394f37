"""Public sets of real microscopy that are known by name: which files, where, under what terms."""

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PublicFile:
    """One file of a public set; `path` is relative to the repository, with /.

    Of one that nobody has fetched here yet only the repository's own `md5` is known, `sha256` is
    empty.
    """

    path: str
    sha256: str
    bytes: int
    md5: str = ""

    @property
    def checksum(self) -> str:
        """What its contents are held against, as `sha256:DIGEST`."""
        return f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}"


@dataclass(frozen=True)
class PublicSet:
    """A public set at one revision of its repository; `subsets` are prefixes of paths.

    `repository` is one of GitHub, at a commit, or `zenodo`, whose `revision` is a record. Without
    `files` the set is not yet seen: what it holds is asked at the first download.
    """

    name: str
    title: str
    repository: str
    revision: str
    licence: str
    citation: str
    subsets: Mapping[str, Sequence[str]]
    files: tuple[PublicFile, ...]

    @property
    def url(self) -> str:
        """Folder of the files as they are served."""
        if self.is_record:
            return f"{self.page}/files"
        return f"https://raw.githubusercontent.com/{self.repository}/{self.revision}"

    @property
    def is_record(self) -> bool:
        """Whether this is a record of Zenodo, not a repository of GitHub."""
        return self.repository == "zenodo"

    @property
    def page(self) -> str:
        """Where a reader finds it."""
        if self.is_record:
            return f"https://zenodo.org/records/{self.revision}"
        return f"https://github.com/{self.repository}"

    def select(self, subset: str | None = None) -> tuple[PublicFile, ...]:
        """Files of a subset (None: all); ValueError for an unknown one."""
        if subset is None:
            return self.files
        if subset not in self.subsets:
            raise ValueError(
                f"{self.name} has no subset {subset!r}; it has {', '.join(self.subsets) or 'none'}"
            )
        return tuple(f for f in self.files if f.path.startswith(tuple(self.subsets[subset])))

    def notice(self) -> str:
        """Where the set comes from, its licence and what to cite."""
        return (
            f"{self.name}: {self.title}\n"
            f"Source: {self.page}{'' if self.is_record else f' at {self.revision}'}\n"
            f"Licence: {self.licence}\n"
            f"Please cite: {self.citation}\n"
        )


def load_registry(path: Path | None = None) -> dict[str, PublicSet]:
    """The public sets known to this package, by name; `path`: another registry file."""
    source = path or importlib.resources.files("isl_jax.ingest") / "public_registry.json"
    try:
        stored = json.loads(source.read_text(encoding="utf-8"))
        return {name: _public_set(name, entry) for name, entry in stored.items()}
    except Exception as error:  # of whatever is not as this package wrote it
        raise ValueError(f"{source}: no registry of public sets ({error})") from error


def _public_set(name: str, entry: dict[str, Any]) -> PublicSet:
    files = tuple(PublicFile(path, **facts) for path, facts in entry.pop("files").items())
    return PublicSet(name=name, files=checked_paths(name, files), **entry)


def checked_paths(name: str, files: tuple[PublicFile, ...]) -> tuple[PublicFile, ...]:
    """The files; ValueError for one that would not lie below the folder that it is fetched into."""
    for file in files:
        if {"", ".", ".."} & set(file.path.split("/")) or "\\" in file.path:
            raise ValueError(f"{name}: {file.path!r} of the registry is no path below a folder")
    return files
