"""Errors that end a command with only their message; each class has the exit code of the command."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


class InkdropError(Exception):
    """The base class of all errors that a user can fix; the message says what is wrong and how to fix it."""

    exit_code: ClassVar[int] = 2
    label: ClassVar[str] = "error: "  # before the message on a terminal


class ConfigurationError(InkdropError, ValueError):
    """A value, key or target in the configuration is wrong; the message names it and what is allowed."""


class UnreadableError(InkdropError, ValueError):
    """A file is missing, not a regular file, or has the wrong content; the message names it and the reason."""

    exit_code = 3


class DataError(InkdropError, ValueError):
    """Data are missing, damaged or different from the configuration; the message names them and what to do."""

    exit_code = 3


class CheckpointError(InkdropError, ValueError):
    """A checkpoint is missing, damaged or not from inkdrop; the message names the file and what to do."""

    exit_code = 4


class WriteError(InkdropError, OSError):
    """A file cannot be written, for example to a full disk or into a removed folder; the message names it."""

    exit_code = 4

    def __str__(self) -> str:
        return f"{self.filename} cannot be written: {self.strerror}"


class RefusedError(WriteError):
    """A file is not written because its path is, for example, a symbolic link; the message names it."""

    def __str__(self) -> str:
        return f"{self.filename} {self.strerror}"


class NonFiniteError(InkdropError, FloatingPointError):
    """A loss, gradient, sample or feature is NaN or infinite; the message says which."""

    exit_code = 5


class TrialError(InkdropError):
    """A trial of a sweep failed; its error has been printed."""

    def __init__(self, trial: str, code: int):
        super().__init__(trial, code)  # for unpickling in another process
        self.trial, self.exit_code = trial, code  # type: ignore[misc]

    def __str__(self) -> str:
        return f"trial {self.trial} failed with exit code {self.exit_code}"


def require_finite(values: Tensor, what: str, names: Sequence[object]) -> None:
    """Raises `NonFiniteError` with `what` and the names (B) of those rows of values (B, *) that are not finite."""
    if not bool(values.isfinite().all()):
        wrong = ~values.reshape(len(values), -1).isfinite().all(1)
        raise NonFiniteError(f"not finite: {what} {listed(names[row] for row in wrong.nonzero()[:, 0].tolist())}")


def listed(names: Iterable[object], most: int = 8) -> str:
    """Returns the first few names as text, and the number of the others."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
