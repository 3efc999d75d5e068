"""The space of a search, from Hydra's grammar: `choice(a,b)`, `range(1,9)`, `interval(1e-4,1e-1)`, `tag(log,...)`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from inkdrop.errors import ConfigurationError

_TAGS = ("log", "int")


@dataclass(frozen=True)
class Space:
    """What a search varies, and what stays.

    - `fixed`: options of every trial.
    - `choices`: texts of the values by option.
    - `ranges`: lowest value, highest value, step and whether the values are integers, by option; a step of None is any.
    - `log`: options that are varied on a logarithmic scale.
    """

    fixed: list[str]
    choices: dict[str, list[str]]
    ranges: dict[str, tuple[float, float, float | None, bool]]
    log: frozenset[str]

    @property
    def names(self) -> list[str]:
        """The options that are varied."""
        return [*self.choices, *self.ranges]

    @property
    def is_finite(self) -> bool:
        """Whether the space has a finite number of points."""
        return all(step is not None for _, _, step, _ in self.ranges.values())

    def distributions(self) -> dict[str, Any]:
        """Returns the distributions of Optuna by option."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        made: dict[str, Any] = {name: CategoricalDistribution(values) for name, values in self.choices.items()}
        for name, (low, high, step, whole) in self.ranges.items():
            log = name in self.log
            if whole:
                made[name] = IntDistribution(int(low), int(high), log=log, step=int(step or 1))
            else:
                made[name] = FloatDistribution(low, high, log=log, step=step)
        return made

    def grid(self) -> dict[str, list[Any]]:
        """Returns all values by option; the space must be finite."""
        values: dict[str, list[Any]] = {name: list(each) for name, each in self.choices.items()}
        for name, (low, high, step, whole) in self.ranges.items():
            assert step is not None
            count = int((high - low) / step + 1e-9) + 1
            values[name] = [int(low + n * step) if whole else low + n * step for n in range(count)]
        return values

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """Returns the options of a trial with these values."""
        return [*self.fixed, *(f"{name}={values[name]}" for name in self.names)]

    def samples(self) -> list[list[str]]:
        """Returns the options of a few trials that together have each choice, and both ends of each range."""
        columns = {
            **self.choices,
            **{name: _ends(low, high, whole) for name, (low, high, _, whole) in self.ranges.items()},
        }
        most = max(map(len, columns.values()))
        return [self.overrides({name: each[row % len(each)] for name, each in columns.items()}) for row in range(most)]


def _ends(low: float, high: float, whole: bool) -> list[str]:
    return [str(int(low)), str(int(high))] if whole else [str(low), str(high)]


def read(arguments: Sequence[str], loader: Any = None) -> Space:
    """Returns the space of options; raises `ConfigurationError` if nothing varies or a part cannot be searched."""
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(list(arguments))
    fixed: dict[str, str] = {}
    choices: dict[str, list[str]] = {}
    ranges: dict[str, tuple[float, float, float | None, bool]] = {}
    log = set()
    for each in overrides:
        name = each.get_key_element()
        for kind in (fixed, choices, ranges):
            kind.pop(name, None)  # the last one counts
        if not each.is_sweep_override():
            fixed[name] = f"{name}={each.get_value_element_as_str()}"
            continue
        tags = _tags(each)
        if isinstance(value := each.value(), ChoiceSweep):
            choices[name] = list(dict.fromkeys(map(str, each.sweep_string_iterator())))
        elif isinstance(value, IntervalSweep | RangeSweep):
            ranges[name] = _range(name, value, "int" in tags)
        else:
            raise ConfigurationError(f"{each.input_line}: a search varies choice, range and interval, or values a,b")
        if "log" in tags:
            if name in choices or ranges[name][0] <= 0 or (ranges[name][2] is not None and not ranges[name][3]):
                raise ConfigurationError(f"{each.input_line}: tag(log,...) needs an interval above 0")
            log.add(name)
    if not choices and not ranges:
        raise ConfigurationError(
            "a search needs options that vary, such as 'optimizer.lr=tag(log,interval(1e-4,1e-1))' or "
            "network.base_channels=16,32"
        )
    return Space(list(fixed.values()), choices, ranges, frozenset(log))


def _tags(override: Override) -> set[str]:
    tags = set(getattr(override.value(), "tags", ()))
    if unknown := sorted(tags - set(_TAGS)):
        raise ConfigurationError(f"{override.input_line}: unknown tag {unknown[0]}: available: {', '.join(_TAGS)}")
    return tags


def _range(name: str, value: IntervalSweep | RangeSweep, tagged: bool) -> tuple[float, float, float | None, bool]:
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        whole = tagged or (isinstance(low, int) and isinstance(high, int) and not isinstance(low, bool))
        step: float | None = 1 if whole else None
    else:
        assert value.start is not None
        assert value.stop is not None
        low, step = value.start, value.step
        whole = all(isinstance(each, int) for each in (value.start, value.stop, value.step))
        count = -int(-(value.stop - value.start) / value.step // 1)  # the end is not part of a range
        high = value.start + (count - 1) * value.step
    if low is None or high is None or not low <= high:
        raise ConfigurationError(f"{name}: the end of an interval must not be below its start")
    return float(low), float(high), step, whole


def seeded(seed: int, number: int) -> int:
    """Returns a seed that is a function of a seed and a number, and differs for neighbouring numbers."""
    return random.Random(f"{seed} {number}").randrange(2**31)
