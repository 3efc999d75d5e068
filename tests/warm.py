"""Commands in processes that are forked from one which has imported the libraries: two seconds of CPU instead of ten.

This file is also the program that imports torch, Lightning and Hydra once and then forks for each command. The fork
becomes what `python COMMAND` would be, with its own arguments, folder, environment, standard streams, session, signal
handlers and random numbers, and it imports inkdrop itself; it composes as the tests do. It ends as an interpreter does
that has nothing to take apart, which takes two seconds where those libraries are; commands that start afresh show that
it goes well.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import gc
import inspect
import json
import os
import random
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

_LIBRARIES = ("torch", "lightning.pytorch", "hydra", "matplotlib.pyplot", "scipy.stats", "sklearn.datasets", "wandb")
# Variables that an interpreter, the linker or a library reads once as it begins.
_READ_ONCE = ("PYTHON", "LD_", "OMP_", "MKL_", "TORCH_", "HF_", "MPL", "CUDA_")
_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
_MOST_STREAMS = 16
_FORKING = "inkdrop.commands.sweep.forking"  # the program of a sweep that starts its trials
_NUMBER = struct.Struct("q")
_AVAILABLE = hasattr(os, "fork") and hasattr(socket, "send_fds")
_BEGIN = subprocess.Popen._execute_child  # type: ignore[attr-defined]
_STARTED: list[subprocess.Popen[bytes]] = []


class Warm(subprocess.Popen):
    """`subprocess.Popen` of `[python, FILE, ...]` and `[python, "-m", MODULE, ...]`, each in a session of its own.

    The parent of the process is the program that forks, which tells how it ended.
    """

    def _execute_child(self, *arguments: Any) -> None:
        told = _named(*arguments)
        control, begun = _server()
        differ = {name for name in {*told["env"], *begun} if told["env"].get(name) != begun.get(name)}
        wrong = [name for name in differ - {"PYTHONPATH"} if name.startswith(_READ_ONCE)]
        assert not wrong, f"start this command afresh: {wrong} are read once, as a process begins"
        self._answers = _ask(control, told)
        _has_begun(self, told, _NUMBER.unpack(self._answers.recv(_NUMBER.size, socket.MSG_WAITALL))[0])

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        try:
            status = self._answers.recv(_NUMBER.size, socket.MSG_DONTWAIT if wait_flags else socket.MSG_WAITALL)
        except BlockingIOError:
            return 0, 0
        assert status, "the program that forks is gone"
        self._answers.close()
        return self.pid, _NUMBER.unpack(status)[0]

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid == self.pid:
                self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode


def process(command: Sequence[str], fresh: bool, **options: Any) -> subprocess.Popen[str]:
    """A process, begun afresh where that is asked for or there is no fork."""
    return (subprocess.Popen if fresh or not _AVAILABLE else Warm)(command, **options)


def start_early() -> None:
    """Starts the program that forks, for this process and those that are forked from it."""
    if _AVAILABLE:
        _server()


@functools.cache
def _server() -> tuple[socket.socket, dict[str, str]]:
    """Starts the program that forks; the socket to ask it by, and the environment it began with."""
    ours, theirs = socket.socketpair()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, __file__, str(theirs.fileno())]
    forking = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()], start_new_session=True)
    theirs.close()
    atexit.register(lambda: (ours.close(), forking.wait()))  # it ends when nobody can ask any more
    _STARTED.append(forking)  # else a process that is forked from this one would warn that it still runs
    return ours, environment


@functools.cache
def _interpreter(python: str) -> tuple[str, str, list[str]]:
    """An interpreter, its prefix, and where it finds packages; those of another environment are not those of this."""
    code = "import json, sys; print(json.dumps([sys.prefix, sys.path[1:]]))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    prefix, path = json.loads(subprocess.run([python, "-c", code], env=environment, capture_output=True).stdout)
    return python, prefix, path


def _named(*arguments: Any) -> dict[str, Any]:
    """The arguments of `subprocess.Popen._execute_child` by name; their order differs between versions of Python."""
    told = inspect.signature(_BEGIN).bind(None, *arguments).arguments
    return told | {"env": dict(os.environ if told["env"] is None else told["env"])}


def _ask(control: socket.socket, told: Mapping[str, Any]) -> socket.socket:
    """Asks for a process; the socket that its number and its end are told by."""
    ours, theirs = socket.socketpair()
    streams = [told[name] if told[name] != -1 else own for own, name in enumerate(("p2cread", "c2pwrite", "errwrite"))]
    kept = sorted(told["pass_fds"])
    socket.send_fds(control, [b"?"], [theirs.fileno(), *streams, *kept])
    theirs.close()
    command, folder = [os.fspath(each) for each in told["args"]][1:], os.fspath(told["cwd"] or os.getcwd())
    interpreter = _interpreter(os.fspath(told["args"][0]))
    asked = [interpreter, command, folder, told["env"], told["start_new_session"], [0, 1, 2, *kept]]
    ours.sendall(json.dumps(asked).encode())
    ours.shutdown(socket.SHUT_WR)
    return ours


def _has_begun(process: Any, told: Mapping[str, Any], pid: int) -> None:
    process.pid, process._child_created = pid, True
    process._close_pipe_fds(*(told[name] for name in _PIPES))


class Request:
    """A process that is asked for: interpreter, command, folder, environment, whether it leads a session, streams."""

    def __init__(self, control: socket.socket):
        """Waits for one; without streams if nobody can ask any more."""
        _, self.streams, _, _ = socket.recv_fds(control, 1, _MOST_STREAMS)
        if self.streams:
            self.answers = socket.socket(fileno=self.streams.pop(0))
            with self.answers.makefile("rb") as file:
                asked = json.loads(file.read())
                self.interpreter, self.command, self.folder, self.environment, self.leads, self.numbers = asked

    def close(self) -> None:
        for stream in self.streams:
            os.close(stream)


def serve(control: socket.socket) -> Request:
    """Forks for each request, and returns it in the process that is to meet it."""
    running: dict[int, Request] = {}
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    signal.set_wakeup_fd(waking)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if control in ready:
            request = Request(control)
            if not request.streams:
                _end(running)
            child = os.fork()
            if child == 0:
                signal.set_wakeup_fd(-1)
                for each in (control, *(other.answers for other in running.values())):
                    each.close()
                os.close(woken)
                os.close(waking)
                os.setsid()
                return request
            request.close()
            request.answers.sendall(_NUMBER.pack(child))
            running[child] = request
        if woken in ready:
            os.read(woken, 1000)
        while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _tell(running.pop(ended[0]), ended[1])


def _tell(request: Request, status: int) -> None:
    with contextlib.suppress(OSError):  # nobody may wait for it any more
        request.answers.sendall(_NUMBER.pack(status))
    request.answers.close()


def _end(running: Mapping[int, Request]) -> None:
    """The tests are over."""
    for child in running:
        os.killpg(child, signal.SIGKILL)
    os._exit(0)


def become(request: Request) -> None:
    """Makes this process what an interpreter is that begins with a command."""
    above = max(request.numbers) + 1  # so that no stream is in the place of another one
    streams = [fcntl.fcntl(stream, fcntl.F_DUPFD, above) for stream in request.streams]
    request.close()
    request.answers.close()
    for number, stream in zip(request.numbers, streams, strict=True):
        os.dup2(stream, number)
        os.close(stream)
    imported = {name: value for name, value in os.environ.items() if name not in BEGUN}  # by libraries
    os.environ.clear()
    os.environ.update(imported | request.environment)
    os.chdir(request.folder)
    if request.leads and os.getsid(0) != os.getpid():
        os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    added = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.executable, sys.prefix, path = request.interpreter
    sys.exec_prefix = sys.prefix
    sys.path[:] = [*added, *path]
    import numpy as np
    import torch

    random.seed()
    np.random.seed()  # noqa: NPY002
    torch.default_generator.seed()
    from wandb.sdk.data_types._private import MEDIA_TMP

    MEDIA_TMP.__init__("wandb-media")  # type: ignore[misc] # a folder of its own: each process removes it at its end


def keep_further(command: Sequence[str]) -> Sequence[str] | None:
    """Forks processes that wait to become those which a command begins with `subprocess.Popen`.

    In each of them its command is returned when it is asked for.
    """
    number, is_meant = further(command)
    waiting: list[tuple[int, socket.socket]] = []
    for _ in range(number):
        ours, theirs = socket.socketpair()
        child = os.fork()
        if child == 0:
            for _, other in [*waiting, (0, ours)]:
                other.close()
            request = Request(theirs)
            if not request.streams:  # the first is gone
                os._exit(0)
            theirs.close()
            become(request)
            return request.command
        theirs.close()
        waiting.append((child, ours))

    def begin(process: Any, *arguments: Any) -> None:
        told = _named(*arguments)
        if not waiting or told["args"][0] != sys.executable or not is_meant(told["args"]):
            _BEGIN(process, *arguments)
            return
        child, control = waiting.pop(0)
        _ask(control, told).close()
        control.close()
        _has_begun(process, told, child)

    subprocess.Popen._execute_child = begin  # type: ignore[attr-defined]
    return None


def further(command: Sequence[str]) -> tuple[int, Callable[[Sequence[str]], bool]]:
    """How many processes a command begins, and which commands are theirs.

    Those of a sweep, also of one over seeds, are the program that forks for each trial; those of a run are all ranks
    but the first, which Lightning begins.
    """
    if "LOCAL_RANK" in os.environ:
        return 0, lambda _: False
    if {"-m", "--multirun", "reproduce"} & set(command[1:]):
        return 1, lambda begun: _FORKING in begun
    return number_of_ranks(command) - 1, lambda _: True


def number_of_ranks(command: Sequence[str]) -> int:
    """As its options tell."""
    told = [each.removeprefix("trainer.devices=") for each in command if each.startswith("trainer.devices=")]
    return int(told[-1]) if told and told[-1].isdigit() else 1


def end(command: Sequence[str]) -> NoReturn:
    """Runs a command to its end."""
    code: Any = 0
    try:
        run(command)
    except SystemExit as error:
        code = error.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)


def run(command: Sequence[str]) -> None:
    """Runs a file or a module as the main program."""
    if command[0] == "-m":
        sys.path.insert(0, os.getcwd())
        sys.argv = list(command[1:])
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        file = Path(command[0]).resolve()
        sys.path.insert(0, str(file.parent))
        sys.argv = list(command)
        main = types.ModuleType("__main__")
        main.__file__ = str(file)
        sys.modules["__main__"] = main
        exec(compile(file.read_bytes(), file, "exec"), vars(main))


if __name__ == "__main__":
    BEGUN = dict(os.environ)
    for library in _LIBRARIES:
        __import__(library)
    import composing

    composing.compose_faster()
    composing.read_all()
    gc.collect()
    gc.freeze()  # collecting what libraries hold would copy all of it in each fork
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    become(request)
    end(keep_further(request.command) or request.command)
