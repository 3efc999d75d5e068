"""Texts as tensors: UTF-8 in uint8 (N, L), filled with zeros, so that they are batched and saved as any other field."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MAX_LENGTH = 2**16  # bytes of a text


def encoded(texts: Sequence[str], name: str = "text") -> Tensor:
    """Returns texts as uint8 (N, L), where L is the length in bytes of the longest.

    Raises `ValueError`, which begins with `name`, for a text that contains a zero or is too long.
    """
    each = [text.encode() for text in texts]
    if wrong := [text for text, content in zip(texts, each, strict=True) if b"\0" in content]:
        raise ValueError(f"{name} contains the character 0, in {wrong[0][:40]!r}: remove it")
    longest = max([1, *map(len, each)])
    if longest > MAX_LENGTH:
        raise ValueError(f"{name} has a text of {longest:,} bytes, more than {MAX_LENGTH:,}: shorten it")
    rows = b"".join(content.ljust(longest, b"\0") for content in each)
    return torch.frombuffer(bytearray(rows), dtype=torch.uint8).reshape(len(each), longest)


def decoded(texts: Tensor) -> list[str]:
    """Returns the strings of texts (N, L); bytes that are not UTF-8 become the replacement character."""
    return [bytes(row.tolist()).rstrip(b"\0").decode("utf-8", "replace") for row in texts.cpu()]


def is_text(field: Tensor) -> bool:
    """Whether a field of a batch is text."""
    return field.dtype == torch.uint8 and field.dim() == 2


def requested(wanted: Any, name: str, seeds: Sequence[int]) -> Tensor:
    """Returns the texts (B, L) of samples with these seeds, from a user's words.

    `wanted` is a text, a list of texts that samples take in turn, or `@FILE` with a text in each line. Raises
    `ValueError` for anything else, and for a file that cannot be read or is empty.
    """
    texts = wanted if isinstance(wanted, list) else [wanted]
    if len(texts) == 1 and isinstance(texts[0], str) and texts[0].startswith("@"):
        texts = _lines(Path(texts[0][1:]), name)
    texts = [str(each) if isinstance(each, int | float) and not isinstance(each, bool) else each for each in texts]
    if not texts or not all(isinstance(each, str) for each in texts):
        raise ValueError(f"condition.{name}={wanted} must be a text, a list of texts, or @FILE with one in each line")
    return encoded([texts[seed % len(texts)] for seed in seeds], f"condition.{name}")


def _lines(path: Path, name: str) -> list[str]:
    try:
        lines = [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text in UTF-8"
        raise ValueError(f"condition.{name}=@{path} cannot be read: {reason}") from None
    if not lines:
        raise ValueError(f"condition.{name}=@{path} has no text: write one in each line")
    return lines
