"""Tests in several processes, which are forked when everything has been imported and all tests have been collected.

`pytest --processes auto` takes two more than there are processors, as some tests wait for a process, a signal or the
disk. The tests of a file stay together, since they may share a fixture, and files that take long begin first.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import select
import signal
import struct
import sys
import threading
import traceback
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import util
from pathlib import Path
from typing import Any, NoReturn

import pytest
from shares import by_file, processes

_NUMBER, _LENGTH = struct.Struct("i"), struct.Struct("q")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--processes", default="1", metavar="NUMBER", help="processes that run the tests, or auto")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    count = processes(session.config)
    if count < 2 or session.config.option.collectonly or session.testsfailed:
        return None
    units = by_file(session.items, lambda item: item.path.name)
    Tests(session, [[session.items.index(item) for item in unit] for unit in units]).run(count)
    return True


@dataclass
class Worker:
    """A process that runs tests: what it reports, and the tests of the file that it is at."""

    pid: int
    reports: int
    received: bytearray = field(default_factory=bytearray)
    unfinished: list[int] = field(default_factory=list)


class Tests:
    """The tests of a session in units, each of which is run by one process."""

    def __init__(self, session: pytest.Session, units: Sequence[Sequence[int]]):
        self.session, self.units, self.config = session, units, session.config

    def run(self, count: int) -> None:
        """Runs all tests; each process takes the next unit when it has finished one."""
        self.base = self.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        queue, filling = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        workers = [self._begin(place, queue, filling) for place in range(count)]
        os.close(queue)
        for unit in range(len(self.units)):
            os.write(filling, _NUMBER.pack(unit))
        os.close(filling)
        try:
            self._listen(workers)
        finally:
            for worker in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)

    def _begin(self, place: int, queue: int, filling: int) -> Worker:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(filling)
            os.close(reading)
            self._work(place, queue, writing)
        os.close(writing)
        return Worker(pid, reading)

    def _listen(self, workers: Sequence[Worker]) -> None:
        """Passes on what the processes report, until all have ended."""
        running = {worker.reports: worker for worker in workers}
        while running:
            for number in select.select(list(running), [], [])[0]:
                worker = running[number]
                if part := os.read(number, 1 << 20):
                    worker.received += part
                    self._hear(worker)
                else:
                    os.close(number)
                    del running[number]
                    self._ended(worker, os.waitpid(worker.pid, 0)[1])
            if self.session.shouldfail:
                raise self.session.Failed(self.session.shouldfail)
            if self.session.shouldstop:
                raise self.session.Interrupted(self.session.shouldstop)

    def _hear(self, worker: Worker) -> None:
        while len(worker.received) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(worker.received)[0]
            if len(worker.received) < end:
                return
            kind, content = pickle.loads(worker.received[_LENGTH.size : end])
            del worker.received[:end]
            if kind == "unit":
                worker.unfinished += self.units[content]
            elif kind == "finished":
                worker.unfinished.remove(content)
            else:
                report = self.config.hook.pytest_report_from_serializable(config=self.config, data=content)
                self.config.hook.pytest_runtest_logreport(report=report)

    def _ended(self, worker: Worker, status: int) -> None:
        """A test that ends its process has failed, and so have those which it was to run after it."""
        for number in worker.unfinished:
            item = self.session.items[number]
            why = f"the process of this test, or of one before it in its file, ended with {status}"
            report = pytest.TestReport(item.nodeid, item.location, {}, "failed", why, "call")
            self.config.hook.pytest_runtest_logreport(report=report)

    # In a process that runs tests --------------------------------------------------------------------------------

    def _work(self, place: int, queue: int, reports: int) -> NoReturn:
        try:
            _forget_what_ends_the_parent()
            self._separate(place)
            self.config.pluginmanager.register(Reporter(self.config, reports))
            self._run_units(queue, reports)
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _separate(self, place: int) -> None:
        """A folder, and files for what is printed, that are its own; it says nothing on the terminal."""
        plugins: Any = self.config.pluginmanager
        plugins.unregister(name="terminalreporter")
        base = Path(self.base) / f"process{place}"
        base.mkdir()
        self.config._tmp_path_factory._basetemp = base  # type: ignore[attr-defined]
        capture = plugins.getplugin("capturemanager")
        capture.stop_global_capturing()
        capture.start_global_capturing()
        capture.suspend_global_capture()

    def _run_units(self, queue: int, reports: int) -> None:
        """One test knows the next, so that what both need is kept."""
        tests = self._tests(queue, reports)
        number = next(tests, None)
        while number is not None:
            following = next(tests, None)
            item, after = (None if each is None else self.session.items[each] for each in (number, following))
            self.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            send(reports, "finished", number)
            number = following

    def _tests(self, queue: int, reports: int) -> Iterator[int]:
        while taken := os.read(queue, _NUMBER.size):
            (unit,) = _NUMBER.unpack(taken)
            send(reports, "unit", unit)
            yield from self.units[unit]


class Reporter:
    """Sends what is reported of tests to the process that all were forked from."""

    def __init__(self, config: pytest.Config, reports: int):
        self.config, self.reports = config, reports

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        send(self.reports, "report", data)


def send(reports: int, kind: str, content: Any) -> None:
    message = pickle.dumps((kind, content))
    left = memoryview(_LENGTH.pack(len(message)) + message)
    while left:
        left = left[os.write(reports, left) :]


def _forget_what_ends_the_parent() -> None:
    """What was made before the fork, such as temporary folders, is removed by the parent."""
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    atexit.register(util._exit_function)
