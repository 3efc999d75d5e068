"""Guides under the names of earlier versions: in commands, files, checkpoints and hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from entry_scripts import Script

from inkdrop.checkpoints import read_checkpoint
from inkdrop.commands.sample import Sample
from inkdrop.commands.train import Train
from inkdrop.configuration.compose import composed, resolved
from inkdrop.configuration.guides import guides
from inkdrop.configuration.moved import renamed
from inkdrop.metrics.protocol import sampling_facts
from inkdrop.runs.resumption import check_same

GOLDEN = Path(__file__).parent / "golden" / "format_5" / "self_conditioned"
TARGET = "inkdrop.guidance.Clip"  # the class has its name, which is in hashes


def guidance(*overrides: str) -> list[tuple[str, Any]]:
    return list(resolved(composed("train", overrides))["guidance"].items())


def test_options_under_the_earlier_name_are_those_of_the_present_one() -> None:
    now = ["guidance=[static_threshold,classifier_free]", "guidance.static_threshold.low=-0.9"]
    expected = guidance(*now)
    assert [name for name, _ in expected] == ["static_threshold", "classifier_free"]
    assert expected[0][1] == {"_target_": TARGET, "low": -0.9, "high": 1.0}
    earlier = ["guidance=[clip,classifier_free]", "guidance.clip.low=-0.9"]
    assert guidance(*earlier) == expected
    assert guidance("guidance=clip") == guidance("guidance=static_threshold")
    for command in (Train(), Sample()):  # Hydra itself reads what these return
        assert command.spelled([earlier[1], "~guidance.clip"]) == [now[1], "~guidance.static_threshold"]
        kept = ["guidance.clipped.low=1", "extractor=clip", "name=guidance.clip.low"]
        assert command.spelled(kept) == kept


def test_files_of_a_user_have_the_earlier_name(tmp_path: Path, script: Script) -> None:
    own = tmp_path / "own"
    (own / "experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - override /guidance: clip\nguidance:\n  clip:\n    low: -0.5\n"
    (own / "experiment" / "mine.yaml").write_text(text)
    done = script("train.py", f"hydra.searchpath=[file://{own}]", "experiment=mine", "trainer.max_steps=0")
    assert done.code == 0, done.err
    whole = resolved(composed("train", [f"hydra.searchpath=[file://{own}]", "experiment=mine"]))
    assert whole["guidance"] == {"static_threshold": {"_target_": TARGET, "low": -0.5, "high": 1.0}}
    assert guides({"static_threshold": {"low": 1.0}, "clip": None}) == {}
    theirs = {"clip": {"_target_": "mine.Guide"}}  # a guide of their own keeps its name
    assert guides(theirs) == theirs


def test_protocols_have_the_earlier_name() -> None:
    """Values that were measured before share a column with those that are measured now."""
    node = {"_target_": TARGET, "low": -1.0, "high": 1.0}
    facts = [
        sampling_facts({"sampler": {}, "guidance": {"classifier_free": {}, name: node}}, "0.9", 0, 8, "32-true")
        for name in ("clip", "static_threshold")
    ]
    assert facts[0] == facts[1]
    assert list(facts[1]["guidance"]) == ["classifier_free", "clip"]
    assert sampling_facts({}, "0.9", 0, 8, "32-true")["guidance"] is None


def test_a_checkpoint_with_the_earlier_name_has_the_present_one(tmp_path: Path) -> None:
    (golden,) = GOLDEN.glob("checkpoints/step-*6.ckpt")
    before = torch.load(golden, weights_only=True)
    assert [*before["config"]["guidance"]] == [*before["config"]["pipeline"]["guidance"]] == ["clip"]
    place = "pipeline.codec.model"
    inner = {place: {"config": before["config"]["pipeline"], "models": {}}}
    torch.save({**before, "models": inner}, tmp_path / "step-6.ckpt")
    after = read_checkpoint(tmp_path / "step-6.ckpt")
    for node in (after["config"], after["config"]["pipeline"], after["models"][place]["config"]):
        assert [*node["guidance"]] == ["static_threshold"]
    assert check_same(before["config"], renamed(before["config"]), []) == []
    assert after["config"] == renamed(before["config"])
