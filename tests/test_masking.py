"""Secrets are used, and neither written down nor shown."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from entry_scripts import Script
from moments import wait_until
from runs import IN_PROCESS, TINY
from tokened import Tokened

from inkdrop.configuration.secrets import MASK, Masking, masked, masked_override, masked_text

SECRET = "hunter2-s3cret"
TOKENED = ["allow_targets=[tokened.]", "+logger.mine={_target_: tokened.Tokened}", f"+logger.mine.api_token={SECRET}"]
SHORT = [*(option for option in TINY if "max_steps" not in option), "trainer.max_steps=1", "callbacks.evaluate=null"]


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("api_token=abc", "api_token=***"),
        ("+logger.mine.api_token=a b,c", "+logger.mine.api_token=***"),
        ("++a.password='x=y'", "++a.password=***"),
        ("+x={_target_: a.B, hf_token: abc, count: 3}", "+x={_target_: a.B, hf_token: ***, count: 3}"),
        ("+x={secrets:[abc,def],y:1}", "+x={secrets:***,y:1}"),
        ('+x={"api_key":"a b"}', '+x={"api_key":***}'),
        ("network.token_dim=64", "network.token_dim=64"),
        ("tokenizer=abc", "tokenizer=abc"),
        ("network.monkey=abc", "network.monkey=abc"),
        ("optimizer.lr=1e-3", "optimizer.lr=1e-3"),
    ],
)
def test_an_override_without_its_secret(override: str, shown: str) -> None:
    assert masked_override(override) == shown


def test_texts_and_numbers() -> None:
    assert masked_text("#0 : seed=1 api_token=abc lr=2") == "#0 : seed=1 api_token=*** lr=2"
    plain = {"api_key": 123, "num_tokens": 16, "password": 1.5, "key": 3, "token": "x", "secret": True}
    assert masked(plain, set()) == {**plain, "api_key": MASK, "password": MASK, "token": MASK}
    record = logging.LogRecord("", 0, "", 0, "\t#%d : %s", (0, f"seed=1 +a.api_token={SECRET}"), None)
    assert Masking().filter(record)
    assert record.getMessage() == "\t#0 : seed=1 +a.api_token=***"


def files_with_secrets(folder: Path) -> list[Path]:
    """The files below a folder that hold the secret, byte for byte."""
    return [file for file in folder.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]


@pytest.mark.slow
def test_a_run_leaves_no_secret_in_any_file_nor_on_the_terminal(script: Script) -> None:
    Tokened.tokens.clear()
    ended = script("train.py", *SHORT, *TOKENED, "output_dir=run")
    assert ended.code == 0, ended.err
    assert set(Tokened.tokens) == {SECRET}
    (record,) = Path("run/wandb").glob("offline-run-*/run-*.wandb")
    wait_until(lambda: b"+logger.mine.api_token=***" in record.read_bytes())  # a process of W&B writes it
    assert files_with_secrets(Path.cwd()) == []
    assert SECRET not in ended.out + ended.err


@pytest.mark.slow
def test_a_sweep_leaves_no_secret_in_any_file_nor_on_the_terminal(script: Script) -> None:
    ended = script(
        "train.py",
        "-m",
        *IN_PROCESS,
        "hydra/sweeper=basic",
        *SHORT,
        *TOKENED,
        "logger=none",
        "seed=0,1",
        "output_dir=sweep",
    )
    assert ended.code == 0, ended.err
    assert "+logger.mine.api_token=***" in ended.out
    assert "seed=1" in ended.out
    assert not Path("sweep/multirun.yaml").is_symlink()
    assert "+logger.mine.api_token=***" in Path("sweep/multirun.yaml").read_text()
    assert files_with_secrets(Path.cwd()) == []
    assert SECRET not in ended.out + ended.err


@pytest.mark.many
@pytest.mark.parametrize(
    "options",
    [
        [*TOKENED, "optimzer.lr=1"],
        [*TOKENED, "network=nope"],
        [*TOKENED, "data=5"],
        ["data.batch_size=${oc.env:VALUE}"],
        ["seed=${oc.env:VALUE}"],
        ["trainer.max_steps=${oc.env:VALUE}"],
        ["network.channel_multipliers=[1,${oc.env:VALUE}]"],
        [f"+logger.mine.api_token={SECRET}"],
        [f"+api_token={SECRET}"],
        [f"api_token={SECRET}"],
        [f"+logger.mine.api_token={SECRET}=", "a=b=c=["],
    ],
)
def test_no_message_shows_a_secret(options: list[str], script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALUE", SECRET)
    ended = script("train.py", *options, "output_dir=run")
    assert ended.code == 2, ended.err
    assert ended.err.startswith("error: ")
    assert SECRET not in ended.out + ended.err
    assert not Path("run").exists()
