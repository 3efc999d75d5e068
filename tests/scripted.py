"""What starts the jobs of a sweep, without processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inkdrop.commands.sweep.starters import Job, Starter


class Scripted(Starter):
    """Ends each job at once, as a list says, after it has done what a run would do."""

    def __init__(self, codes: Sequence[int], does: Callable[[Job], None] = lambda job: None):
        self.codes, self.does = list(codes), does
        self.jobs: list[Job] = []
        self.signals: list[tuple[int, int]] = []
        self.most = self._count = 0
        self._ended: list[tuple[int, int]] = []

    def start(self, job: Job) -> int:
        self.jobs.append(job)
        self.does(job)
        self._ended.append((len(self.jobs), self.codes.pop(0)))
        self.most = max(self.most, len(self._ended))
        return len(self.jobs)

    def ended(self, timeout: float) -> list[tuple[int, int]]:
        ended, self._ended = self._ended, []
        return ended

    def send(self, number: int, signum: int) -> None:
        self.signals.append((number, signum))

    def close(self) -> None: ...
