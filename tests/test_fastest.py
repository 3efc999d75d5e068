"""Options of speed that are null become what is fastest, or what the run in the folder had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import TINY, configuration, run

from inkdrop.configuration.completion import plain_data
from inkdrop.configuration.compose import settled

SMALL = [*TINY[:4], "logger=none", "callbacks.pictures=null", "callbacks.evaluate=null", "data.batch_size=16"]
SMALL += ["trainer.max_steps=5", "trainer.val_check_interval=100", "callbacks.ema.decays=[0.9]"]


def chosen(*options: str, earlier: dict[str, Any] | None = None) -> dict[str, Any]:
    plain = plain_data(settled(configuration("train", *options), "runs/x", earlier=earlier))
    assert plain["task"]["optimizer"] == plain["optimizer"]
    update = {name: plain["optimizer"][name] for name in ("fused", "foreach") if name in plain["optimizer"]}
    return {"channels_last": plain["channels_last"], **update}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"channels_last": True, "fused": True}),
        (["experiment=moons"], {"channels_last": False, "fused": True}),
        (["trainer.precision=16-mixed"], {"channels_last": True, "foreach": True}),
        (["optimizer._target_=torch.optim.RAdam"], {"channels_last": True, "foreach": True}),
        (["optimizer.foreach=true", "channels_last=false"], {"channels_last": False, "foreach": True}),
        (["optimizer.fused=false"], {"channels_last": True, "fused": False}),
    ],
)
def test_what_is_fastest_depends_on_data_optimizer_and_precision(options: list[str], expected: dict[str, Any]) -> None:
    assert chosen(*options) == expected


def test_a_run_continues_as_it_was_begun() -> None:
    target = "torch.optim.AdamW"
    old = {"channels_last": False, "optimizer": {"_target_": target, "foreach": True}}
    assert chosen(earlier=old) == {"channels_last": False, "foreach": True}
    assert chosen("optimizer.fused=true", earlier=old) == {"channels_last": False, "fused": True}
    new = {"channels_last": True, "optimizer": {"_target_": target, "fused": True}}
    assert chosen("experiment=moons", earlier=new) == {"channels_last": True, "fused": True}
    assert chosen(earlier={"optimizer": {"_target_": target}}) == {"channels_last": False}  # of an earlier version


@pytest.mark.slow
def test_the_options_change_nothing_but_the_rounding(tmp_path: Path) -> None:
    """A fused optimizer reads weights, gradients and moments side by side, whatever their layout."""
    fast = run(tmp_path / "fast", model=SMALL)
    plain = run(tmp_path / "plain", "optimizer.foreach=true", "channels_last=false", model=SMALL)
    names = [name for name, value in fast["state_dict"].items() if value.is_floating_point()]
    assert any(not fast["state_dict"][name].is_contiguous() for name in names)
    for name in names:
        assert torch.allclose(fast["state_dict"][name], plain["state_dict"][name], rtol=1e-3, atol=1e-5), name
