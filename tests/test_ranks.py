"""Several processes that work on the same thing: their end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from inkdrop.commands.entry import run
from inkdrop.distributed.ranks import disband, from_all_ranks, place


def together(folder: Path) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=0, world_size=1)


def test_alone_there_is_nothing_to_part_from() -> None:
    disband()
    assert (place(), from_all_ranks("alone")) == ((0, 1), ["alone"])


def test_processes_part_when_a_script_has_done_its_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = {"check": {"_target_": "inkdrop.commands.check.CheckConfiguration"}}
    runtime = SimpleNamespace(output_dir=str(tmp_path))
    hydra = SimpleNamespace(mode=RunMode.RUN, callbacks=checked, runtime=runtime)
    monkeypatch.setattr(HydraConfig, "get", lambda: hydra)
    seen = []

    def action(config: DictConfig, output_dir: str) -> dict[str, Any]:
        together(tmp_path)
        seen.append(from_all_ranks(output_dir))
        return {"loss": 1.0}

    assert run(action, OmegaConf.create({"objective": None})) == {"loss": 1.0}
    assert seen == [[str(tmp_path)]]
    assert not torch.distributed.is_initialized()
