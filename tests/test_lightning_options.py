"""Each option, callback and logger of Lightning fits, or is refused with what does its work: none is left undecided."""

from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path
from typing import Any

import lightning.pytorch.callbacks
import lightning.pytorch.loggers
import pytest
from cases import every
from entry_scripts import ROOT, Script
from lightning.pytorch import Trainer
from omegaconf import OmegaConf
from runs import configuration

from inkdrop.callbacks import ProgressBar
from inkdrop.configuration import check, check_settings
from inkdrop.configuration.lightning_options import CALLBACKS, LOGGERS, OPTIONS, instead
from inkdrop.configuration.settings import SETTINGS
from inkdrop.errors import ConfigurationError

FITTING_CALLBACKS = {"Callback"}  # which does nothing, and which those of a user are made of
FITTING_LOGGERS = {"CometLogger", "MLFlowLogger"}
# group: (the module, those of it that are refused, those that fit)
PARTS: dict[str, tuple[Any, dict[str, str], set[str]]] = {
    "callbacks": (lightning.pytorch.callbacks, CALLBACKS, FITTING_CALLBACKS),
    "logger": (lightning.pytorch.loggers, LOGGERS, FITTING_LOGGERS),
}


def test_each_option_of_the_trainer_is_decided() -> None:
    fitting = {name.removeprefix("trainer.") for name in SETTINGS if name.startswith("trainer.")}
    options = set(inspect.signature(Trainer).parameters)
    assert options - fitting - OPTIONS.keys() == set(), "decide in lightning_options.py, or in SETTINGS with its values"
    assert fitting & OPTIONS.keys() == set()
    assert (fitting | OPTIONS.keys()) - options == set()


@pytest.mark.parametrize("group", PARTS)
def test_each_part_of_lightning_is_decided(group: str) -> None:
    module, refused, fitting = PARTS[group]
    assert (refused.keys() | fitting) - set(module.__all__) == set()
    assert set(module.__all__) - refused.keys() - fitting == set(), "decide in lightning_options.py"
    assert refused.keys() & fitting == set()
    assert {name for name in fitting if instead(getattr(module, name)) is not None} == set()


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_do_not_fit_are_refused_by_name(name: str) -> None:
    default: Any = inspect.signature(Trainer).parameters[name].default
    for value in (default, 3, "00:12:00:00"):
        with pytest.raises(ConfigurationError, match=rf"^trainer\.{name} is not available: \S") as refused:
            check_settings({"trainer": {name: value}})
        assert str(refused.value).endswith(OPTIONS[name])


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group, (_, refused, _) in PARTS.items() for name in refused]
)
def test_parts_that_do_not_fit_are_refused_by_name(group: str, name: str) -> None:
    module, refused, _ = PARTS[group]
    defined = getattr(module, name)
    for target in (f"{module.__name__}.{name}", f"{defined.__module__}.{name}"):
        with pytest.raises(ConfigurationError, match=rf"^{group}\.mine\._target_={target} is not available: ") as told:
            check({group: {"mine": {"_target_": target}}})
        assert str(told.value).endswith(refused[name])


def test_classes_made_of_what_does_not_fit_are_refused_too() -> None:
    class Mine(lightning.pytorch.callbacks.ModelCheckpoint):
        pass

    class Bar(lightning.pytorch.callbacks.ProgressBar):
        pass

    class Own(lightning.pytorch.callbacks.Callback):
        pass

    assert instead(Mine) == CALLBACKS["ModelCheckpoint"]
    assert instead(Bar) is instead(Own) is instead(ProgressBar) is instead(len) is None


ADVICE = {advice: advice for advice in (*OPTIONS.values(), *CALLBACKS.values(), *LOGGERS.values())}
TRAIN = functools.cache(lambda: configuration("train"))


@every(ADVICE)
def test_advice_names_options_that_there_are(advice: str) -> None:
    named = re.findall(r"(?<![+\w.])((?:callbacks|trainer|task|data|optimizer)\.[a-z_.]+[a-z])", advice)
    for option in named:
        place, _, name = option.rpartition(".")
        assert name in OmegaConf.select(TRAIN(), place), option
    groups = re.findall(r"logger=\[?([a-z,]+)\]?", advice)
    for name in (each for names in groups for each in names.split(",")):
        assert (ROOT / "conf" / "logger" / f"{name}.yaml").exists()


# name: (overrides, texts of the message)
REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "time": (["+trainer.max_time=00:00:10:00"], ["trainer.max_time is not available", "timeout -s TERM 2h"]),
    "epochs": (["+trainer.max_epochs=3"], ["trainer.max_epochs is not available", "trainer.max_steps"]),
    "checkpoint": (
        ["+callbacks.mine={_target_:lightning.pytorch.callbacks.ModelCheckpoint,monitor:x}"],
        ["callbacks.mine._target_=lightning.pytorch.callbacks.ModelCheckpoint", "callbacks.checkpoint.best"],
    ),
    "stopping": (
        ["callbacks.stop_early={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:validation/loss}"],
        ["is not available: callbacks.stop_early"],
    ),
    "logger": (["+logger.mine={_target_:lightning.pytorch.loggers.CSVLogger,save_dir:x}"], ["logger=csv"]),
    "strategy": (["trainer.strategy=fsdp"], ["trainer.strategy=fsdp", "ddp"]),
    "validation": (["+trainer.limit_val_batches=-1"], ["trainer.limit_val_batches=-1"]),
    "share": (["+trainer.limit_val_batches=1.5"], ["trainer.limit_val_batches=1.5"]),
    "clipping": (["+trainer.gradient_clip_algorithm=most"], ["'norm' or 'value'"]),
    "profiler": (["+trainer.profiler=xla"], ["'simple' or 'advanced'"]),
}


@pytest.mark.many
@pytest.mark.parametrize(("overrides", "texts"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_ends_with_code_2_before_anything_is_made(
    overrides: list[str], texts: list[str], script: Script
) -> None:
    ended = script("train.py", *overrides)
    assert ended.code == 2, ended.err
    assert ended.err.startswith("error: ")
    assert "Traceback" not in ended.err
    for text in texts:
        assert text in ended.err
    assert not list(Path.cwd().iterdir())
