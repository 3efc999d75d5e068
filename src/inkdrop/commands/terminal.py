"""How a command ends when something is wrong, and what libraries print."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import NoReturn

from inkdrop.configuration.secrets import masked_text
from inkdrop.errors import InkdropError, WriteError
from inkdrop.files.showing import harmless_lines
from inkdrop.files.writing import DISK

EXIT_CONFIGURATION = 2


def exit_code(error: Exception) -> int | None:
    """The code that an error ends the program with, its message alone; None for a fault, which needs a traceback."""
    on_disk = isinstance(error, OSError) and error.errno in DISK  # met by a library that writes
    code: int | None = getattr(error, "exit_code", WriteError.exit_code if on_disk else None)
    return code


def stop(error: Exception) -> NoReturn:
    """Ends with the error's message alone and its exit code, else 2: it needs no traceback."""
    show(error)
    sys.exit(exit_code(error) or EXIT_CONFIGURATION)


def show(error: Exception) -> None:
    """Prints the error's message alone."""
    label = getattr(error, "label", InkdropError.label)
    print(harmless_lines(masked_text(f"{label}{error}")), file=sys.stderr)


_RANK_ZERO = "lightning.pytorch.utilities.rank_zero"
_LIGHTNING = ("lightning.pytorch", "lightning.fabric")
_CHATTER = ("litlogger", "litmodels", "LOCAL_RANK", "GPU available", "TPU available", "HPU available", "`weights_only`")


def _tells(record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in _CHATTER)


def quiet() -> None:
    """Silences what libraries tell every time and nobody can act on."""
    logging.getLogger(_RANK_ZERO).addFilter(_tells)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    for name in _LIGHTNING:
        logging.getLogger(name).propagate = False  # Lightning prints by itself; Hydra's handler would repeat it
    warnings.filterwarnings("ignore", ".*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")  # a compiler's own question
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated.*")  # Lightning 2.6 on torch 2.15


@contextlib.contextmanager
def quiet_within() -> Iterator[None]:
    """Within the block libraries are silent, as in a command; after it loggers and filters are as they were."""
    import lightning.pytorch  # noqa: F401  which sets the level of its logger

    loggers = [logging.getLogger(name) for name in (_RANK_ZERO, "matplotlib", *_LIGHTNING)]
    before = [(logger, logger.level, logger.propagate, list(logger.filters)) for logger in loggers]
    with warnings.catch_warnings():
        quiet()
        for name in _LIGHTNING:
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level, propagate, filters in before:
                logger.setLevel(level)
                logger.propagate, logger.filters = propagate, filters
