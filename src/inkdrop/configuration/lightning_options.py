"""What of Lightning has no place here, and what does its work: options of its trainer, callbacks and loggers."""

from __future__ import annotations

import inspect
from typing import Any

_STEPS = "trainer.max_steps says how long a run is"
_TIME = (
    "trainer.max_steps says how long a run is; `timeout -s TERM 2h python train.py ...` stops one after a time, and "
    "the same command goes on with it"
)
_FILES = "callbacks.checkpoint writes checkpoints"
_AVERAGES = "callbacks.ema keeps averages of the weights"
_BAR = "callbacks.progress is the progress bar, and trainer.enable_progress_bar=false none"
_DESCRIBE = "`python -m inkdrop describe` tells of the model"
_SAMPLE = "`python sample.py checkpoint=RUN` samples, and evaluate=true measures"

OPTIONS: dict[str, str] = {
    "barebones": "callbacks.NAME=null and logger=none switch parts off",
    "callbacks": "+callbacks.NAME={_target_:...} adds one",
    "check_val_every_n_epoch": "trainer.val_check_interval says when to validate",
    "default_root_dir": "output_dir is the folder of a run",
    "enable_autolog_hparams": "config.yaml holds all options, and trackers are given them",
    "enable_checkpointing": f"{_FILES}, and callbacks.checkpoint=null none",
    "enable_model_summary": _DESCRIBE,
    "fast_dev_run": "trainer.max_steps=2 is a short run, and trainer.max_steps=0 a check",
    "limit_predict_batches": _SAMPLE,
    "limit_test_batches": _SAMPLE,
    "limit_train_batches": _STEPS,
    "logger": "the group logger at the top names them, as in logger=[wandb,csv]",
    "max_epochs": _STEPS,
    "max_time": _TIME,
    "min_epochs": _STEPS,
    "min_steps": "callbacks.stop_early ends a run, and its patience says how late",
    "model_registry": _FILES,
    "num_sanity_val_steps": "parts are checked before a run instead",
    "overfit_batches": "a data set of few items shows whether a network can learn them",
    "plugins": "trainer.precision and trainer.strategy say all that they would",
    "reload_dataloaders_every_n_epochs": "batches are a function of data.seed and the position alone",
    "use_distributed_sampler": "batches are shared out among trainer.devices without it",
}
CALLBACKS: dict[str, str] = {
    "BackboneFinetuning": "init_from=RUN begins with the weights of another run",
    "BaseFinetuning": "init_from=RUN begins with the weights of another run",
    "BasePredictionWriter": _SAMPLE,
    "BatchSizeFinder": f"data.batch_size is part of the result; {_DESCRIBE} and its memory",
    "Checkpoint": _FILES,
    "DeviceStatsMonitor": "logger=wandb records the load of the machine",
    "EarlyStopping": "callbacks.stop_early ends what gets no better",
    "EMAWeightAveraging": _AVERAGES,
    "GradientAccumulationScheduler": "trainer.accumulate_grad_batches is the same for all steps",
    "LambdaCallback": "a class in a package of your own, by allow_targets=[your_package.], can be named in YAML",
    "LearningRateFinder": "a sweep finds one: `python train.py -m optimizer.lr=1e-3,2e-3,4e-3`",
    "LearningRateMonitor": "train/learning_rate is logged in any case",
    "ModelCheckpoint": f"{_FILES}, and callbacks.checkpoint.best=NAME keeps the best",
    "ModelPruning": "callbacks.ema and checkpoints hold all weights",
    "ModelSummary": _DESCRIBE,
    "OnExceptionCheckpoint": f"{_FILES}, also when a signal stops the run",
    "ProgressBar": _BAR,
    "RichModelSummary": _DESCRIBE,
    "RichProgressBar": _BAR,
    "SpikeDetection": "task.max_gradient_norm and task.max_skipped_steps leave steps out",
    "StochasticWeightAveraging": _AVERAGES,
    "ThroughputMonitor": "callbacks.throughput logs train/samples_per_second",
    "Timer": _TIME,
    "TQDMProgressBar": _BAR,
    "WeightAveraging": _AVERAGES,
}
LOGGERS: dict[str, str] = {
    "CSVLogger": "logger=csv writes a table",
    "LitLogger": "logger=wandb tracks runs",
    "Logger": "logger=[wandb,tensorboard,csv] are there",
    "TensorBoardLogger": "logger=tensorboard writes its files",
    "WandbLogger": "logger=wandb tracks runs",
}
_PACKAGES = {"lightning.pytorch.callbacks": CALLBACKS, "lightning.pytorch.loggers": LOGGERS}
_BASES = ("ProgressBar", "Logger")  # of which a user may make classes


def instead(target: Any) -> str | None:
    """What to take in the place of a class of Lightning, or of one made of it; None for what fits."""
    if not inspect.isclass(target) or target.__module__.startswith("inkdrop."):
        return None
    for each in target.__mro__:
        for package, parts in _PACKAGES.items():
            own = each is target or each.__name__ not in _BASES
            if own and each.__module__.startswith(package) and each.__name__ in parts:
                return parts[each.__name__]
    return None
