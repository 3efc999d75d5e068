"""The exit of a command after an error, and the output of libraries."""

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
    """Returns the exit code of an error that is shown by its message, or None for a bug, which needs a traceback."""
    on_disk = isinstance(error, OSError) and error.errno in DISK  # raised by a library that writes
    code: int | None = getattr(error, "exit_code", WriteError.exit_code if on_disk else None)
    return code


def stop(error: Exception) -> NoReturn:
    """Ends the program with the error's message, without a traceback, and with its exit code or else 2."""
    show(error)
    sys.exit(exit_code(error) or EXIT_CONFIGURATION)


def show(error: Exception) -> None:
    """Prints the error's message without a traceback."""
    label = getattr(error, "label", InkdropError.label)
    print(harmless_lines(masked_text(f"{label}{error}")), file=sys.stderr)


_RANK_ZERO = "lightning.pytorch.utilities.rank_zero"
_LIGHTNING = ("lightning.pytorch", "lightning.fabric")
_CHATTER = ("litlogger", "litmodels", "LOCAL_RANK", "GPU available", "TPU available", "HPU available", "`weights_only`")


def _is_useful(record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in _CHATTER)


def quiet() -> None:
    """Silences messages that libraries print in every run and that need no action."""
    logging.getLogger(_RANK_ZERO).addFilter(_is_useful)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    for name in _LIGHTNING:
        logging.getLogger(name).propagate = False  # Lightning prints them itself; Hydra would repeat them
    warnings.filterwarnings("ignore", ".*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")  # models within others are
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")  # asked by the compiler
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated.*")  # Lightning 2.6 on torch 2.15


@contextlib.contextmanager
def quiet_within() -> Iterator[None]:
    """Silences libraries within the block, as in a command, and restores loggers and filters after it."""
    import lightning.pytorch  # noqa: F401  sets the level of its logger

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
