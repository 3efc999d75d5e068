"""From the bytes of one image file to pixels: nothing is guessed, and an ambiguous file is refused with the reason."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
import torch
from annotated_types import Ge, Le
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from inkdrop.data.sources import Refused

Format: TypeAlias = Literal["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"]

ANIMATED, TURNED, DEEP, ALPHA = (
    "animated, first frame taken",
    "turned by EXIF",
    "16 bits",
    "alpha, laid on background",
)
COLOURED, GREYED, CMYK, WARNED = "grey to RGB", "RGB to grey", "CMYK to RGB", "decoder warned"

_GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N")
_ORIENTATION, _SIDEWAYS = 0x0112, 5
_TIFF_STARTS = (b"II*\0", b"MM\0*")


@dataclass(frozen=True)
class Decoded:
    """An image: pixels, uint8 (C, H, W), the size (width, height) before scaling, and the conversions."""

    pixels: Tensor
    size: tuple[int, int]
    conversions: tuple[str, ...]


class Decoder:
    """Decodes an image file to uint8 (C, H, W) of `shape`, by Pillow.

    The image is scaled with antialiasing until it just covers (H, W), and its centre is used. EXIF orientation is
    applied, the first frame of an animation is used, 16-bit grey is divided by 257 and rounded, and colours become grey
    or RGB according to C. (Of 16-bit colours Pillow keeps the upper 8 bits.)

    - `shape`: [C, H, W] with C = 1 or 3; null is that of the data, which set it.
    - `background`: red, green and blue under transparent pixels.
    - `formats`: the formats that are read; they are recognised by content.
    - `min_side`: smallest length of the shorter side in pixels.
    - `max_aspect`: largest ratio of the longer to the shorter side.
    - `max_pixels`: largest number of pixels of a file.

    Raises `Refused` with the reason for a file that is broken, beyond the limits, or of 32-bit pixels, which have no
    known range, and for every file where `shape` is not that of an image.
    """

    def __init__(
        self,
        shape: Sequence[int] | None,
        background: Sequence[Annotated[int, Ge(0), Le(255)]] = (255, 255, 255),
        formats: Sequence[Format] = ("PNG", "JPEG", "WEBP", "BMP", "GIF"),
        min_side: Annotated[int, Ge(1)] = 8,
        max_aspect: Annotated[float, Ge(1)] = 8.0,
        max_pixels: Annotated[int, Ge(1), Le(150_000_000)] = 50_000_000,  # Pillow itself refuses 179 million
    ):
        if len(background) != 3:
            raise ValueError(f"data.decoder.background={list(background)} must be [red, green, blue]")
        self.shape, self.background, self.formats = tuple(shape or ()), tuple(background), tuple(formats)
        self.min_side, self.max_aspect, self.max_pixels = min_side, max_aspect, max_pixels

    def check_shape(self) -> None:
        """Raises `ValueError` unless `shape` is that of an image."""
        if len(self.shape) != 3 or self.shape[0] not in (1, 3) or min(self.shape) < 1:
            raise ValueError(f"data.shape={list(self.shape)} must be [1 or 3, height, width] for images")

    def look(self, content: bytes) -> tuple[int, int, bool]:
        """Returns width, height (after EXIF orientation) and whether it is grey, from the header; raises `Refused`."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = self._open(content)
                turned = image.getexif().get(_ORIENTATION, 1) >= _SIDEWAYS
        except Refused:
            raise
        except Exception as error:  # Pillow's decoders raise errors of any type on a broken file
            raise Refused(str(error) or type(error).__name__) from None
        width, height = reversed(image.size) if turned else image.size
        return width, height, image.mode in _GREY_MODES

    def digest(self) -> bytes:
        """Returns the part of a fingerprint that stands for options that differ from their defaults."""
        usual = vars(Decoder(self.shape))
        changed = {name: value for name, value in vars(self).items() if value != usual[name]}
        return repr(sorted(changed.items())).encode() if changed else b""

    def __call__(self, content: bytes) -> Decoded:
        try:
            self.check_shape()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is `max_pixels`
                decoded = self._decode(content)
        except Refused:
            raise
        except Exception as error:  # Pillow's decoders raise errors of any type on a broken file
            raise Refused(str(error) or type(error).__name__) from None
        if caught:
            return Decoded(decoded.pixels, decoded.size, (*decoded.conversions, WARNED))
        return decoded

    def _decode(self, content: bytes) -> Decoded:
        image = self._open(content)
        conversions = [ANIMATED] if getattr(image, "is_animated", False) else []
        if image.mode in ("I", "F"):
            kind = "integers" if image.mode == "I" else "floats"
            raise Refused(f"{image.format} of 32-bit {kind}, which have no known range: convert it to 8 or 16 bits")
        image.load()
        if image.getexif().get(_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
            conversions.append(TURNED)
        size = image.size
        image = self._converted(image, conversions)
        if content.startswith(b"\x89PNG") and content[24] == 16 and DEEP not in conversions:
            conversions.append(DEEP)  # colours of 16 bits come from Pillow as 8
        channels, height, width = self.shape
        if size != (width, height):
            image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.array(image)).view(height, width, channels).permute(2, 0, 1)
        return Decoded(pixels.contiguous(), size, tuple(conversions))

    def _open(self, content: bytes) -> Image.Image:
        """The image, with its header read and checked against the limits."""
        if not content:
            raise Refused("the file is empty")
        try:
            image = Image.open(io.BytesIO(content), formats=self.formats)
        except UnidentifiedImageError:
            if content.startswith(_TIFF_STARTS) and "TIFF" not in self.formats:
                raise Refused("a TIFF file: add TIFF to data.decoder.formats") from None
            if content[4:8] == b"ftyp":  # the container format of HEIC and AVIF, often under another suffix
                raise Refused("a HEIC, AVIF or video file: convert it to PNG, JPEG or WebP") from None
            raise Refused(f"not an image of the formats {', '.join(self.formats)}") from None
        except Image.DecompressionBombError:
            raise Refused(f"the image has more than data.decoder.max_pixels={self.max_pixels} pixels") from None
        width, height = image.size
        if width * height > self.max_pixels:
            raise Refused(f"{width} x {height} is more than data.decoder.max_pixels={self.max_pixels} pixels")
        if min(width, height) < self.min_side:
            raise Refused(f"{width} x {height}: a side is shorter than data.decoder.min_side={self.min_side}")
        if max(width, height) > self.max_aspect * min(width, height):
            raise Refused(
                f"{width} x {height}: one side is more than data.decoder.max_aspect={self.max_aspect} times the other"
            )
        if image.format == "PNG":  # Pillow compares the checksums of pixel data here only
            image.verify()
            image = Image.open(io.BytesIO(content), formats=self.formats)
        return image

    def _converted(self, image: Image.Image, conversions: list[str]) -> Image.Image:
        """The image as 8-bit grey or RGB; what was done is added to `conversions`."""
        grey_file, grey = image.mode in _GREY_MODES, self.shape[0] == 1
        if image.mode.startswith("I;16"):
            if image.has_transparency_data:
                raise Refused(
                    "16-bit grey with a transparent level is not read: convert it to 8 bits or add an alpha channel"
                )
            conversions.append(DEEP)
            image = Image.fromarray(np.rint(np.asarray(image, np.float64) / 257).astype(np.uint8))
        if image.has_transparency_data:
            conversions.append(ALPHA)
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (*self.background, 255)), image)
        if image.mode == "CMYK":
            conversions.append(CMYK)
        if grey_file != grey:
            conversions.append(COLOURED if grey_file else GREYED)
        return image.convert("L" if grey else "RGB")
