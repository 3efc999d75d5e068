"""What is NaN or infinite is an error, told with the place that it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from inkdrop.distributed.ranks import from_all_ranks


class NonFiniteError(FloatingPointError):
    """A loss, gradient, sample or feature is NaN or infinite; the message says which."""

    exit_code = 5


def require_finite(values: Tensor, what: str, names: Sequence[object]) -> None:
    """`NonFiniteError` with `what` and the names (B) of the rows of values (B, *) that are not finite."""
    if not bool(values.isfinite().all()):
        wrong = ~values.reshape(len(values), -1).isfinite().all(1)
        raise NonFiniteError(f"not finite: {what} {listed(names[row] for row in wrong.nonzero()[:, 0].tolist())}")


def listed(names: Iterable[object], most: int = 8) -> str:
    """The first few names, and how many more there are."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


@contextmanager
def raised_together() -> Iterator[None]:
    """What one process finds not finite within the block, all processes raise at its end: none waits for the others."""
    found: str | None = None
    try:
        yield
    except NonFiniteError as error:
        found = str(error)
    if messages := dict.fromkeys(message for message in from_all_ranks(found) if message is not None):
        raise NonFiniteError("; ".join(messages))
