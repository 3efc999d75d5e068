"""What trackers receive of a configuration: each option once, no secret and no path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from runs import configuration

from inkdrop.configuration.compose import settled
from inkdrop.configuration.once import is_local, options_once, overrides_once
from inkdrop.configuration.secrets import MASK, from_environment


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else key)
    else:
        yield path, node


def of_config(config: Any) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return options_once(config, plain, from_environment(config))


def once(folder: Path, *overrides: str) -> dict[str, Any]:
    return of_config(settled(configuration("train", *overrides), str(folder)))


@pytest.mark.parametrize(
    ("experiment", "width"),
    [
        ("digits", "network.base_channels"),
        ("moons", "network.width"),
        ("digits_classifier", "network.network.base_channels"),
        ("digits_edm", "network.base_channels"),
    ],
)
def test_each_option_is_there_once(experiment: str, width: str, tmp_path: Path) -> None:
    chosen = {"optimizer.lr": 0.0123, "seed": 7654321, "trainer.max_steps": 98765, width: 1234}
    kept = dict(leaves(once(tmp_path, f"experiment={experiment}", *(f"{k}={v}" for k, v in chosen.items()))))
    for name, value in chosen.items():
        assert [path for path, each in kept.items() if each == value] == [name]
    assert len(kept) < 150
    assert not any("${" in str(value) for value in kept.values())


def test_no_value_is_a_path_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "published" / "net").mkdir(parents=True)
    given = ["init_from=runs/before", "allow_targets=[published/net]", "callbacks.ema.folder=averages"]
    kept = dict(leaves(once(tmp_path / "run", *given, "callbacks.pictures.folder='${output_dir}/sheets'")))
    assert str(tmp_path) not in str(kept)
    for name in ("output_dir", "init_from", "allow_targets", "callbacks.ema.folder", "callbacks.pictures.folder"):
        assert name not in kept
    assert kept["callbacks.pictures.num_samples"] == 100


@pytest.mark.parametrize(
    ("name", "value", "local"),
    [
        ("data.path", "photos", True),
        ("data.train", "shards/{00..07}.tar", True),
        ("data.urls", "pipe:cat /disk/x.tar", True),
        ("note", "~/data", True),
        ("note", "see ../data", True),
        ("note", "file:x", True),
        ("note", "C:\\data", True),
        ("note", "[/disk/a,/disk/b]", True),
        ("note", "https://host/x.tar", False),
        ("objective", "validation/loss", False),
        ("network._target_", "inkdrop.networks.unet.UNet", False),
        ("metric", "1/2", False),
        ("init_from", "null", False),
        ("data.path", None, False),
        ("data.validation", 0.1, False),
    ],
)
def test_what_a_path_is(name: str, value: object, local: bool) -> None:
    assert is_local(name, value) == local


def test_secrets_are_masked_where_they_are_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD", "hidden")
    config = OmegaConf.create(
        {"own": "${oc.env:WORD}", "again": "${own}", "api_key": "abc", "parts": ["${oc.env:WORD}", "${again}", 3]}
    )
    assert of_config(config) == {"own": MASK, "api_key": MASK, "parts": [MASK, 3]}


def test_overrides_without_paths_and_secrets() -> None:
    given = ["optimizer.lr=2e-3", "output_dir=run", "+my.api_key=abc", "data.path='/disk/a b'", "~scheduler", "seed=1"]
    assert overrides_once(given) == ["optimizer.lr=2e-3", "+my.api_key=***", "~scheduler", "seed=1"]
