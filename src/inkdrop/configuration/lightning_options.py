"""Trainer options, callbacks and loggers of Lightning that inkdrop does not support, and what to use instead."""

from __future__ import annotations

import inspect
from typing import Any

_STEPS = "set the length of a run by trainer.max_steps"
_TIME = (
    "set the length of a run by trainer.max_steps; `timeout -s TERM 2h python train.py ...` stops a run after a time, "
    "and the same command resumes it"
)
_FILES = "callbacks.checkpoint writes the checkpoints"
_AVERAGES = "callbacks.ema keeps averages of the weights"
_BAR = "callbacks.progress is the progress bar, and trainer.enable_progress_bar=false turns it off"
_DESCRIBE = "`python -m inkdrop describe` summarizes the model"
_SAMPLE = "`python sample.py checkpoint=RUN` draws samples, and evaluate=true measures them"

OPTIONS: dict[str, str] = {
    "barebones": "turn parts off by callbacks.NAME=null and logger=none",
    "callbacks": "add a callback by +callbacks.NAME={_target_:...}",
    "check_val_every_n_epoch": "set the steps between two validations by trainer.val_check_interval",
    "default_root_dir": "set the folder of a run by output_dir",
    "enable_autolog_hparams": "config.yaml contains all options, and loggers receive them",
    "enable_checkpointing": f"{_FILES}, and callbacks.checkpoint=null turns them off",
    "enable_model_summary": _DESCRIBE,
    "fast_dev_run": "trainer.max_steps=2 is a short run, and trainer.max_steps=0 a check",
    "limit_predict_batches": _SAMPLE,
    "limit_test_batches": _SAMPLE,
    "limit_train_batches": _STEPS,
    "logger": "choose loggers at the top level, as in logger=[wandb,csv]",
    "max_epochs": _STEPS,
    "max_time": _TIME,
    "min_epochs": _STEPS,
    "min_steps": "callbacks.stop_early ends a run early, and its patience sets how late",
    "model_registry": _FILES,
    "num_sanity_val_steps": "all parts are checked before a run starts",
    "plugins": "set precision and strategy by trainer.precision and trainer.strategy",
    "reload_dataloaders_every_n_epochs": "batches depend only on data.seed and the position",
    "use_distributed_sampler": "batches are always distributed among trainer.devices",
}
CALLBACKS: dict[str, str] = {
    "BackboneFinetuning": "init_from=RUN starts from the weights of another run",
    "BaseFinetuning": "init_from=RUN starts from the weights of another run",
    "BasePredictionWriter": _SAMPLE,
    "BatchSizeFinder": f"data.batch_size changes the result; {_DESCRIBE} and its memory",
    "Checkpoint": _FILES,
    "DeviceStatsMonitor": "logger=wandb records the load of the machine",
    "EarlyStopping": "callbacks.stop_early ends a run that no longer improves",
    "EMAWeightAveraging": _AVERAGES,
    "GradientAccumulationScheduler": "trainer.accumulate_grad_batches is the same for all steps",
    "LambdaCallback": "write a class in your own package, and allow it by allow_targets=[your_package.]",
    "LearningRateFinder": "compare learning rates in a sweep: `python train.py -m optimizer.lr=1e-3,2e-3,4e-3`",
    "LearningRateMonitor": "train/learning_rate is always logged",
    "ModelCheckpoint": f"{_FILES}, and callbacks.checkpoint.best=NAME keeps the best",
    "ModelPruning": "callbacks.ema and the checkpoints contain all weights",
    "ModelSummary": _DESCRIBE,
    "OnExceptionCheckpoint": f"{_FILES}, also when a signal stops the run",
    "ProgressBar": _BAR,
    "RichModelSummary": _DESCRIBE,
    "RichProgressBar": _BAR,
    "SpikeDetection": "task.max_gradient_norm and task.max_skipped_steps skip steps",
    "StochasticWeightAveraging": _AVERAGES,
    "ThroughputMonitor": "callbacks.throughput logs train/samples_per_second",
    "Timer": _TIME,
    "TQDMProgressBar": _BAR,
    "WeightAveraging": _AVERAGES,
}
LOGGERS: dict[str, str] = {
    "CSVLogger": "logger=csv writes a table",
    "LitLogger": "logger=wandb tracks runs",
    "Logger": "use one of logger=[wandb,tensorboard,csv]",
    "TensorBoardLogger": "logger=tensorboard writes its files",
    "WandbLogger": "logger=wandb tracks runs",
}
_PACKAGES = {"lightning.pytorch.callbacks": CALLBACKS, "lightning.pytorch.loggers": LOGGERS}
_BASES = ("ProgressBar", "Logger")  # a user may derive classes from these


def instead(target: Any) -> str | None:
    """Returns what to use instead of a class of Lightning or one derived from it, or None if the class is supported."""
    if not inspect.isclass(target) or target.__module__.startswith("inkdrop."):
        return None
    for each in target.__mro__:
        for package, parts in _PACKAGES.items():
            own = each is target or each.__name__ not in _BASES
            if own and each.__module__.startswith(package) and each.__name__ in parts:
                return parts[each.__name__]
    return None
