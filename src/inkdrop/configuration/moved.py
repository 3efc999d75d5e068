"""Old names in files of earlier versions and in commands, and their names today."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

# Modules.
MOVED = {
    "classifier": "models.classifier",
    "experiment": "commands.check",
    "masking": "configuration.secrets",
    "metrics.distances": "metrics.frechet",
    "self_conditioning": "denoiser",
}
# Guides as choices and options. Classes keep their names, and protocols have the earlier name of a guide: their hashes
# hold.
GUIDES = {"clip": "static_threshold"}
_CLIP = "inkdrop.guidance.Clip"
_OPTION = re.compile(rf"^([+~]*guidance\.)({'|'.join(GUIDES)})(?=[.=]|$)")


def renamed_guides(guides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns guides under their present names; options of one under both names are those of one guide."""
    renamed: dict[str, Any] = {}
    for name, node in guides.items():
        now = GUIDES[name] if name in GUIDES and _is_of_inkdrop(node) else name
        both = isinstance(node, Mapping) and isinstance(renamed.get(now), Mapping)
        renamed[now] = {**renamed[now], **node} if both else node
    return renamed


def _is_of_inkdrop(guide: Any) -> bool:
    """Returns whether a guide under an earlier name can be the one that had it, and not one of the user's own."""
    return not isinstance(guide, Mapping) or guide.get("_target_", _CLIP) == _CLIP


def renamed(node: Any) -> Any:
    """Returns a plain configuration in which all guides have their present names."""
    if isinstance(node, list):
        return [renamed(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    below = {name: renamed(each) for name, each in node.items()}
    if isinstance(guides := below.get("guidance"), Mapping):
        below["guidance"] = renamed_guides(guides)
    return below


def renamed_options(overrides: Iterable[str]) -> list[str]:
    """Returns options of a command line with the present names of guides."""
    return [_OPTION.sub(lambda match: match[1] + GUIDES[match[2]], each) for each in overrides]


def hashed_guides(guidance: Any) -> Any:
    """Returns guidance with guides under the names by which protocols are hashed, which are the earliest."""
    earlier = {now: name for name, now in GUIDES.items()}
    if not isinstance(guidance, Mapping):
        return guidance
    return {earlier.get(name, name): node for name, node in guidance.items()}
