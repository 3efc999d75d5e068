"""The options of a choice of a group, as `conf/` has them."""

from __future__ import annotations

from typing import Any

from inkdrop.configuration.compose import CONF
from inkdrop.files import read_yaml


def choice(group: str, name: str) -> dict[str, Any]:
    """Returns the options of `group=name` without those that other files add."""
    content: dict[str, Any] = read_yaml(CONF / group / f"{name}.yaml")
    content.pop("defaults", None)
    return content
