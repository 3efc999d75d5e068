"""Several processes that work on the same thing: their end."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from inkdrop.commands.command import Asked, Command, Prepared, Session
from inkdrop.commands.entry import run
from inkdrop.distributed.ranks import disband, from_all_ranks, place


def together(folder: Path) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=0, world_size=1)


def test_alone_there_is_nothing_to_part_from() -> None:
    disband()
    assert (place(), from_all_ranks("alone")) == ((0, 1), ["alone"])


class Meeting(Command[Prepared]):
    """A command whose processes meet."""

    name, description = "meeting", "Meets."

    def prepare(self, asked: Asked, session: Session) -> Prepared:
        return Prepared(asked, {"trainer": {}}, 1, contextlib.ExitStack())

    def run(self, prepared: Prepared) -> dict[str, Any]:
        together(prepared.asked.folder)
        return {"folders": from_all_ranks(str(prepared.asked.folder))}

    def check_sweep(self, folder: Path, config: DictConfig) -> None:
        raise AssertionError

    def check_trials(self, asked: Asked, session: Session) -> dict[str, Any]:
        raise AssertionError


def test_processes_part_when_a_command_has_done_its_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = SimpleNamespace(output_dir=str(tmp_path), config_sources=[])
    overrides = SimpleNamespace(task=OmegaConf.create([]))
    job = SimpleNamespace(config_name="meeting")
    hydra = SimpleNamespace(mode=RunMode.RUN, job=job, overrides=overrides, runtime=runtime)
    monkeypatch.setattr(HydraConfig, "get", lambda: hydra)
    assert run(Meeting(), OmegaConf.create({})) == {"folders": [str(tmp_path)]}
    assert not torch.distributed.is_initialized()
