"""The report as one HTML page that opens offline: a table that sorts, filters and expands, charts and samples.

The page has no address of anything outside it, and its content policy allows no request. Texts of files are in it as
JSON, in which `<` is escaped, and its script shows them as text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inkdrop.commands.report.comparison import Comparison
from inkdrop.commands.report.curves import Curve
from inkdrop.commands.report.figures import COLOURS
from inkdrop.commands.report.leaderboard import Setting
from inkdrop.commands.report.texts import verdict
from inkdrop.files.showing import harmless

WEB = Path(__file__).parent / "web"
# What is bundled of the packages tabulator-tables 6.5.3 and uplot 1.6.32 of npm: names of the files, and their SHA-256.
LIBRARIES = {
    "tabulator.min.js": "ffac518cb793c672a2f0522b7fc80bf862234d96bb1e581c8aaf7f48f130eafa",
    "tabulator_simple.min.css": "edef8839235a4b6a8c3dc391ec93f2ce1bc633dd5270a5f990753b6f9183d32b",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
LICENCES = ("LICENSE.tabulator.txt", "LICENSE.uPlot.txt")
_MOST_METRICS, _MOST_ROWS, _MOST_CURVES = 24, 2000, 60  # on the page
_DIGITS, _DIGITS_OF_CURVES = 7, 4
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<!--
{licences}
-->
{styles}
</head>
<body>
<div id="report"></div>
<noscript>This page needs JavaScript; report.md has the same tables.</noscript>
<script type="application/json" id="content">{content}</script>
{scripts}
</body>
</html>
"""


