"""What of a configuration is not written down: values from the environment, and keys, tokens, secrets and passwords."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError
from omegaconf.resolvers import oc

MASK = "***"
_SECRET = re.compile(r"(^|_)(key|token|secret|password)s?$", re.IGNORECASE)  # hf_token, but not token_dim

Path = tuple[str | int, ...]


def masked(plain: Any, from_environment: set[Path], path: Path = ()) -> Any:
    """A copy of a plain configuration in which secrets are `***`; paths from the environment are secrets too."""
    if path in from_environment:
        return MASK
    if isinstance(plain, list):
        return [masked(each, from_environment, (*path, i)) for i, each in enumerate(plain)]
    if isinstance(plain, dict):
        return {key: masked(value, from_environment, (*path, key)) for key, value in plain.items()}
    named = next((part for part in reversed(path) if isinstance(part, str)), "")
    return MASK if isinstance(plain, str) and _SECRET.search(named) else plain


def refuse_masked(plain: Any, path: str = "") -> None:
    """`ValueError` for a value that was masked in the record that a configuration is from."""
    if isinstance(plain, dict):
        for key, value in plain.items():
            refuse_masked(value, f"{path}.{key}" if path else str(key))
    elif plain == MASK:
        raise ValueError(f"{path}={MASK} stands for a secret, or a value from the environment: give it again")


def from_environment(config: DictConfig) -> set[Path]:
    """Paths of the values that `${oc.env:...}` has a part in, directly or by references."""
    with _counted() as count:
        return set(_tainted(config, (), count))


def _tainted(node: DictConfig | ListConfig, path: Path, count: Callable[[], int]) -> Iterator[Path]:
    keys: Any = range(len(node)) if isinstance(node, ListConfig) else [key for key in node if key != "hydra"]
    for key in keys:
        before = count()
        try:
            value = node[key]
        except InterpolationResolutionError:  # such as a part of data.shape, which the data themselves will say
            value = None
        if count() > before:
            yield (*path, key)
        elif isinstance(value, DictConfig | ListConfig):
            yield from _tainted(value, (*path, key), count)


@contextmanager
def _counted() -> Iterator[Callable[[], int]]:
    """Counts how often the environment is looked at while references are followed."""
    calls = [0]

    def env(*arguments: Any) -> str | None:
        calls[0] += 1
        return oc.env(*arguments)

    OmegaConf.register_new_resolver("oc.env", env, replace=True)
    try:
        yield lambda: calls[0]
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
