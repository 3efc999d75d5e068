"""Checks plain configuration against the signatures of allowed targets, and builds objects from it.

A node with `_target_` names a class or function by its import path, and the other keys are its arguments. The signature
of the target, with its annotated ranges, is the schema. `_partial_: true` makes a `functools.partial` of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inkdrop.configuration.building import CHECKPOINT_TARGETS, USER_TARGETS, build
    from inkdrop.configuration.schema import arguments, check
    from inkdrop.configuration.settings import check_settings
    from inkdrop.errors import ConfigurationError

__all__ = [
    "CHECKPOINT_TARGETS",
    "USER_TARGETS",
    "ConfigurationError",
    "arguments",
    "build",
    "check",
    "check_settings",
]
_PLACES = {"arguments": "schema", "check": "schema", "check_settings": "settings"}


def __getattr__(name: str) -> Any:
    # Help and suggestions are in this package too, and must not wait for the import of pydantic and torch.
    if name in __all__:
        return getattr(importlib.import_module(f"inkdrop.configuration.{_PLACES.get(name, 'building')}"), name)
    raise AttributeError(f"module 'inkdrop.configuration' has no attribute '{name}'")