def html_page(report: Comparison, pictures: Mapping[str, bytes]) -> str:
    """Returns the page; `pictures` are image files of samples by the labels of their settings."""
    scripts = [_script(name) for name in ("tabulator.min.js", "uPlot.iife.min.js", "report.js")]
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:"
    return _PAGE.format(
        policy=f"{policy}; base-uri 'none'; form-action 'none'",
        title=html.escape(f"inkdrop: {report.title}"),
        licences="\n".join((WEB / name).read_text().replace("--", "- -") for name in LICENCES),
        styles="\n".join(
            f"<style>{_read(name)}</style>" for name in ("tabulator_simple.min.css", "uPlot.min.css", "report.css")
        ),
        content=_json(content(report, pictures)),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def content(report: Comparison, pictures: Mapping[str, bytes]) -> dict[str, Any]:
    """Returns all that the page shows, as plain data; settings are named by their places in `rows`."""
    rows = report.rows[:_MOST_ROWS]
    metrics = [*sorted(report.metrics, key=report.is_companion)][:_MOST_METRICS]
    main = [name for name in metrics if not report.is_companion(name)]
    places = {row.label: place for place, row in enumerate(rows)}
    return {
        "title": report.title,
        "colours": COLOURS,
        "options": [*report.settings.columns.values()],
        "metrics": [_metric(report, name) for name in metrics],
        "costs": report.costs,
        "cost": report.cost,
        "fresh": {
            str(places[label]): [_number(each.mean), _number(each.half)]
            for label, each in report.fresh.items()
            if label in places
        },
        "rows": [_row(report, row, metrics, pictures.get(row.label)) for row in rows],
        "differences": {name: _differences(report, name, places) for name in main},
        "importance": {name: _importance(report, name) for name in main},
        "fronts": {name: _fronts(report, name, places) for name in main},
        "objectives": report.objectives if len(report.objectives) > 1 else [],
        "best": [places[row.label] for row in report.best_in(report.objectives) if row.label in places],
        "curves": {name: _curves(each, places) for name, each in [*report.curves.items()][:_MOST_METRICS]},
        "trials": [[each.name, each.state, each.reason] for each in report.trials[:_MOST_ROWS]],
        "facts": [[name, values[:20]] for name, values in [*report.facts.items()][:100]],
        "notes": [
            *(harmless(text) for text in report.unreadable[:100]),
            *(f"{one} repeats {other} and is not counted" for one, other in report.settings.repeats[:100]),
        ],
    }


def _metric(report: Comparison, name: str) -> dict[str, Any]:
    facts = report.protocol(name)
    return {
        "name": name,
        "higher": report.is_higher_better(name),
        "companion": report.is_companion(name),
        "references": {kind: _number(value) for kind, value in report.references.get(name, {}).items()},
        "hash": harmless(facts.get("hash", "")),
        "described": ", ".join(f"{harmless(key)} {harmless(value)}" for key, value in facts.items() if key != "hash"),
    }


def _row(report: Comparison, row: Setting, metrics: Sequence[str], picture: bytes | None) -> dict[str, Any]:
    summaries = [row.summary(name) for name in metrics]
    shown = {
        "id": row.label,
        "values": list(row.values.values()),
        "n": len(row.runs),
        "mean": [_number(each.mean) if each.n else None for each in summaries],
        "half": [_number(each.half) for each in summaries],
        "ratio": [_number(row.ratio(name), 4) for name in metrics],
        "cost": [_number(row.cost(name), 5) for name in report.costs],
        "runs": [
            {
                "name": harmless(run.name),
                "seed": None if run.seed is None else str(run.seed),
                "mean": [_number(run.metrics.get(name)) for name in metrics],
                "cost": [_number(run.costs.get(name), 5) for name in report.costs],
            }
            for run in row.runs
        ],
    }
    if picture is not None:
        kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
        shown["picture"] = f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
    return shown


def _differences(report: Comparison, metric: str, places: Mapping[str, int]) -> dict[str, Any]:
    return {
        "best": places.get(report.best(metric).label),
        "rows": [
            [places[row.label], each.n, _number(each.mean) if each.n else None, _number(each.half), verdict(each)]
            for row, each in report.differences(metric)
            if row.label in places
        ],
    }


def _fronts(report: Comparison, metric: str, places: Mapping[str, int]) -> dict[str, list[int]]:
    """Returns the Pareto fronts of a metric against each cost and against each other objective."""
    found = {cost: report.front(metric, cost) for cost in report.costs}
    found |= {other: report.best_in([other, metric]) for other in report.objectives if other != metric}
    return {name: [places[row.label] for row in rows if row.label in places] for name, rows in found.items()}


def _importance(report: Comparison, metric: str) -> dict[str, Any]:
    options, seeds = report.importance(metric)
    return {
        "options": [[each.option, each.levels, _number(each.share, 3), each.best] for each in options],
        "seeds": _number(seeds, 3),
    }


def _curves(curves: Mapping[str, Curve], places: Mapping[str, int]) -> dict[str, Any]:
    """Returns the curves by the places of their settings; lists of steps that several share are written once."""
    steps: list[list[int]] = []
    lines: dict[str, Any] = {}
    for label, curve in [*curves.items()][:_MOST_CURVES]:
        if label not in places:
            continue
        if curve.steps not in steps:
            steps.append(curve.steps)
        parts = [curve.mean] if curve.low == curve.high else [curve.mean, curve.low, curve.high]
        values = [[_number(value, _DIGITS_OF_CURVES) for value in part] for part in parts]
        lines[str(places[label])] = [steps.index(curve.steps), *values]
    return {"steps": steps, "lines": lines}


def _number(value: float | None, digits: int = _DIGITS) -> float | str | None:
    """Returns a rounded number; JSON has none for infinity and nan, which are texts."""
    if value is None:
        return None
    return float(f"{value:.{digits}g}") if math.isfinite(value) else str(value)


def _json(content: Mapping[str, Any]) -> str:
    """Returns JSON in which nothing ends the element that it is in, or begins a comment or another element."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(name: str) -> str:
    """Returns a file of the page without the address of its source map, which a browser would ask for."""
    return re.sub(
        r"//# sourceMappingURL=\S*|/\*# sourceMappingURL=.*?\*/", "", (WEB / name).read_text(encoding="utf-8")
    )


def _script(name: str) -> str:
    """Returns a script without an end tag in it."""
    return _read(name).replace("</script", "<\\/script")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
