"""What a user is told to type reaches the program as it was meant, through a shell and through Hydra."""

import shlex
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from cases import every
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from inkdrop.configuration.suggestions import options
from inkdrop.errors import ConfigurationError
from inkdrop.runs.resumption import check_same
from inkdrop.tasks import ClassifierTask, DiffusionTask

PATHS = [
    *(
        "runs/plain-1.0",
        "./run",
        "../run",
        "/tmp/run_2",
        "two words",
        " around ",
        "a=b",
        "lr=1e-3,seed=0",
        "Übung/日本",
    ),
    *("it's", 'say "it"', 'it\'s "both"', "back\\slash", "end\\", "end\\'", "${name}", "\\${name}", "$HOME", "`ls`"),
    *("a,b", "[x]", "{y: 1}", "(z)", "a#b", "a:b", "a;b&c|d>e", "~x", "!x", "*?", "%x", "@x", "-x", "", "\\\\"),
    *("null", "true", "False", "nan", "inf", "-inf", "123", "1e3", ".5", "0x1", "1_000", "2024-01-01"),
]


def read(typed: str) -> dict[str, Any]:
    """What Hydra makes of options, after a shell has."""
    overrides = OverridesParser.create().parse_overrides(shlex.split(typed))
    values = {str(each.key_or_group): each.value() for each in overrides}
    found: Any = OmegaConf.to_container(OmegaConf.create(values), resolve=True)
    return found


@every({repr(path): path for path in PATHS})
def test_paths_arrive_as_they_are(path: str) -> None:
    assert read(options({"output_dir": path})) == {"output_dir": path}
    assert read(options({"x": [path, path]})) == {"x": [path, path]}


def test_values_keep_their_types() -> None:
    chosen = {"a": None, "b": True, "c": 3, "d": 1e-5, "e": [1, "1", None], "f": {"g": "h i", "k": [0.5]}}
    assert read(options(chosen)) == chosen


def test_a_shell_reads_them_as_python_does() -> None:
    typed = options({f"k{number}": path for number, path in enumerate(PATHS)})
    command = ["sh", "-c", f"printf '%s\\0' {typed}"]
    assert subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")[:-1] == shlex.split(
        typed
    )


def test_what_would_steer_a_terminal_is_escaped() -> None:
    assert "\x1b" not in options({"output_dir": "a\x1b[2Jb"})


@every({repr(path): path for path in PATHS})
def test_commands_that_are_printed_name_the_run(path: str) -> None:
    task: Any = SimpleNamespace(pipeline=SimpleNamespace(request=lambda seeds: {}, guides="classifier"))
    assert read(options(DiffusionTask.advice(task, path)))["checkpoint"] == path
    assert read(options(ClassifierTask.advice(task, path)))["guidance.checkpoint"] == path


def test_resume_allow_keeps_what_was_allowed() -> None:
    old, new = {"a": 1, "b": {"c": 2}, "d": 3}, {"a": 2, "b": {"c": 3}, "d": 4}
    with pytest.raises(ConfigurationError) as refused:
        check_same(old, new, ["b"])
    allowed = read(str(refused.value).rpartition("accept the change by ")[2])["resume_allow"]
    assert allowed == ["b", "a", "d"]
    assert len(check_same(old, new, allowed)) == 3
