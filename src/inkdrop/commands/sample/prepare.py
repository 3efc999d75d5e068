"""Checks a sampling run and builds its parts from the configuration before any file exists."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from inkdrop.checkpoints import Checkpoint, checked_data
from inkdrop.commands.command import Asked, Prepared, Session
from inkdrop.commands.sample.inputs import Measured, checkpoint_of, conditions_of, data_of, items_of, origin_settings
from inkdrop.commands.sample.options import (
    check_average,
    check_files,
    check_graphs,
    check_seeds,
    completed,
)
from inkdrop.commands.sample.stages import Stage, asked_stages, check_chain, stage_of
from inkdrop.commands.terminal import quiet
from inkdrop.conditioners.label import is_named
from inkdrop.configuration import USER_TARGETS, build, check, check_settings
from inkdrop.configuration.compose import refuse_foreign_targets, refuse_unread, resolved
from inkdrop.configuration.secrets import hiding, refuse_masked
from inkdrop.distributed.processes import is_first
from inkdrop.errors import ConfigurationError
from inkdrop.files.showing import warn
from inkdrop.metrics import Evaluation
from inkdrop.pipeline import Pipeline
from inkdrop.pipeline.origins import Origin
from inkdrop.runs.machine import world_size_of
from inkdrop.runs.resumption import refuse_results, refuse_unusable


@dataclass(kw_only=True)
class PreparedSampling(Prepared):
    """A sampling run that is checked and built; the fields of its base class come first.

    - `stages`: the model, and those of a cascade that follow it.
    - `seeds`: one seed for each sample.
    - `measured`: evaluation and data, or None.
    - `origin`: where the samples start, or None for the noise of their seeds.
    - `sources`: what all samples start from, as the origin has it.
    - `origin_settings`: what samples depend on in their origin, for the protocol, with digests in place of paths.
    - `batch`: raw conditions of all samples.
    - `trackers`: loggers that receive the samples.
    - `trained`: name of the run that trained the model, or None.
    """

    stages: list[Stage]
    seeds: range
    measured: Measured | None
    origin: Origin | None
    sources: dict[str, Tensor]
    origin_settings: dict[str, Any] | None
    batch: dict[str, Tensor]
    trackers: list[Any]
    trained: str | None

    @property
    def pipeline(self) -> Pipeline:
        """The model that draws the samples, the last one of a cascade."""
        return self.stages[-1].pipeline

    @property
    def class_names(self) -> Sequence[str]:
        """The names of the classes in the order of their numbers; nothing if they are only numbers."""
        classes = self.pipeline.classes
        return classes if is_named(classes) else ()


def resolve(asked: Asked, session: Session) -> tuple[dict[str, Any], Checkpoint]:
    """Returns the configuration, completed from the checkpoint, after each value is checked by itself."""
    quiet()
    config = asked.config
    refuse_unread(config, "sample", asked.name)
    refuse_foreign_targets(config, asked.overrides, asked.primary)
    data = None
    measured = [stage.get("checkpoint") for stage in config.get("cascade") or []][-1:] or [config.get("checkpoint")]
    if measured[0] and config.get("extractor") is not None:  # it may refer to the data
        targets, folders = (config.get(name) or [] for name in ("allow_targets", "data_folders"))
        data = checked_data(measured[0], checkpoint_of(measured[0], session).content, targets, folders)
    plain = resolved(config, str(asked.path), data, empty=())
    with hiding(config):
        check_settings(plain)
    check_seeds(plain)
    checkpoint = checkpoint_of(plain["checkpoint"], session)
    plain = completed(plain, checkpoint)
    with hiding(config):
        check(plain, (*USER_TARGETS, *plain["allow_targets"]))
    refuse_masked(plain)
    if is_first():
        refuse_unusable(asked.folder)
        refuse_results(asked.folder)
    return plain, checkpoint


def prepare(asked: Asked, session: Session) -> PreparedSampling:
    """Returns the run, checked and built; raises `InkdropError` or `ValueError` if it cannot work.

    The trials of a sweep in one process share the objects that they load.
    """
    plain, checkpoint = resolve(asked, session)
    allowed = (*USER_TARGETS, *plain["allow_targets"])
    check_graphs(plain)
    check_average(plain)
    world_size = world_size_of(plain["trainer"])
    stages = [stage_of(plain, checkpoint, asked, session)]
    for number, each in enumerate(asked_stages(asked, plain["cascade"]), 1):
        stages.append(stage_of(*resolve(each, session), each, session, number))
    first, last = stages[0], stages[-1]
    plain = {**plain, "evaluation": last.plain["evaluation"], "view": last.plain["view"]}
    pipeline = first.pipeline
    seeds = range(plain["seed"], plain["seed"] + plain["num_samples"] * plain["repeats"])
    measured = _measured(plain, last, allowed, session) if plain["evaluate"] else None
    origin: Origin | None = build(plain["origin"], allowed)
    items = items_of(plain, origin, checkpoint, measured, session)
    batch = conditions_of(pipeline, seeds, plain["condition"], measured, items, plain["num_samples"])
    item = {name: values[:1] for name, values in batch.items()}
    if plain["sampler"] is not None:
        pipeline.guided({"position": torch.zeros(1), **item})  # raises for guidance that does not fit
    if plain["constraint"] is not None:
        pipeline.constraint(pipeline, item)  # type: ignore[misc]
    check_chain(stages, item, seeds[:1])
    _check_noise(plain, stages)
    sources: dict[str, Tensor] = {}
    if origin is not None:
        origin.check(pipeline)
        sources = origin.sources(pipeline, seeds, items)
    prepared = PreparedSampling(
        asked,
        plain,
        world_size,
        contextlib.ExitStack(),
        stages=stages,
        seeds=seeds,
        measured=measured,
        origin=origin,
        sources=sources,
        origin_settings=origin_settings(plain["origin"], sources, session),
        batch=batch,
        trackers=_trackers(plain, allowed),
        trained=checkpoint.content["config"].get("run_id"),
    )
    _check_view(prepared, item)
    return prepared


def _check_noise(plain: dict[str, Any], stages: list[Stage]) -> None:
    """Raises `ValueError` if the noise of samples shall be written, and does not alone make them."""
    if plain["save_noise"] and (not plain["sampler"] or plain["origin"] or plain["constraint"] or len(stages) > 1):
        raise ValueError(
            "save_noise=true writes the noise of a diffusion model: remove it, or origin, constraint and cascade"
        )


def _trackers(plain: dict[str, Any], allowed: tuple[str, ...]) -> list[Any]:
    """Returns the loggers; raises `ValueError` for one that has no use for samples."""
    chosen = {name: node for name, node in (plain.get("logger") or {}).items() if node is not None}
    try:
        trackers = {name: build(node, allowed) for name, node in chosen.items()}
    except ImportError as error:
        raise ValueError(f"a logger needs a package that is not installed: {error}") from None
    if useless := [name for name, each in trackers.items() if not hasattr(each, "begin_run")]:
        raise ValueError(f"logger={useless[0]} has no effect on samples, which have no steps: choose logger=wandb")
    return list(trackers.values())


def _check_view(prepared: PreparedSampling, first: dict[str, Tensor]) -> None:
    """Raises `ValueError` if the view does not suit the samples, or would leave files of other samples in the folder.

    `first` is the condition of one sample.
    """
    plain, pipeline = prepared.plain, prepared.pipeline
    if not plain["save_images"] and not plain["view"]:
        return
    item = {name: values.to(pipeline.device) for name, values in first.items()}
    with torch.no_grad():
        example = pipeline.codec.decode(torch.zeros(1, *pipeline.shape, device=pipeline.device), item)
    pipeline.view.check(example)
    if plain["save_images"]:
        files = pipeline.view.files(example, prepared.batch, prepared.seeds, prepared.class_names)
        check_files(prepared.asked.folder, files)


def check_sweep(folder: Path, config: DictConfig) -> None:
    """Raises `ConfigurationError` if the folder of a sweep contains other samples, which its table would show too."""
    if not is_first():
        return
    refuse_unusable(folder)
    if any(folder.rglob("result.json")):
        raise ConfigurationError(f"output_dir={folder} contains other samples: choose a new folder")


def _measured(plain: dict[str, Any], last: Stage, allowed: tuple[str, ...], session: Session) -> Measured:
    """Returns the evaluation and its data; raises `ValueError` if the samples cannot be measured."""
    data = data_of(plain, last.checkpoint, session)
    evaluation: Evaluation = session.keep(
        "evaluation", plain["evaluation"], lambda: build(plain["evaluation"], allowed)
    )
    if last.checkpoint.content.get("data_fingerprint") not in (None, data.fingerprint) and not plain["derive"]:
        warn("the data are not those of the run: their fingerprints differ")
    if evaluation.is_empty:
        raise ValueError(
            "evaluate=true has nothing to measure: choose metrics, such as metric=[sliced_wasserstein] "
            "extractor=identity, or remove it"
        )
    for option in ("save_neighbours", "save_features"):
        if plain[option] and not evaluation.extractor.dim:
            raise ValueError(f"{option}=true needs features, and extractor=none has none: choose an extractor")
    evaluation.check(data)
    for likelihood in evaluation.likelihood.values():
        likelihood.check(last.pipeline)
    return Measured(evaluation, data)
