"""The report as text: Markdown for the terminal and `report.md`, CSV, and a table for LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from inkdrop.commands.report.comparison import Comparison
from inkdrop.commands.report.leaderboard import Setting
from inkdrop.commands.report.statistics import Summary, is_apart
from inkdrop.files.showing import cell, harmless, markdown

_MOST_ROWS, _MOST_OPTIONS = 200, 12  # of a table that is read; the CSV and the page have all
_NUMBER = re.compile(r"[+-]?[\d.]+(e[+-]?\d+)?( ± [\d.]+(e[+-]?\d+)?)?")  # needs no escapes within a table
_NONE = Summary(0, 0.0, None)
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"[": "{[}"}  # which would be an option of the end of the line before
_LATEX |= {each: f"\\{each}" for each in "&%$#_{}"} | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}


def table(report: Comparison) -> list[list[str]]:
    """Returns the leaderboard: a header, a row for each setting, rows for floor and baseline, and the protocols."""
    options = list(report.settings.columns)[:_MOST_OPTIONS]
    metrics = [name for name in report.metrics if not report.is_companion(name)]
    divided = {name for name in metrics if any(row.ratio(name) is not None for row in report.settings.rows)}
    header = [*(report.settings.columns[path] for path in options), *(["folder"] if not options else []), "n"]
    blank = [""] * (len(header) - 1)
    last = [*report.costs, *([f"{metrics[0]} (fresh seeds)"] if report.fresh else [])]
    for name in metrics:
        header += [name, f"{name} / floor"] if name in divided else [name]
    rows = []
    for row in report.rows[:_MOST_ROWS]:
        line = [*([row.values[path] for path in options] or [row.label]), str(len(row.runs))]
        for name in metrics:
            line.append(interval(row.summary(name)))
            if name in divided:
                line.append(shown(row.ratio(name), 3))
        line += [shown(row.cost(name), 4) for name in report.costs]
        rows.append([*line, interval(report.fresh.get(row.label, _NONE))] if report.fresh else line)

    def under_metrics(first: str, values: Iterable[str]) -> list[str]:
        line = [first, *blank]
        for name, value in zip(metrics, values, strict=True):
            line += [value, ""] if name in divided else [value]
        return [*line, *[""] * len(last)]

    for kind in dict.fromkeys(kind for values in report.references.values() for kind in values):
        rows.append(under_metrics(kind, (shown(report.references.get(name, {}).get(kind)) for name in metrics)))
    hashes = [harmless(report.protocol(name).get("hash", "unknown")) for name in metrics]
    return [[*header, *last], *rows, under_metrics("protocol", hashes)]


def markdown_page(report: Comparison) -> str:
    """Returns all tables of the report in Markdown."""
    parts = [_table(table(report)), _protocols(report), _differences(report), _importance(report)]
    parts += [_objectives(report), _front(report), _trials(report), _facts(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def csv_of_settings(report: Comparison) -> str:
    """Returns a row for each setting: options, seeds, and for each metric mean, interval, ratio and protocol."""
    columns = report.settings.columns
    header = [*columns.values(), "n", "seeds", "folders"]
    for name in report.metrics:
        header += [name, f"{name} low", f"{name} high", f"{name} / floor", f"{name} protocol"]
    lines: list[list[Any]] = [[*header, *report.costs]]
    for row in report.rows:
        seeds = " ".join(str(each.seed) for each in row.runs if each.seed is not None)
        line: list[Any] = [*(row.values[path] for path in columns), len(row.runs), seeds]
        line.append(" ".join(each.name for each in row.runs))
        for name in report.metrics:
            found = row.summary(name)
            ends = [None, None] if found.half is None else [found.mean - found.half, found.mean + found.half]
            line += [
                found.mean if found.n else None,
                *ends,
                row.ratio(name),
                report.protocol(name).get("hash", "unknown"),
            ]
        lines.append([*line, *(row.cost(name) for name in report.costs)])
    return _csv(lines)


def csv_of_runs(report: Comparison) -> str:
    """Returns a row for each run: folder, options, seed, metrics and costs."""
    columns = report.settings.columns
    lines: list[list[Any]] = [["folder", *columns.values(), "seed", *report.metrics, *report.costs]]
    for row in report.rows:
        options = [row.values[path] for path in columns]
        for run in row.runs:
            values = [
                *(run.metrics.get(name) for name in report.metrics),
                *(run.costs.get(name) for name in report.costs),
            ]
            lines.append([run.name, *options, run.seed, *values])
    return _csv(lines)


def latex(report: Comparison) -> str:
    """Returns the leaderboard as a table for LaTeX with the package booktabs."""
    header, *rows = table(report)
    body = [" & ".join(map(_latex, line)) + r" \\" for line in rows[: len(report.rows[:_MOST_ROWS])]]
    below = [" & ".join(map(_latex, line)) + r" \\" for line in rows[len(body) :]]
    head = " & ".join(map(_latex, header)) + r" \\"
    begin = rf"\begin{{tabular}}{{{'l' * len(header)}}}"
    lines = [r"% \usepackage{booktabs}", begin, r"\toprule", head, r"\midrule", *body, r"\midrule", *below]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def interval(found: Summary) -> str:
    """Returns a mean with half of its interval, the latter with two digits."""
    if not found.n:
        return ""
    return shown(found.mean) if found.half is None else f"{shown(found.mean)} ± {found.half:.2g}"


def shown(value: float | None, digits: int = 5) -> str:
    """Returns a number with so many significant digits."""
    return "" if value is None else f"{value:.{digits}g}"


def verdict(difference: Summary) -> str:
    """Returns what a difference to the best setting says."""
    apart = is_apart(difference)
    if apart is None:
        return "no equal seeds" if difference.n == 0 else "not known from one seed"
    return "differs" if apart else "cannot be told apart"


def _csv(lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([cell(each) for each in line] for line in lines)
    return text.getvalue()


def _latex(text: str) -> str:
    return re.sub(r"[\\~^&%$#_{}<>|[]", lambda match: _LATEX[match[0]], harmless(text)).replace("±", r"$\pm$")


def _table(lines: Sequence[Sequence[str]]) -> str:
    header, *rows = [[each if _NUMBER.fullmatch(each) else markdown(each) for each in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *rows))


def _protocols(report: Comparison) -> str:
    lines = []
    for metric in report.metrics:
        if report.is_companion(metric):
            continue
        facts = report.protocol(metric)
        described = ", ".join(f"{markdown(name)} {markdown(value)}" for name, value in facts.items() if name != "hash")
        lines.append(f"{markdown(metric)}: protocol {markdown(facts.get('hash', 'unknown'))}: {described}")
    more = len(report.rows) - _MOST_ROWS
    if more > 0:
        lines.append(f"{more} further settings are in report.csv and report.html.")
    lines += [
        f"{markdown(one)} repeats {markdown(other)} and is not counted." for one, other in report.settings.repeats
    ]
    return "\n\n".join(lines)


def _differences(report: Comparison) -> str:
    metric = report.metrics[0]
    found = report.differences(metric) if len(report.rows) > 1 else []
    if not any(difference.half is not None for _, difference in found):
        return ""
    rows = [
        [row.label, str(difference.n), _signed(difference), verdict(difference)]
        for row, difference in found[:_MOST_ROWS]
    ]
    best = markdown(report.best(metric).label)
    head = f"Differences of {markdown(metric)} to the best setting, {best}, over equal seeds, with 95% intervals:"
    return f"{head}\n\n{_table([['setting', 'seeds', 'difference', 'verdict'], *rows])}"


def _signed(difference: Summary) -> str:
    if not difference.n:
        return ""
    return f"{difference.mean:+.4g}" + ("" if difference.half is None else f" ± {difference.half:.2g}")


def _importance(report: Comparison) -> str:
    options, seeds = report.importance(report.metrics[0])
    if not options:
        return ""
    rows = [[each.option, str(each.levels), f"{each.share:.0%}", each.best] for each in options[:_MOST_OPTIONS]]
    if seeds is not None:
        rows.append(["(seeds)", "", f"{seeds:.0%}", ""])
    head = (
        f"Share of the variance of {markdown(report.metrics[0])} that each option explains (epsilon squared of ranks):"
    )
    return f"{head}\n\n{_table([['option', 'values', 'share', 'best'], *rows])}"


def _objectives(report: Comparison) -> str:
    """Returns the settings that are best in some trade of several objectives, as a search ends with them."""
    names = report.objectives
    if len(names) < 2:
        return ""
    found: list[Setting] = report.best_in(names)
    rows = [[row.label, *(interval(row.summary(name)) for name in names)] for row in found[:_MOST_ROWS]]
    head = f"Pareto front of {' and '.join(map(markdown, names))}, {len(found)} of {len(report.rows)} settings:"
    return f"{head}\n\n{_table([['setting', *names], *rows])}"


def _front(report: Comparison) -> str:
    if report.cost is None:
        return ""
    rows: list[Setting] = report.front(report.metrics[0], report.cost)
    labels = [f"{markdown(row.label)} ({shown(row.cost(report.cost), 4)})" for row in rows[:20]]
    return f"Pareto front of {markdown(report.metrics[0])} against {report.cost}: {'; '.join(labels)}"


def _trials(report: Comparison) -> str:
    if not report.trials:
        return ""
    rows = [[each.name, each.state, each.reason] for each in report.trials[:_MOST_ROWS]]
    return f"Without a result:\n\n{_table([['trial', 'state', 'reason'], *rows])}"


def _facts(report: Comparison) -> str:
    lines = []
    for name, values in report.facts.items():
        if len(values) > 1:
            each = ", ".join(f"{markdown(value)} ({count})" for value, count in values[:8])
            lines.append(f"The results differ in {markdown(name)}: {each}")
    shared = {name: values[0][0] for name, values in report.facts.items() if len(values) == 1}
    same = [markdown(f"{name} {value}") for name, value in [*shared.items()][:20]]
    return "\n\n".join([*lines[:20], *([f"All results: {', '.join(same)}"] if same else [])])
