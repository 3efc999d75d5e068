"""Names of the values in `result.json`: which are floors, intervals and variants of a metric.

This module imports only the standard library, so that results can be compared without torch.
"""

from __future__ import annotations

import re

_DERIVED = re.compile(r"(_floor(_\d+k?)?|_baseline(_[a-z_]+)?|_low|_high|_min|_max)?(@.*)?$")
_REFERENCE = re.compile(r"_(floor(?:_\d+k?)?|baseline(?:_[a-z_]+)?)$")


def metric_of(name: str) -> str:
    """Returns the metric of a value: floors, intervals and variants share the protocol of the metric itself."""
    return _DERIVED.sub("", name)


def reference_of(name: str) -> tuple[str, str] | None:
    """Returns the metric and the kind, `floor`, `floor of 10k` or `baseline`, of a value that is not of samples."""
    match = _REFERENCE.search(name)
    return None if match is None else (name[: match.start()], match[1].replace("_", " of ", 1))
