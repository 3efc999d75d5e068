"""Writes the report to a folder, in each of its formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inkdrop.commands.report.comparison import Comparison
from inkdrop.commands.report.html import html_page
from inkdrop.commands.report.strips import pictures_of, representatives, strips_of
from inkdrop.commands.report.texts import csv_of_runs, csv_of_settings, latex, markdown_page
from inkdrop.files.writing import replacing, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write(report: Comparison, folder: Path) -> list[Path]:
    """Writes `report.md`, `.csv`, `.tex` and `.html`, `report_runs.csv`, and the plots that there are; returns them."""
    runs = representatives(report.rows)
    strips = strips_of(runs)
    texts = {
        "report.html": html_page(report, pictures_of(runs, strips)),
        "report.md": markdown_page(report),
        "report.csv": csv_of_settings(report),
        "report_runs.csv": csv_of_runs(report),
        "report.tex": latex(report),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    files = [folder / name for name in texts]
    from inkdrop.commands.report.figures import overview
    from inkdrop.commands.report.figures import strips as drawn

    calls = {row.label: row.cost("network calls") for row in report.rows}
    named = {f"{label}, {calls[label]:g} calls" if calls[label] else label: each for label, each in strips.items()}
    for name, figure in (("report.png", overview(report)), ("strips.png", drawn(named) if strips else None)):
        if figure is not None:
            files.append(_save(figure, folder / name))
    return files


def _save(figure: Figure, file: Path) -> Path:
    with replacing(file) as stream:
        figure.savefig(stream)
    return file
