"""Results side by side, from the `result.json` of each."""

from inkdrop.report.page import Report, report
from inkdrop.report.results import Result

__all__ = ["Report", "Result", "report"]
