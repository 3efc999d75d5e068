"""The page of `python -m inkdrop describe -m`, from the costs of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from inkdrop.commands.describe.page import big, duration, item, number
from inkdrop.commands.describe.trials import Costs, Setting
from inkdrop.commands.sweep.trials import split
from inkdrop.configuration.secrets import masked_override
from inkdrop.errors import listed

_MOST = 6  # values of an option


def sweep_page(found: Costs) -> str:
    """Returns the page, in Markdown."""
    return "\n".join([f"# sweep of {found.name}\n", *_trials(found), *_table(found), *_total(found)])


def _trials(found: Costs) -> Iterator[str]:
    if found.missing:
        yield item("missing", f"this page does not need it, but the trials do: {found.missing}")
    varies = ", ".join(masked_override(f"{key}={_few(values)}") for key, values in found.varies.items())
    if found.search is None:
        yield item("trials", f"{found.runs}; finished: {len(found.done)}")
    else:
        yield item("trials", f"{_of_a_search(found)}; finished or pruned: {len(found.done)}")
    yield item("what varies", varies or "nothing")
    if found.done:
        yield item("nothing to do", listed(found.done, _MOST))
    for message, names in found.refused.items():
        yield item("cannot work", f"{listed(names, 3)}: {message}")


def _few(values: Sequence[str]) -> str:
    return ",".join(values[:_MOST]) + (f" and {len(values) - _MOST} more" if len(values) > _MOST else "")


def _of_a_search(found: Costs) -> str:
    assert found.search is not None
    chosen = found.search
    if found.runs is None:
        return f"as many as fit into {chosen['hours']:g} hours"
    seeds = f" with {chosen['replicates']} seeds each" if chosen["replicates"] > 1 else ""
    again = f" and {chosen['confirm']} fresh seeds of the best settings" if chosen["confirm"] else ""
    count = f", {found.runs} runs in total" if seeds or again else ""
    until = "" if chosen["hours"] is None else f", or as many as fit into {chosen['hours']:g} hours"
    return f"{chosen['trials']} of sampler {chosen['sampler']}{seeds}{again}{count}{until}"


def _table(found: Costs) -> Iterator[str]:
    if not found.settings:
        return
    columns = ["trials", "setting", "weights", "operations of a step", "memory", "steps", "steps/s", "time of a trial"]
    rows = [_row(each, found.varies) for each in found.settings]
    if found.search is not None:  # these trials are examples
        columns, rows = columns[1:], [row[1:] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    yield ""
    for cells in (columns, ["-" * width for width in widths], *rows):
        yield f"| {' | '.join(text.ljust(width) for text, width in zip(cells, widths, strict=True))} |"
    yield ""


def _row(setting: Setting, varies: Mapping[str, Sequence[str]]) -> list[str]:
    rate = setting.steps_per_second
    return [
        str(len(setting.trials)),
        _label(setting, varies),
        big(setting.parameters),
        "" if setting.operations is None else big(setting.operations, "FLOP"),
        big(setting.memory, "B"),
        f"{setting.steps:,}",
        "" if rate is None else number(rate),
        "" if rate is None else duration(setting.steps / rate),
    ]


def _label(setting: Setting, varies: Mapping[str, Sequence[str]]) -> str:
    """Returns the options whose values do not all occur among the trials of a setting."""
    chosen = [dict(map(split, each.overrides)) for each in setting.trials]
    parts = []
    for key, values in varies.items():
        own = list(dict.fromkeys(each[key] for each in chosen if key in each))
        if len(own) < len(values) or (len(values) == 1 and own != list(values)):  # one value is that of a range
            parts.append(masked_override(f"{key}={','.join(own)}"))
    return " ".join(parts) or "all"


def _total(found: Costs) -> Iterator[str]:
    threads = "" if found.threads is None else f" with {found.threads} thread{'s' * (found.threads != 1)} each"
    places = f"{found.jobs} at a time{threads}"
    if not found.settings:
        yield item("total here", "no trial is left to run")
    elif found.seconds is None:
        yield item("at a time", places)
    else:
        left = sum(len(each.trials) for each in found.settings)
        if found.search is not None and found.runs is not None:
            left = found.runs - len(found.done)
        most = "at most " if found.search is not None and found.search["pruner"] else ""
        yield item(
            "total here",
            f"{most}{duration(found.seconds)} for the {left} trials that are left, {places}; without averages, "
            "pictures and evaluation",
        )
