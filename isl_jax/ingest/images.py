"""What every reader says about an image file, and how it reports one that cannot be read."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Channels of a colour image, in file order; a fourth sample is transparency and no channel.
COLOURS = ("R", "G", "B")

# More bytes than this are decoded only where the file can hold them: no coding in use shrinks
# images of more than a blank scene by a higher factor.
_DECODED, _SHRUNK = 1 << 28, 2000


@dataclass(frozen=True)
class ImageInfo:
    """What a file holds, known without reading pixels.

    planes × height × width for each of the named channels. `spacing`: sides (y, x) of a pixel in
    µm, positive and finite, or None where the file does not tell. `siblings` are the other files of
    an image that is spread over several. `is_inverted`: the file holds white as its lowest value.
    """

    channels: tuple[str, ...]
    planes: int
    height: int
    width: int
    dtype: np.dtype
    spacing: tuple[float, float] | None = None
    siblings: tuple[Path, ...] = ()
    is_inverted: bool = False

    @property
    def pixel_size(self) -> float | None:
        """Side in µm of the square that is as large as a pixel; None where it is unknown."""
        return math.sqrt(self.spacing[0] * self.spacing[1]) if self.spacing else None

    @property
    def is_square(self) -> bool:
        """Whether the sides of a pixel agree within 1 % (or are not known)."""
        return self.spacing is None or math.isclose(*self.spacing, rel_tol=0.01)

    @property
    def is_colour(self) -> bool:
        """Whether the channels are the red, green and blue of each pixel."""
        return self.channels == COLOURS

    @property
    def is_named(self) -> bool:
        """Whether the file itself names its channels, so that their order says nothing."""
        return self.channels != numbered(len(self.channels))

    def channel_index(self, name: str) -> int | None:
        """Position of a channel by its name (if need be in other capitals) or else its number.

        None if there is none; ValueError if several have that name. Colours answer to R, G and B
        alone: a number asks for a grey channel.
        """
        known = self.channels
        if name not in known:
            known, name = tuple(map(str.casefold, known)), name.casefold()
        if name in known:
            if known.count(name) > 1:
                raise ValueError(f"channel name {name!r} occurs twice; give the number instead")
            return known.index(name)
        number = int(name) if name.isdecimal() and not self.is_colour else len(known)
        return number if number < len(known) else None


def numbered(count: int) -> tuple[str, ...]:
    """Names of channels that the file does not name."""
    return tuple(map(str, range(count)))


class ImageFile:
    """An image whose header has been read: `info`. No file stays open between calls."""

    def __init__(self, path: Path, info: ImageInfo):
        self.path, self.info = path, info

    def read(self, channel: int = 0, planes: Sequence[int] | None = None) -> np.ndarray:
        """Planes of one channel (None: all): [P, H, W] in the file's dtype, nothing else decoded.

        Raises ValueError in one line that names the file if its pixels cannot be decoded.
        """
        numbers = list(range(self.info.planes) if planes is None else planes)
        with reading(self.path):
            return self._decode(channel, numbers)

    def mapped(self, channel: int, plane: int) -> Any:
        """A plane that is read by windows where it lies: has `shape` (H, W) and `[rows, columns]`.

        None if it has to be decoded as a whole.
        """
        return None

    def _decode(self, channel: int, planes: list[int]) -> np.ndarray:
        raise NotImplementedError


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Around a reader: whatever leaves it is a ValueError or OSError in one line with the file."""
    try:
        yield
    except (ValueError, OSError) as error:
        if str(path) in str(error):
            raise
        raise damaged(path, error) from error
    except MemoryError:
        raise ValueError(
            f"{path}: does not fit into memory, or its header is damaged; copy it again"
        ) from None
    except Exception as error:  # decoders raise types of their own (zlib.error, struct.error, …)
        raise damaged(path, f"{type(error).__name__}: {error}") from error


def check_decoded_size(path: Path, decoded: int, stored: int) -> None:
    """ValueError if a header declares more bytes than the file's own could ever be decoded to."""
    if decoded > max(_DECODED, _SHRUNK * stored):
        raise damaged(path, f"it declares {decoded:.2g} bytes of pixels and has {stored}")


def damaged(path: Path, reason: object) -> ValueError:
    """The error to raise for a file that its decoder refuses: one line, with the remedy."""
    lines = str(reason).splitlines()
    detail = lines[0][:200] if lines else type(reason).__name__
    return ValueError(
        f"{path}: cannot be read, the file is damaged or incomplete ({detail}); copy it again"
    )


class AskForError(ValueError):
    """An input that is not what was asked for, although something else could be.

    `role` (inputs, stain, labels) and `value` are for the command, which knows the option: it says
    `error.by("--stain=dapi:max")` instead of `str(error)`.
    """

    def __init__(self, fault: str, role: str, value: str):
        super().__init__(f"{fault} ({value})")
        self.fault, self.role, self.value = fault, role, value

    def __reduce__(self):
        """Workers hand it on whole."""
        return type(self), (self.fault, self.role, self.value)

    def by(self, option: str) -> str:
        """The message in the words of a command."""
        return f"{self.fault} ({option})"


def not_grey(path: Path, kind: str = "colour", value: str = "NAME:rgb") -> AskForError:
    """The error to raise for an image in colours; `value` asks for them."""
    return AskForError(
        f"{path}: is a {kind} image, expected grey; save each channel as a grey image, or ask for "
        "its colours",
        "inputs",
        value,
    )


def unreadable_samples(path: Path, kind: str) -> ValueError:
    """The error to raise for pixels of several values that are no colours."""
    return ValueError(
        f"{path}: is a {kind} image, expected grey; save each channel as a grey image"
    )


def several_images(path: Path, names: Sequence[str], remedy: str = "") -> ValueError:
    """The error to raise for a file that holds more than one image."""
    shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
    return ValueError(
        f"{path}: holds {len(names)} images ({shown}), expected one; "
        + (remedy or "save each as a file of its own")
    )


class GreyOfColours(ImageFile):
    """A grey image that was saved in colours: R = G = B in every pixel."""

    def __init__(self, image: ImageFile, info: ImageInfo):
        super().__init__(image.path, info)
        self._image = image

    def _decode(self, channel: int, planes: list[int]) -> np.ndarray:
        return self._image.read(0, planes)
