"""Results side by side, from the `result.json` of each."""

from inkdrop.commands.report.page import Report, report
from inkdrop.commands.report.results import Result

__all__ = ["Report", "Result", "report"]
