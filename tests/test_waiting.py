"""Between two steps that log, the host neither reads the device nor waits for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from pretended import Pretended, There
from rich.console import Console
from runs import TINY, trained

LOGGED = 4  # steps between two that log
COUNTED = [
    "trainer.max_steps=12",
    f"trainer.log_every_n_steps={LOGGED}",
    "trainer.val_check_interval=100",
    "callbacks.pictures=null",
    "callbacks.evaluate=null",
    f"callbacks.loss_by_noise_level.every.steps={LOGGED}",
    "callbacks.checkpoint.every.steps=100",
    "callbacks.ema.decays=[0.9,0.99]",
    "++trainer.limit_val_batches=0",
    "trainer.accelerator=cpu",
    "++task.max_gradient_norm=1e6",
    "data.batch_size=16",
]
UNET = TINY[:4]
DDPM = ["network=ddpm_cifar10", "network.base_channels=32", "network.attention_resolutions=[4]", "conditioner=none"]
DIT = ["network=dit", "network.width=16", "network.depth=2", "network.num_heads=2"]
MODELS = {
    "digits": UNET,
    "mnist": [*UNET, "schedule=cosine", "prediction=v", "time_sampler=stratified", "channels_last=true"],
    "cifar10_jpeg": [*DDPM, "channels_last=true", "guidance=none"],
    "dit": DIT,
    "edm": ["experiment=digits_edm", *UNET],
    "flow": ["experiment=digits_flow", *UNET],
    "moons": ["experiment=moons", "network.width=16"],
}


class Counting(There):
    """Counts from the step after one that logs up to the next one that does, and what lies between them."""

    def __init__(self, device: Pretended, steps: int):
        self.device, self.steps, self.count = device, steps, 0

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        counting = trainer.global_step >= self.steps and bool((trainer.global_step + 1) % self.steps)
        self.device.counting, self.count = counting, self.count + counting


def watched(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> Pretended:
    """Trains on the pretended device, and returns it with what the host waited for."""
    device, fit = Pretended(monkeypatch), Trainer.fit
    counting = Counting(device, LOGGED)

    def fitted(trainer: Any, *args: Any, **kwargs: Any) -> None:
        trainer.callbacks.append(counting)
        with device:
            fit(trainer, *args, **kwargs)

    monkeypatch.setattr(Trainer, "fit", fitted)
    monkeypatch.setattr(Console, "is_terminal", True)  # the bar is shown
    trained(folder, options=options)
    assert counting.count >= 6
    return device


@pytest.mark.many
@pytest.mark.parametrize(("model", "batches"), [*((each, 1) for each in MODELS), ("digits", 2), ("dit", 2)])
def test_no_step_that_does_not_log_waits(
    model: str, batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulated = [f"trainer.accumulate_grad_batches={batches}"]
    device = watched(monkeypatch, tmp_path / "run", *MODELS[model], *COUNTED, *accumulated)
    assert Counter(device.waits) == {}
