"""What every reader says about an image file, and how it reports one that cannot be read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Channels of a colour image, in file order; a fourth sample is transparency and no channel.
COLOURS = ("R", "G", "B")


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
