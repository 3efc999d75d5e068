"""What the tests compose faster is what Hydra composes."""

from __future__ import annotations

from pathlib import Path

import pytest
from composing import compose_faster, compose_plainly
from hydra.errors import HydraException
from omegaconf import OmegaConf
from runs import configuration

# Each has all that is kept for the one before it in common with it, or something of it.
OPTIONS: list[tuple[str, list[str]]] = [
    ("train", ["seed=3", "network.dropout=0.5", "+trainer.limit_val_batches=2", "~callbacks.evaluate"]),
    ("train", ["seed=4", "experiment=moons", "metric=[frechet,kernel]", "guidance=none", "~likelihood"]),
    ("train", ["seed=5", "experiment=moons", "metric=[frechet,kernel]", "guidance=none", "~likelihood"]),
    ("train", ["optimizer={lr:1}", "time_sampler=loss_aware", "time_sampler@time_sampler.law=discrete"]),
    ("train", ["seed=6"]),
    ("sample", ["checkpoint=run", "sampler=heun", "hydra.job.num=3"]),
]


def composed(name: str, overrides: list[str]) -> str:
    try:
        return OmegaConf.to_yaml(configuration(name, *overrides))
    except HydraException as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.slow
def test_the_short_cut_leads_to_the_same_configurations() -> None:
    for name, overrides in OPTIONS:
        faster = composed(name, overrides)
        compose_plainly()
        try:
            assert composed(name, overrides) == faster, overrides
        finally:
            compose_faster()


@pytest.mark.parametrize("wrong", ["network=nothing", "network.nothing=3", "nothing=3", "~network=mlp"])
def test_the_short_cut_refuses_the_same(wrong: str) -> None:
    configuration("train", "seed=1")
    faster = composed("train", [wrong])
    compose_plainly()
    try:
        assert composed("train", [wrong]) == faster
    finally:
        compose_faster()
    assert "Exception: " in faster


def test_files_from_elsewhere_may_choose_by_reference(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - /sampler@other: ${experiment}_is_none\n  - override /network: mlp\n"
    )
    options = [f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"]
    assert "sampler/mine_is_none" in composed("train", options)


def test_a_copy_is_changed_and_not_what_is_kept() -> None:
    first = configuration("train")
    OmegaConf.set_struct(first, False)
    first.network.base_channels = 1234
    first.callbacks.clear()
    assert configuration("train") == configuration("train", "seed=0") != first
