"""Odd, broken and hostile images and archives, each with the outcome that is promised: I1 to I25, A1 to A8."""

from __future__ import annotations

import io
import os
import re
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from entry_scripts import completed
from image_files import (
    ALPHA,
    GREY,
    RGB,
    SHAPE,
    SIDE,
    chunk,
    deep_png,
    encoded,
    folder,
    pixels,
    png,
    sound,
    write,
)
from PIL import Image
from torch import Tensor

from inkdrop.commands.check_data.inspection import inspect
from inkdrop.data import WebDataset
from inkdrop.data.decoding import Decoder
from inkdrop.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:all images of .* are in one folder")
BACKGROUND = np.array([10, 200, 90])
SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0 : 8 * SIDE : 8, 0 : 8 * SIDE : 8], 128), 2).astype(np.uint8)


def laid_on_background(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The colours (H, W, 3) of opacity alpha (H, W) over the background."""
    opacity = alpha[..., None] / 255
    return opacity * colours + (1 - opacity) * BACKGROUND


def luma(colours: np.ndarray) -> np.ndarray:
    """ITU-R BT.601."""
    return colours.astype(float) @ [0.299, 0.587, 0.114]


def palette_image(transparent: bool, kind: str) -> tuple[bytes, np.ndarray]:
    """A file of 16 colours, the first of which may be transparent, and its pixels."""
    colours, index = pixels(3, 16, 3), pixels(4, SIDE, SIDE, levels=16)
    image = Image.frombytes("P", (SIDE, SIDE), index.tobytes())
    image.putpalette(colours.tobytes())
    content = encoded(image, kind, **({"transparency": 0} if transparent else {}))
    opaque = (255 * (index > 0)).astype(np.uint8) if transparent else np.full_like(index, 255)
    return content, laid_on_background(colours[index], opaque)


def rotated(kind: str, orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(RGB, kind, exif=exif)


def garbage_in_the_middle() -> bytes:
    content = bytearray(encoded(RGB, "JPEG", quality=95))
    middle = len(content) // 2
    content[middle : middle + 60] = pixels(5, 60, levels=255).tobytes()
    return bytes(content)


def repeated(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3, -1)


def scaled(image: np.ndarray) -> np.ndarray:
    """An image of half the height and width by the windowed sinc of Lanczos, three lobes of the result's pixels."""

    def weights(length: int) -> np.ndarray:
        distance = (np.arange(length) + 0.5) / 2 - (np.arange(length // 2)[:, None] + 0.5)
        sinc = np.where(abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
        return sinc / sinc.sum(1, keepdims=True)

    return np.einsum("ih,jw,hwc->ijc", weights(image.shape[0]), weights(image.shape[1]), image).clip(0, 255)


LARGE = pixels(9, 64, 96, 3, levels=200) // 2 + 60
ANIMATION = {"save_all": True, "append_images": [Image.fromarray(255 - RGB)]}
ONE_BIT = GREY > 127
DEEP_GREY, DEEP_RGB = pixels(6, SIDE, SIDE, levels=65536, dtype=np.uint16), pixels(7, SIDE, SIDE, 3).astype(np.uint16)
CMYK = (40, 90, 160, 60)
CMYK_AS_RGB = [(255 - ink) * (255 - CMYK[3]) / 255 for ink in CMYK[:3]]
PALETTE, TRANSPARENT_PALETTE, GIF = palette_image(False, "PNG"), palette_image(True, "PNG"), palette_image(False, "GIF")

# id: (content, pixels (H, W, 3 or none), largest difference, what is counted, options of the decoder)
ACCEPTED: dict[str, tuple[bytes, np.ndarray, float, set[str], dict[str, Any]]] = {
    "I3 a decoder that warns": (
        encoded(SMOOTH, "JPEG", quality=100, subsampling=0, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
        SMOOTH,
        4,
        {"decoder warned"},
        {},
    ),
    "I5 JPEG named .png": (encoded(SMOOTH, "JPEG", quality=100, subsampling=0), SMOOTH, 4, set(), {}),
    "I5 WebP named .png": (encoded(RGB, "WEBP", lossless=True), RGB, 0, set(), {}),
    "I5 BMP named .png": (encoded(RGB, "BMP"), RGB, 0, set(), {}),
    "I6 16-bit grey": (deep_png(DEEP_GREY), DEEP_GREY / 257, 0.5, {"16 bits"}, {"shape": [1, SIDE, SIDE]}),
    "I6 16-bit grey as RGB": (
        deep_png(DEEP_GREY),
        repeated(DEEP_GREY / 257),
        0.5,
        {"16 bits", "grey to RGB"},
        {},
    ),
    "I7 16-bit RGB": (deep_png(DEEP_RGB * 257), DEEP_RGB, 0, {"16 bits"}, {}),
    "I7 16-bit RGB, lower bits": (deep_png(DEEP_RGB * 256 + 255), DEEP_RGB, 0, {"16 bits"}, {}),
    "I9 CMYK JPEG": (
        encoded(Image.new("CMYK", (SIDE, SIDE), CMYK), "JPEG", quality=100),
        np.broadcast_to(CMYK_AS_RGB, (SIDE, SIDE, 3)),
        2,
        {"CMYK to RGB"},
        {},
    ),
    "I10 palette": (*PALETTE, 0, set(), {}),
    "I10 palette with transparency": (*TRANSPARENT_PALETTE, 0, {"alpha, laid on background"}, {}),
    "I10 palette of a GIF": (*GIF, 0, set(), {}),
    "I11 alpha 0": (
        encoded(np.dstack([RGB, np.zeros_like(GREY)])),
        np.broadcast_to(BACKGROUND, RGB.shape),
        0,
        {"alpha, laid on background"},
        {},
    ),
    "I11 RGBA": (
        encoded(np.dstack([RGB, ALPHA])),
        laid_on_background(RGB, ALPHA),
        1,
        {"alpha, laid on background"},
        {},
    ),
    "I11 LA": (
        encoded(np.dstack([GREY, ALPHA])),
        laid_on_background(repeated(GREY), ALPHA),
        1,
        {"alpha, laid on background", "grey to RGB"},
        {},
    ),
    "I11 LA as grey": (
        encoded(np.dstack([GREY, ALPHA])),
        luma(laid_on_background(repeated(GREY), ALPHA)),
        1.5,
        {"alpha, laid on background"},
        {"shape": [1, SIDE, SIDE]},
    ),
    "I12 1 bit": (encoded(Image.fromarray(ONE_BIT)), repeated(255 * ONE_BIT), 0, {"grey to RGB"}, {}),
    "I12 grey": (encoded(GREY), repeated(GREY), 0, {"grey to RGB"}, {}),
    "I12 grey as grey": (encoded(GREY), GREY, 0, set(), {"shape": [1, SIDE, SIDE]}),
    "I12 RGB as grey": (encoded(RGB), luma(RGB), 1, {"RGB to grey"}, {"shape": [1, SIDE, SIDE]}),
    "I13 EXIF 6 of PNG": (rotated("PNG"), np.rot90(RGB, -1), 0, {"turned by EXIF"}, {}),
    "I13 EXIF 3 of WebP": (
        encoded(RGB, "WEBP", lossless=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\3\0\0\0\0\0\0"),
        np.rot90(RGB, 2),
        0,
        {"turned by EXIF"},
        {},
    ),
    "I13 EXIF 6 of JPEG": (
        encoded(
            SMOOTH,
            "JPEG",
            quality=100,
            subsampling=0,
            exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0",
        ),
        np.rot90(SMOOTH, -1),
        4,
        {"turned by EXIF"},
        {},
    ),
    "I13 EXIF that is no EXIF": (encoded(SMOOTH, "JPEG", quality=100, exif=b"Exif\0\0nonsense"), SMOOTH, 16, set(), {}),
    "I15 animated PNG": (encoded(RGB, "PNG", **ANIMATION), RGB, 0, {"animated, first frame taken"}, {}),
    "I15 animated WebP": (
        encoded(RGB, "WEBP", lossless=True, **ANIMATION),
        RGB,
        0,
        {"animated, first frame taken"},
        {},
    ),
    "I15 animated GIF": (
        encoded(GREY, "GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)]),
        repeated(GREY),
        0,
        {"animated, first frame taken"},
        {},
    ),
    "I15 TIFF of two pages": (
        encoded(RGB, "TIFF", **ANIMATION),
        RGB,
        0,
        {"animated, first frame taken"},
        {"formats": ["TIFF"]},
    ),
    "I21 another size": (encoded(LARGE), scaled(LARGE)[:, 8:40], 2, set(), {}),
}


@pytest.mark.parametrize(("content", "expected", "tolerance", "counted", "options"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted_with_these_pixels(
    content: bytes, expected: np.ndarray, tolerance: float, counted: set[str], options: dict[str, Any], tmp_path: Path
) -> None:
    decoder = Decoder(**{"shape": SHAPE, "background": BACKGROUND.tolist(), **options})
    write(tmp_path / "train", {"odd.png": content} | {f"{n}.png": content for n in range(4)})
    data = folder(tmp_path / "train", validation=str(tmp_path / "train"), shape=list(decoder.shape), decoder=decoder)
    findings = data.examine()
    assert not findings.broken
    assert dict(findings.conversions) == dict.fromkeys(counted, 10)
    got = findings.splits["train"]["x"][torch.tensor([4])][0].permute(1, 2, 0).squeeze(-1).double().numpy()
    assert np.abs(got - expected).max() <= tolerance


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def sharded(path: Path, content: bytes, options: dict[str, Any]) -> Tensor:
    """The pixels (C, H, W) of a file through a shard."""
    decoder = Decoder(**{"shape": SHAPE, **options})
    path = shard(path, {"odd.png": content})
    data = WebDataset(str(path), str(path), ["png"], None, list(decoder.shape), 0, 1, decoder=decoder)
    return data.splits["train"]["x"][torch.tensor([0])][0]


@pytest.mark.parametrize(("content", "options"), [(case[0], case[4]) for case in ACCEPTED.values()], ids=ACCEPTED)
def test_a_shard_gives_the_pixels_that_a_folder_gives(content: bytes, options: dict[str, Any], tmp_path: Path) -> None:
    expected = Decoder(**{"shape": SHAPE, **options})(content).pixels
    assert torch.equal(sharded(tmp_path / "a.tar", content, options), expected)


def cut(content: bytes, length: int) -> bytes:
    return content[:length]


def wrong_checksum(content: bytes) -> bytes:
    """The last byte of the checksum of the pixel data is another one; the data are right."""
    place = content.index(b"IEND") - 5
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def flipped(content: bytes) -> bytes:
    place = content.index(b"IDAT") + 40
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


PNG, JPEG = encoded(RGB), encoded(RGB, "JPEG")
INTEGERS, FLOATS = Image.fromarray(RGB[..., 0].astype(np.int32)), Image.fromarray(RGB[..., 0].astype(np.float32) / 255)
NO_IMAGE, TIFF = "not an image of the formats PNG, JPEG, WEBP, BMP, GIF", {"formats": ["PNG", "TIFF"]}

# id: (content, words of the reason, options of the decoder)
BROKEN: dict[str, tuple[bytes, str, dict[str, Any]]] = {
    "I1 empty": (b"", "the file is empty", {}),
    "I1 text": (b"once upon a time", NO_IMAGE, {}),
    "I1 web page": (b"<!DOCTYPE html><title>404</title>", NO_IMAGE, {}),
    "HEIC named .png": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC, AVIF or video file: convert it", {}),
    "I2 JPEG cut at half": (cut(JPEG, len(JPEG) // 2), "truncated", {}),
    "I2 JPEG without its end": (cut(JPEG, len(JPEG) - 10), "truncated", {}),
    "I2 JPEG of a header": (cut(JPEG, 20), "", {}),
    "I4 PNG cut at half": (cut(PNG, len(PNG) // 2), "", {}),
    "I4 PNG without its end": (cut(PNG, len(PNG) - 20), "", {}),
    "I4 PNG with a wrong checksum": (wrong_checksum(PNG), "checksum", {}),
    "I4 PNG with a flipped bit": (flipped(PNG), "checksum", {}),
    "I8 TIFF by default": (encoded(RGB, "TIFF"), "TIFF file: add TIFF to data.decoder.formats", {}),
    "I8 integers of 32 bits": (encoded(INTEGERS, "TIFF"), "TIFF of 32-bit integers", TIFF),
    "I8 floats": (encoded(FLOATS, "TIFF"), "TIFF of 32-bit floats", TIFF),
    "I14 1 x 1": (encoded(RGB[:1, :1]), "1 x 1: a side is shorter than data.decoder.min_side=8", {}),
    "I14 1 x 32": (encoded(RGB[:, :1]), "1 x 32: a side is shorter", {}),
    "I14 3 x 4000": (encoded(np.zeros((4000, 3), np.uint8)), "3 x 4000: a side is shorter", {}),
    "I14 8 x 400": (encoded(np.zeros((400, 8), np.uint8)), "more than data.decoder.max_aspect=8.0 times", {}),
    "I16 10,000 x 10,000": (png(10_000, 10_000, 2, 8), "more than data.decoder.max_pixels=50000000", {}),
    "I16 30,000 x 30,000": (png(30_000, 30_000, 2, 8), "more than data.decoder.max_pixels=50000000", {}),
    "I17 no width": (png(0, SIDE, 2, 8), "", {}),
    "one grey level of 16 bits is transparent": (
        png(8, 8, 0, 16, [bytes(16)] * 8, extra=chunk(b"tRNS", b"\0\0")),
        "16-bit grey with a transparent level",
        {},
    ),
}


@pytest.mark.parametrize(("content", "words", "options"), BROKEN.values(), ids=BROKEN)
def test_broken_is_listed_and_left_out_if_allowed(
    content: bytes, words: str, options: dict[str, Any], tmp_path: Path
) -> None:
    write(tmp_path, sound("a", "b") | {"a/odd.png": content})
    decoder = Decoder(SHAPE, **options)
    with pytest.raises(DataError) as error:
        _ = folder(tmp_path, decoder=decoder).splits
    assert "1 of 21 files" in str(error.value)
    assert f"{tmp_path}/a/odd.png: {next(iter(folder(tmp_path, decoder=decoder).examine().broken.values()))}" in str(
        error.value
    )
    assert words in str(error.value)
    assert "python -m inkdrop check-data" in str(error.value)
    with pytest.warns(UserWarning, match="of 21 files in .*: 1 broken and left out"):
        splits = folder(tmp_path, decoder=decoder, max_broken=0.05).splits
    assert sum(len(split["x"]) for split in splits.values()) == 20
    with pytest.raises(DataError, match="1 of 21"):
        _ = folder(tmp_path, decoder=decoder, max_broken=0.04).splits


@pytest.mark.parametrize(("content", "words", "options"), BROKEN.values(), ids=BROKEN)
def test_a_shard_refuses_what_a_folder_refuses(
    content: bytes, words: str, options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"a.tar: odd.png cannot be decoded: .*{words}"):
        sharded(tmp_path / "a.tar", content, options)


def test_i3_garbage_within_a_jpeg_cannot_be_seen(tmp_path: Path) -> None:
    write(tmp_path, sound("a") | {"a/odd.jpg": garbage_in_the_middle()})
    findings = folder(tmp_path).examine()
    assert not findings.broken
    assert sum(findings.sizes.values()) == 11


def test_i16_is_refused_by_the_header_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="max_pixels"):
        Decoder(SHAPE)(png(8000, 8000, 2, 8))
    with pytest.raises(ValueError, match="max_pixels=100"):
        Decoder(SHAPE, max_pixels=100)(PNG)


def test_i15_animations_are_counted_in_a_warning(tmp_path: Path) -> None:
    write(tmp_path, sound("a") | {f"a/{n}.gif": ACCEPTED["I15 animated GIF"][0] for n in range(3)})
    with pytest.warns(UserWarning, match="of 13 files in .*: 3 animated, first frame taken"):
        _ = folder(tmp_path).splits


def test_i1_i18_i20_names_hidden_files_and_folders(tmp_path: Path) -> None:
    """What is no image by its name is skipped with a reason; order is that of bytes, whatever the case or encoding."""
    names = [
        "a/B.PNG",
        "a/a.Png",
        "a/b.JPEG",
        "a/1/2/3/4/5/deep.png",
        "a/new\nline.png",
        f"a/{'n' * 251}.png",
        "a/é.png",
    ]
    write(tmp_path, dict.fromkeys(names, PNG))
    write(
        tmp_path,
        {"a/._a.png": b"resource", "a/.hidden.png": PNG, ".cache/x.png": PNG, "a/notes.txt": b"", "readme": b""},
    )
    (tmp_path / "a" / "folder.png").mkdir()
    (tmp_path / "empty.png").mkdir()
    (tmp_path / "a" / "dangling.png").symlink_to(tmp_path / "nothing")
    raw = os.fsencode(tmp_path) + b"/a/\xff\xfe.png"
    Path(os.fsdecode(raw)).write_bytes(PNG)
    data = folder(tmp_path, held_out=0.2)
    assert (data.num_classes, data.classes) == (1, ["a"])
    listing = data._places["train"].source.listing()
    assert [os.fsencode(name) for name in listing.files] == sorted([*map(os.fsencode, names), b"a/\xff\xfe.png"])
    assert listing.odd == {}
    assert listing.skipped == {
        "a/._a.png": "hidden",
        "a/.hidden.png": "hidden",
        ".cache": "hidden",
        "a/notes.txt": "text or metadata next to images",
        "readme": "text or metadata next to images",
        "a/folder.png": "folder named like an image",
        "empty.png": "folder named like an image",
        "a/dangling.png": "link to nothing",
    }
    with pytest.warns(UserWarning, match="are left out, because .*: 2 folder named like an image, 1 link to nothing"):
        splits = data.splits
    assert len(splits["train"]["x"]) + len(splits["validation"]["x"]) == 8
    assert "\\udcff" in data._places["train"].source.path(os.fsdecode(b"a/\xff\xfe.png"))
    assert "\n" not in data._places["train"].source.path("a/new\nline.png")


BESIDE = ["Thumbs.db", ".DS_Store", "._00.png", "desktop.ini", "README", "notes.txt", "IMG_1.AAE", "a.xmp", "a.json"]
# id: (names of files in the folder of class a, what is told of them)
LEFT_OUT: dict[str, tuple[list[str], str]] = {
    "photos of phones": (["1.HEIC", "2.heic", "3.avif", "4.heif"], "2 .heic, 1 .avif, 1 .heif"),
    "raw": (["1.CR2", "2.nef", "3.dng", "4.arw", "5.arw"], "2 .arw, 1 .cr2, 1 .dng, 1 .nef"),
    "documents": (["1.psd", "2.pdf", "3.svg", "4.mp4"], "1 .mp4, 1 .pdf, 1 .psd, 1 .svg"),
    "no suffix": (["0001", "deep/0002"], "2 without a suffix"),
    "many kinds": ([f"1.x{n}" for n in range(12)], ", 4 others"),
    "escapes": (["1.\x1b[31m"], "1 .*x1b.*"),
    "files beside images": (BESIDE, ""),
}


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(("names", "told"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_is_no_image_by_its_name_is_counted(
    names: list[str], told: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def placed(name: str, files: dict[str, bytes]) -> Path:
        return archive(tmp_path / f"{name}.zip", files) if kind == "zip" else write(tmp_path / name, files)

    others = {f"a/{name}": b"content" for name in names}
    path = placed("some", sound("a", "b") | others)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(folder(path).splits["train"]["x"]) == 18
    messages = [str(each.message) for each in caught]
    assert bool(messages) == bool(told)
    assert all(
        re.search(f"are left out, because .*: .*{told}. Convert those that are images to", each) for each in messages
    )
    inspect(folder(path), tmp_path / "report")
    assert re.search(f"left out by name +.*{told}\n", capsys.readouterr().out) or not told
    assert "\x1b" not in "".join(messages)
    message = rf"no images in .*only{'.zip' * (kind == 'zip')}" + (f", but .*{told}. Convert" if told else ": `python")
    with pytest.raises(DataError, match=message):
        _ = folder(placed("only", others), num_classes=0).splits
    with pytest.raises(DataError, match=f"no images to train on in .*/a{f', but .*{told}. Convert' if told else ''}"):
        folder(placed("half", sound("b") | others), num_classes=2).verify()


def test_texts_beside_images_of_their_name_are_counted(tmp_path: Path) -> None:
    write(tmp_path, sound("a", "b") | {"a/00.txt": b"a cat", "b/03.TXT": b"a dog", "a/notes.txt": b""})
    with pytest.warns(
        UserWarning, match=r"2 texts next to images of the same name \(data.captions=txt uses them\) are not used"
    ):
        _ = folder(tmp_path).splits


def test_i19_links_that_leave_the_folder(tmp_path: Path) -> None:
    root = write(tmp_path / "root", sound("a"))
    outside = write(tmp_path / "outside", sound("c")) / "c"
    (root / "a" / "out.png").symlink_to(outside / "00.png")
    (root / "a" / "in.png").symlink_to(root / "a" / "01.png")
    (root / "b").symlink_to(outside)
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / ".hidden.png").symlink_to(outside / "00.png")
    (root / "__MACOSX").mkdir()
    assert folder(root).num_classes == 1
    broken = folder(root).examine().broken
    assert {Path(path).name for path in broken} == {"out.png", "b"}
    assert all("leaves the folder: set data.allow_links=true" in reason for reason in broken.values())
    data = folder(root, allow_links=True)
    assert data.num_classes == 2
    assert {split: len(columns["x"]) for split, columns in data.splits.items()} == {"train": 20, "validation": 2}


def test_i21_mixed_sizes_and_channels_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in", sound("a") | {"a/big.png": encoded(pixels(8, 40, 60, 3)), "a/grey.png": encoded(GREY)})
    assert inspect(folder(tmp_path / "in"), tmp_path / "report")
    told = capsys.readouterr().out
    assert "32 x 32 (11), 60 x 40 (1)" in told
    assert "grey to RGB          1 files" in told


def test_i22_a_file_that_changes_or_goes(tmp_path: Path) -> None:
    write(tmp_path, sound("a"))
    lazy = folder(tmp_path, memory_limit=0.0)
    x, before = lazy.splits["train"]["x"], lazy.fingerprint
    assert folder(tmp_path, memory_limit=0.0).fingerprint == before
    name = x.names[3]  # type: ignore[attr-defined]
    (tmp_path / name).write_bytes(PNG)
    with pytest.raises(DataError, match=f"{name} has changed"):
        x[torch.tensor([3])]
    assert folder(tmp_path, memory_limit=0.0).fingerprint != before
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f"{name} can no longer be read: No such file"):
        x[torch.tensor([3])]
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="neither a file nor a folder"):
        x[torch.tensor([3])]


def test_i22_an_archive_that_changes_or_goes(tmp_path: Path) -> None:
    path = archive(tmp_path / "images.zip", sound("a"))
    x = folder(path, memory_limit=0.0).splits["train"]["x"]
    archive(path, dict.fromkeys(sound("a"), PNG) | sound("b"))
    x.source._opened = None  # type: ignore[attr-defined]  # as in a new process
    with pytest.raises(DataError, match=r"images.zip/a/.*png has changed"):
        x[torch.tensor([3])]
    path.unlink()
    x.source._opened = None  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"images.zip/a/.*png can no longer be read: .*No such file"):
        x[torch.tensor([3])]


def test_i22_through_worker_processes(tmp_path: Path) -> None:
    write(tmp_path, sound("a"))
    data = folder(tmp_path, memory_limit=0.0, num_workers=1)
    loader = data.train_dataloader()
    name = data.splits["train"]["x"].names[0]  # type: ignore[attr-defined]
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=name):
        next(iter(loader))


@pytest.mark.timeout(300)
def test_i23_special_files_are_never_opened(tmp_path: Path) -> None:
    write(tmp_path, sound("a"))
    os.mkfifo(tmp_path / "a" / "pipe.png")
    assert folder(tmp_path).examine().broken == {f"{tmp_path}/a/pipe.png": "neither a file nor a folder"}


def test_i23_unreadable_files_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, sound("a"))
    (tmp_path / "a" / "00.png").chmod(0)
    if os.access(tmp_path / "a" / "00.png", os.R_OK):  # the administrator may read everything
        opened = os.open

        def refuse(path: Any, *arguments: Any) -> int:
            if str(path).endswith("00.png"):
                raise PermissionError(13, "Permission denied", str(path))
            return opened(path, *arguments)

        monkeypatch.setattr(os, "open", refuse)
    assert folder(tmp_path).examine().broken == {f"{tmp_path}/a/00.png": "Permission denied"}


TOO_FEW: dict[str, tuple[dict[str, bytes], dict[str, Any], str]] = {
    "nothing": ({"notes.txt": b""}, {}, "there are no images in .*: `python -m inkdrop check-data` shows"),
    "an empty class": (sound("a", "b") | {"c/notes.txt": b""}, {}, "no images to train on in .*/c$"),
    "fewer than a batch": (sound("a", count=3), {}, "3 images to train on in .* fewer than data.batch_size=4"),
    "none to hold out": (sound("a", count=9), {}, "no image of .* is held out: set data.validation"),
    "a class that is not there": (sound("a", "b"), {"num_classes": 3}, "num_classes=3, but .* has 2 folders"),
    "a class too many": (sound("a", "b"), {"num_classes": 1}, "num_classes=1, but .* has 2 folders"),
}


@pytest.mark.parametrize(("files", "options", "message"), TOO_FEW.values(), ids=TOO_FEW)
def test_i24_too_few(files: dict[str, bytes], options: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path, files)
    for action in ("verify", "load"):
        with pytest.raises(ValueError if options else DataError, match=message):
            getattr(folder(tmp_path, **options), action)()


def test_i24_a_class_of_which_all_is_broken(tmp_path: Path) -> None:
    write(tmp_path, sound("a", "b") | {"c/x.png": b"no image"})
    with pytest.warns(UserWarning, match="1 broken"), pytest.raises(DataError, match=r"no images to train on in .*/c"):
        _ = folder(tmp_path, max_broken=1.0).splits


def test_i25_twins_and_overlap_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = sound("a", count=5), sound("a", count=6)
    write(tmp_path / "train", train | {"a/twin.png": train["a/00.png"]})
    write(tmp_path / "test", {"a/05.png": test["a/05.png"], "a/seen.bmp": encoded(Image.open(io.BytesIO(PNG)), "BMP")})
    write(tmp_path / "train", {"a/99.png": PNG})
    assert inspect(folder(tmp_path / "train", validation=str(tmp_path / "test")), tmp_path / "report")
    told = capsys.readouterr().out
    assert "1 within train, 0 with splits above" in told
    assert "0 within validation, 1 with splits above" in told
    listed = (tmp_path / "report" / "items.txt").read_text()
    assert f"twin\t{tmp_path}/train/a/twin.png\tsame as {tmp_path}/train/a/00.png\n" in listed
    assert f"twin\t{tmp_path}/test/a/seen.bmp\tsame as {tmp_path}/train/a/99.png\n" in listed


def archive(path: Path, members: dict[str, bytes], **attributes: Any) -> Path:
    """A zip archive; the last member has these attributes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for number, (name, content) in enumerate(members.items()):
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in attributes.items() if number == len(members) - 1 else ():
                setattr(info, key, value)
            file.writestr(info, content)
    return path


LINK, DEVICE = 0o120777 << 16, 0o020666 << 16
# id: (members, attributes of the last one, words)
ARCHIVES: dict[str, tuple[dict[str, bytes], dict[str, Any], str]] = {
    "A1 above": ({"../../x.png": PNG}, {}, "is not a plain path"),
    "A1 above, further on": ({"a/../../x.png": PNG}, {}, "is not a plain path"),
    "A1 absolute": ({"/tmp/x.png": PNG}, {}, "is not a plain path"),
    "A1 drive": ({"C:/x.png": PNG}, {}, "is not a plain path"),
    "A1 backslash": ({"a\\..\\..\\x.png": PNG}, {}, "is not a plain path"),
    "A1 same place": ({"a/./x.png": PNG}, {}, "is not a plain path"),
    "A1 empty part": ({"a//x.png": PNG}, {}, "is not a plain path"),
    "A2 link": ({"a/out": b"/etc"}, {"external_attr": LINK}, "is a link or a special file"),
    "A2 path through a file": ({"a/x": b"/etc", "a/x/passwd.png": PNG}, {}, "both a file and a folder"),
    "A2 device": ({"a/null.png": b""}, {"external_attr": DEVICE}, "is a link or a special file"),
    "A5 zeros": ({"a/zeros.bmp": bytes(50_000_000)}, {}, "members unpack to 500.* bytes from"),
    "A6 zip within zip": ({"a/inner.zip": b""}, {}, "is itself an archive"),
    "A7 case": ({"a/x.png": PNG, "a/X.png": PNG}, {}, "a/X.png differs from a/x.png only in case"),
    "A7 case of a folder": ({"cat/x.png": PNG, "Cat/y.png": PNG}, {}, "differs from cat only in case"),
}


@pytest.mark.parametrize(("members", "attributes", "words"), ARCHIVES.values(), ids=ARCHIVES)
def test_archive_is_refused_whole(
    members: dict[str, bytes], attributes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = archive(tmp_path / "images.zip", sound("a") | members, **attributes)
    for action in ("verify", "load"):
        with pytest.raises(DataError, match=f"images.zip is refused: .*{words}"):
            getattr(folder(path, num_classes=1), action)()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a7_duplicate_members(tmp_path: Path) -> None:
    path = archive(tmp_path / "images.zip", sound("a"))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("a/00.png", PNG)
    with pytest.raises(DataError, match=r"a/00.png occurs twice"):
        folder(path).verify()


@pytest.mark.parametrize("kind", ["file", "above", "link", "hard link", "device"])
def test_a3_a4_tar_archives_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "data" / "images.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as file:
        info = tarfile.TarInfo("../x.png" if kind == "above" else "a/x.png")
        info.type = {"link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}.get(kind, b"0")
        info.linkname, info.size = "../../x", len(PNG) if kind in ("file", "above") else 0
        file.addfile(info, io.BytesIO(PNG))
    with pytest.raises(DataError, match=r"images.tar cannot be read as a .zip file: .* unpack it into its own folder"):
        folder(path).verify()
    assert sorted(tmp_path.rglob("*")) == [path.parent, path]


def test_a5_size_is_capped_per_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inkdrop.data import archives, sources

    for module in (archives, sources):  # files in an archive, and in a folder
        monkeypatch.setattr(module, "MAX_FILE_BYTES", 1000)
    path = archive(tmp_path / "images.zip", sound("a"))
    with pytest.raises(DataError, match="more than 1000"):
        folder(path).verify()
    write(tmp_path, sound("b"))
    assert all("more than 1000" in reason for reason in folder(tmp_path).examine().broken.values())
    monkeypatch.setattr(archives, "MAX_MEMBERS", 5)
    with pytest.raises(DataError, match="10 members unpack to"):
        folder(path).verify()


def test_a6_damaged_archives(tmp_path: Path) -> None:
    path = archive(tmp_path / "images.zip", sound("a"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"images.zip cannot be read as a .zip file"):
        folder(path).verify()
    place = content.index(b"a/03.png") + 200
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(DataError, match=r"(?s)1 of 10 files .*images.zip/a/03.png: "):
        _ = folder(path).splits
    assert list(tmp_path.iterdir()) == [path]


def test_a8_checksum(tmp_path: Path) -> None:
    import hashlib

    path = archive(tmp_path / "images.zip", sound("a"))
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(folder(path, sha256=right.upper()).splits["train"]["x"]) == 9
    assert len(folder(path).splits["train"]["x"]) == 9  # not compared unless given
    with pytest.raises(DataError, match=f"has the SHA-256 {right}, not {'0' * 64}"):
        _ = folder(path, sha256="0" * 64).splits
    with pytest.raises(DataError, match="has the SHA-256"):
        _ = folder(path, validation=str(path), validation_sha256="0" * 64).splits
    with pytest.raises(DataError, match="only an archive has a SHA-256"):
        _ = folder(write(tmp_path / "folder", sound("a")), sha256=right).splits
    path.write_text("<!DOCTYPE html><title>404 Not Found</title>")
    with pytest.raises(DataError, match=r"cannot be read as a .zip file"):
        folder(path, sha256=right).verify()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["refused archive", "broken image"])
def test_training_ends_with_exit_code_3(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "images"
    if kind == "refused archive":
        path = archive(tmp_path / "images.zip", {"../x.png": PNG})
    elif kind == "broken image":
        write(path, sound("a") | {"a/x.png": cut(PNG, 100)})
    command = ["train.py", "data=image_folder", f"data.path={path}", "data.batch_size=4", f"output_dir={tmp_path}/run"]
    options = ["network.attention_resolutions=[16]", "logger=none", "callbacks.evaluate=null"]
    done = completed(*command, *options)
    assert done.returncode == 3, done.stderr
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]  # warnings may come before
    assert str(path) in told
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run").exists() == (kind == "broken image")  # it takes decoding to see this one
