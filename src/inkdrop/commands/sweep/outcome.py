"""What a search has found: the best settings, with fresh seeds too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inkdrop.commands.report.statistics import summary
from inkdrop.commands.sweep.objectives import Objective
from inkdrop.commands.sweep.space import Space
from inkdrop.commands.sweep.study import trials_of
from inkdrop.commands.sweep.trials import FINISHED, Trial
from inkdrop.configuration.secrets import masked_override
from inkdrop.configuration.suggestions import command, words
from inkdrop.files.showing import harmless, markdown


def best_of(study: Any, objectives: Sequence[Objective]) -> list[Any]:
    """Returns the complete trials of the study, the best ones first; for several objectives those of the front."""
    if len(objectives) > 1:
        return list(study.best_trials)
    complete = [each for each in trials_of(study) if each.state.name == "COMPLETE"]
    sign = -1 if objectives[0].highest else 1
    return sorted(complete, key=lambda each: sign * each.values[0])


def page(
    study: Any, space: Space, objectives: Sequence[Objective], sampler: str, confirmed: Mapping[int, Sequence[Trial]]
) -> str:
    """Returns what a search has found, as text.

    - `study`: the study.
    - `space`: what was varied.
    - `objectives`: what was optimized.
    - `sampler`: name of the method.
    - `confirmed`: runs with fresh seeds by the number of the trial.
    """
    states = [each.state.name for each in trials_of(study)]
    counts = ", ".join(f"{states.count(name)} {name.lower()}" for name in ("COMPLETE", "PRUNED", "FAIL", "RUNNING"))
    lines = [f"search     {sampler}, {len(states)} trials: {counts}"]
    if best := best_of(study, objectives)[:10]:
        lines += ["", *_table(space, objectives, best, confirmed), ""]
        overrides = [each for each in space.overrides(best[0].params) if not each.startswith("output_dir=")]
        lines.append(f"now try    {command('train')} {words(map(masked_override, overrides))}")
    return "\n".join(lines) + "\n"


def _table(
    space: Space, objectives: Sequence[Objective], best: Sequence[Any], confirmed: Mapping[int, Sequence[Trial]]
) -> list[str]:
    names = [each.name for each in objectives]
    fresh = [f"{each} (fresh seeds)" for each in names] if confirmed else []
    header = [*map(markdown, ["trial", *space.names, *names, *fresh])]
    rows = []
    for each in best:
        runs = [run for run in confirmed.get(each.number, ()) if run.state == FINISHED]
        again = (
            [_with_interval([run.objective[goal] for run in runs]) for goal in range(len(names))] if confirmed else []
        )
        values = [f"{value:.5g}" for value in each.values]
        rows.append([str(each.number), *(_short(each.params[name]) for name in space.names), *values, *again])
    lines = ["| " + " | ".join(row) + " |" for row in (header, *rows)]
    return [lines[0], "| " + " | ".join(["---"] * len(header)) + " |", *lines[1:]]


def _with_interval(values: Sequence[float]) -> str:
    if not values:
        return ""
    found = summary(values)
    half = "" if found.half is None else f" ± {found.half:.2g}"
    return f"{found.mean:.5g}{half} (n={found.n})"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else markdown(harmless(value, 60))
