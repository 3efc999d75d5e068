"""What a sweep optimizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inkdrop.errors import ConfigurationError
from inkdrop.files.value_names import metric_of


@dataclass(frozen=True)
class Objective:
    """A metric that is optimized: the lowest value is best, or the highest for a name that was written as "-NAME"."""

    name: str
    highest: bool = False

    @property
    def direction(self) -> str:
        """The direction as Optuna calls it."""
        return "maximize" if self.highest else "minimize"

    def require_direction(self, result: Mapping[str, Any]) -> None:
        """Raises `ConfigurationError` if a `result.json` says that higher values are better, not lower ones."""
        if self.highest:
            return
        metrics = (result.get("protocol") or {}).get("metrics") or {}
        if (metrics.get(metric_of(self.name)) or {}).get("better") == "higher":
            raise ConfigurationError(
                f"objective={self.name} would search for the lowest value, but higher ones are better: write "
                f"objective=-{self.name}"
            )


def objectives_of(names: Any) -> list[Objective]:
    """Returns the objectives that the option `objective` names: one name, or several."""
    given = [names] if isinstance(names, str) else list(names or ())
    return [Objective(each.removeprefix("-"), each.startswith("-")) for each in map(str, given)]
