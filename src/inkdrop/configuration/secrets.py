"""Masks the secrets of a configuration in files and output: values from the environment, keys, tokens, passwords."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError
from omegaconf.resolvers import oc

MASK = "***"
_NAME = r"(?<![A-Za-z0-9])(?:\w+_)?(?:key|token|secret|password)s?"  # hf_token, but not token_dim
_SECRET = re.compile(rf"{_NAME}$", re.IGNORECASE)
_NO_COUNT = re.compile(r"(?:^|_)(?:api|auth|access|hf|user)_?(?:key|token)s?$|(?:secret|password)s?$", re.IGNORECASE)
_OVERRIDE = re.compile(rf"([+~]*[\w.@/-]*{_NAME}\s*=).*", re.IGNORECASE | re.DOTALL)
_ASSIGNED = re.compile(  # full_key is OmegaConf's word for a path
    rf"((?<!full_)(?!full_key\b){_NAME}[\"']?\s*[:=]\s*)(?:\"[^\"]*\"|'[^']*'|\[[^\]]*\]|\{{[^}}]*\}}|[^\s,}}\]\"']+)",
    re.IGNORECASE,
)
# References that may read the environment: directly, by decoding a text, or by a resolver with a name that is resolved.
_READING = re.compile(r"\$\{.*(?:env|decode)|\$\{[^:}]*\$\{", re.DOTALL)

Path = tuple[str | int, ...]


def masked(plain: Any, from_environment: set[Path], path: Path = ()) -> Any:
    """Returns a copy of a plain configuration with `***` for secrets and for values from the environment (by path)."""
    if path in from_environment:
        return MASK
    if isinstance(plain, list):
        return [masked(each, from_environment, (*path, i)) for i, each in enumerate(plain)]
    if isinstance(plain, dict):
        return {key: masked(value, from_environment, (*path, key)) for key, value in plain.items()}
    named = next((part for part in reversed(path) if isinstance(part, str)), "")
    if isinstance(plain, str) and _SECRET.search(named):
        return MASK
    number = isinstance(plain, int | float) and not isinstance(plain, bool)
    return MASK if number and _NO_COUNT.search(named) else plain


def masked_text(text: str) -> str:
    """Returns a text with `***` for each value assigned to the name of a secret: `{api_key: abc}`, `token=abc`."""
    return _ASSIGNED.sub(rf"\1{MASK}", text)


def masked_override(override: str) -> str:
    """Does the same for an override of the command line, which may have any value."""
    match = _OVERRIDE.fullmatch(override)
    return f"{match[1]}{MASK}" if match else masked_text(override)


def masked_sweep(config: DictConfig) -> Any:
    """Returns the configuration that Hydra writes for a sweep, plain, with unresolved references and masked secrets."""

    def texts(node: Any) -> Any:
        if isinstance(node, list):
            return [texts(each) for each in node]
        if isinstance(node, dict):
            return {key: texts(value) for key, value in node.items()}
        return masked_override(node) if isinstance(node, str) else node

    return texts(masked(OmegaConf.to_container(config, resolve=False), set()))


class Masking(logging.Filter):
    """A logging filter that masks secrets in messages, such as the overrides of each trial."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if (shown := " ".join(map(masked_override, message.split(" ")))) != message:
            record.msg, record.args = shown, ()
        return True


@contextmanager
def hiding(config: DictConfig) -> Iterator[None]:
    """Masks values from the environment in the message of a `ValueError` that is raised within the block."""
    try:
        yield
    except ValueError as error:
        values = {str(OmegaConf.select(config, _joined(path))) for path in from_environment(config)}
        text = str(error)
        for value in sorted(filter(None, values), key=len, reverse=True):
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])", MASK, text)
        error.args = (text,)
        raise


def _joined(path: Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def refuse_masked(plain: Any, path: str = "") -> None:
    """Raises `ValueError` for a value that was masked in the file that the configuration comes from."""
    if isinstance(plain, dict):
        for key, value in plain.items():
            refuse_masked(value, f"{path}.{key}" if path else str(key))
    elif plain == MASK:
        raise ValueError(f"{path}={MASK} stands for a secret or a value from the environment: set it again")


def from_environment(config: DictConfig) -> set[Path]:
    """Returns the paths of the values that depend on `${oc.env:...}`, directly or through references."""
    if not _may_read_environment(OmegaConf.to_container(config, resolve=False)):  # else all is resolved again
        return set()
    with _counted() as count:
        return set(_tainted(config, (), count))


def _may_read_environment(node: Any) -> bool:
    if isinstance(node, str):
        return _READING.search(node) is not None
    below = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return any(map(_may_read_environment, below))


def _tainted(node: DictConfig | ListConfig, path: Path, count: Callable[[], int]) -> Iterator[Path]:
    keys: Any = range(len(node)) if isinstance(node, ListConfig) else [key for key in node if key != "hydra"]
    for key in keys:
        before = count()
        try:
            value = node[key]
        except InterpolationResolutionError:  # such as a part of data.shape, which is read from the data later
            value = None
        if count() > before:
            yield (*path, key)
        elif isinstance(value, DictConfig | ListConfig):
            yield from _tainted(value, (*path, key), count)


@contextmanager
def _counted() -> Iterator[Callable[[], int]]:
    """Counts how often the environment is read while references are resolved."""
    calls = [0]

    def env(*arguments: Any) -> str | None:
        calls[0] += 1
        return oc.env(*arguments)

    OmegaConf.register_new_resolver("oc.env", env, replace=True)
    try:
        yield lambda: calls[0]
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
