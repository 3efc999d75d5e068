"""Images that a user names: pictures, and arrays of numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from inkdrop.errors import UnreadableError
from inkdrop.files.arrays import Npz, map_npy
from inkdrop.files.plain import open_regular
from inkdrop.files.showing import harmless

_MODES = {1: "L", 3: "RGB"}


def read_in_turn(files: str | list[str], option: str, seeds: Sequence[int], num_axes: int) -> Tensor:
    """Reads the images (B, C, *) of a file, or of files that samples with these seeds take in turn.

    Raises `ValueError` for files that cannot be read, and for images of different shapes; see `read_images`.
    """
    named = files if isinstance(files, list) else [files]
    parts = [read_images(str(file), option, num_axes=num_axes) for file in named]
    if len({part.shape[1:] for part in parts}) > 1:
        raise ValueError(f"the files of {option} have different shapes: make them equal")
    return torch.cat(parts)[[seed % sum(map(len, parts)) for seed in seeds]]


def read_images(file: str, option: str, channels: int | None = None, num_axes: int | None = None) -> Tensor:
    """Reads the images (N, C, *) of a file as uint8 or floats.

    - `file`: a picture, or a .npy or .npz of one array.
    - `option`: what names the file, for messages.
    - `channels`: how many a picture shall have; None is 1 for grey ones and else 3.
    - `num_axes`: how many an image has, so that an array may hold one without N; None is an array with N.

    Raises `ValueError` for a file that cannot be read, and for numbers that are not finite or of another type.
    """
    name, path = f"{option}={file}", Path(file)
    try:
        array = _array(path) if path.suffix in (".npy", ".npz") else _picture(path, channels)[None]
    except FileNotFoundError:
        raise ValueError(f"{name} does not exist") from None
    except UnreadableError as error:
        raise ValueError(f"{option}={error}") from None
    except Exception as error:  # image libraries raise any kind of error on a foreign file
        raise ValueError(f"{name} cannot be read: {harmless(str(error) or type(error).__name__)}") from None
    floats = array.dtype.kind == "f"
    if array.dtype == bool:
        array = 255 * array.astype(np.uint8)
    if not floats and array.dtype != np.uint8:
        raise ValueError(f"{name} holds {array.dtype}: convert it to uint8, 0 to 255, or to floats")
    if floats and not np.isfinite(array).all():
        raise ValueError(f"{name} holds numbers that are not finite: replace them")
    tensor = torch.from_numpy(array.astype(np.float32 if floats else np.uint8))
    return tensor[None] if tensor.ndim == num_axes else tensor


def _array(path: Path) -> np.ndarray:
    """Reads the only array of a numpy file."""
    if path.suffix == ".npy":
        return map_npy(path)
    arrays = Npz(path)
    if len(arrays) != 1:
        raise ValueError(f"it holds {len(arrays)} arrays, {', '.join(arrays)}: keep one of them")
    return next(iter(arrays.values()))


def _picture(path: Path, channels: int | None) -> np.ndarray:
    """Reads the pixels (C, H, W) of a picture, in greyscale if C = 1 and in RGB if C = 3."""
    if channels not in (None, *_MODES):
        raise ValueError(f"a picture has 1 or 3 channels, not {channels}: use a .npy file")
    with open_regular(path) as file, PIL.Image.open(file) as picture:
        if picture.mode.startswith(("I", "F")):
            raise ValueError(
                f"its pixels have more than 8 bits ({picture.mode}): convert it to 8 bits, or use a .npy file"
            )
        channels = channels or (1 if picture.mode in ("1", "L", "LA") else 3)
        pixels = np.asarray(picture.convert(_MODES[channels]))
    return pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1)
