"""What every reader says about an image file, and how it reports one that cannot be read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Channels of a colour image, in file order; a fourth sample is transparency and no channel.
COLOURS = ("R", "G", "B")

# Units of length as files spell them, in µm.
MICROMETRES: dict[str, float] = {
    "µm": 1, "um": 1, "micron": 1, "microns": 1, "micrometer": 1,
    "nm": 1e-3, "nanometer": 1e-3, "mm": 1e3, "millimeter": 1e3, "cm": 1e4,
}  # fmt: skip


@dataclass(frozen=True)
class ImageInfo:
    """What a file holds, known without reading pixels.

    planes × height × width for each of the named channels; pixel_size in µm where the file tells.
    `siblings` are the other files of an image that is spread over several.
    """

    channels: tuple[str, ...]
    planes: int
    height: int
    width: int
    dtype: np.dtype
    pixel_size: float | None = None
    siblings: tuple[Path, ...] = ()

    @property
    def is_colour(self) -> bool:
        """Whether the channels are the red, green and blue of each pixel."""
        return self.channels == COLOURS

    def channel_index(self, name: str) -> int | None:
        """Position of a channel by its name or else its number; None if there is none.

        Colours answer to R, G and B alone: a number asks for a grey channel.
        """
        if name in self.channels:
            if self.channels.count(name) > 1:
                raise ValueError(f"channel name {name!r} occurs twice; give the number instead")
            return self.channels.index(name)
        number = int(name) if name.isdecimal() and not self.is_colour else len(self.channels)
        return number if number < len(self.channels) else None


class ImageFile:
    """An image whose header has been read: `info`. No file stays open between calls."""

    def __init__(self, path: Path, info: ImageInfo):
        self.path, self.info = path, info

    def read(self, channel: int = 0, planes: Sequence[int] | None = None) -> np.ndarray:
        """Planes of one channel (None: all): [P, H, W] in the file's dtype, nothing else decoded.

        Raises ValueError in one line that names the file if its pixels cannot be decoded.
        """
        try:
            return self._decode(
                channel, list(range(self.info.planes) if planes is None else planes)
            )
        except (ValueError, OSError) as error:
            if str(self.path) in str(error):
                raise
            raise damaged(self.path, error) from error
        except Exception as error:  # decoders raise types of their own (zlib.error, LzwError, …)
            raise damaged(self.path, error) from error

    def mapped(self, channel: int, plane: int) -> Any:
        """A plane that is read by windows where it lies: has `shape` (H, W) and `[rows, columns]`.

        None if it has to be decoded as a whole.
        """
        return None

    def _decode(self, channel: int, planes: list[int]) -> np.ndarray:
        raise NotImplementedError


def damaged(path: Path, reason: object) -> ValueError:
    """The error to raise for a file that its decoder refuses: one line, with the remedy."""
    lines = str(reason).splitlines()
    detail = lines[0] if lines else type(reason).__name__
    return ValueError(
        f"{path}: cannot be read, the file is damaged or incomplete ({detail}); copy it again"
    )


def not_grey(path: Path, kind: str, colours: str = "") -> ValueError:
    """The error to raise for an image that is not grey; `colours`: how to ask for its colours."""
    otherwise = f", or ask for its three colours with {colours}" if colours else ""
    return ValueError(
        f"{path}: is a {kind} image, expected grey; save each channel as a grey image{otherwise}"
    )
