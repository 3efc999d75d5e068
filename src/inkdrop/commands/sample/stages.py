"""The models of a sampling run: one, or a cascade in which each takes the samples of the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.adapters import digest
from inkdrop.checkpoints import Checkpoint, reconstructed
from inkdrop.commands.command import Asked, Session
from inkdrop.commands.sample.options import built_guides, check_average, check_grid
from inkdrop.configuration import USER_TARGETS, build
from inkdrop.configuration.compose import raw
from inkdrop.configuration.guides import AS_RUN
from inkdrop.configuration.schema import check_value
from inkdrop.configuration.suggestions import options, written
from inkdrop.errors import ConfigurationError
from inkdrop.files.texts import decoded, is_text
from inkdrop.pipeline import Pipeline, add_adapters, restored

# Options of a later stage; those that are groups of options are given as such: {time_grid: {num_steps: 20}}.
_OPTIONS = ("checkpoint", "weights", "sampler", "constraint", "batch_size", "adapters")
_GROUPS = ("ema", "time_grid", "guidance", "condition", "adapter")
# Options of the run that hold for its last stage too, which is the one that is measured.
_SHARED = (
    *("seed", "num_samples", "repeats", "trainer", "allow_targets", "data_folders"),
    *("evaluate", "metric", "extractor", "likelihood", "held_out", "per_item", "derive", "view"),
    *("save_neighbours", "save_features"),
)


@dataclass
class Stage:
    """One model of a run.

    - `plain`: its options, completed from its checkpoint.
    - `checkpoint`: its checkpoint.
    - `source`: checkpoint and weights, as in `result.json`.
    - `pipeline`: the model.
    """

    plain: dict[str, Any]
    checkpoint: Checkpoint
    source: dict[str, Any]
    pipeline: Pipeline

    @property
    def condition(self) -> dict[str, Any]:
        """The conditions that the user names for this stage."""
        return {name: value for name, value in self.plain["condition"].items() if value is not None}

    def image(self) -> str:
        """Returns the condition that takes the samples of the stage before.

        Raises `ValueError` unless there is exactly one.
        """
        images = getattr(getattr(self.pipeline, "conditioner", None), "images", ())
        free = [name for name in images if name not in self.condition]
        if len(free) != 1:
            raise ValueError(
                f"cascade: checkpoint={self.plain['checkpoint']} takes {len(free)} images from the stage before, but "
                "each later stage takes one: name runs of conditioner=image"
            )
        return free[0]

    def batch(self, before: Tensor, shared: Mapping[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """Returns the raw conditions of a later stage: the samples before it, its own words, and what stages share."""
        name = self.image()
        named = {key: values for key, values in shared.items() if key in self.pipeline.names and key != name}
        texts = {key: decoded(values) for key, values in named.items() if is_text(values)}  # which have no default
        own = self.pipeline.request(seeds, **{**texts, **self.condition}, **{name: before})
        return {**own, **{key: values for key, values in named.items() if key not in self.condition}}

    def facts(self) -> dict[str, Any]:
        """Returns how this stage samples, for `result.json`."""
        options = ("sampler", "guidance", "constraint", "condition")
        return {**self.source, **self.adapters(), **{name: self.plain[name] for name in options if self.plain[name]}}

    def adapters(self) -> dict[str, Any]:
        """Returns the adapters that sampling changes or adds, for `result.json`; nothing without any."""
        parts = {"adapter": _changes(self.plain), "adapters": self.plain.get("adapters")}
        return {name: part for name, part in parts.items() if part}

    def settings(self) -> dict[str, Any]:
        """Returns what samples depend on, for the protocol, with a digest in place of a path."""
        return {**self.facts(), "checkpoint": self.checkpoint.digest, **self.adapted()}

    def adapted(self) -> dict[str, Any]:
        """Returns the adapters that sampling changes or adds, for the protocol, with a digest in place of paths."""
        changed = self.adapters()
        if "adapters" in changed:
            state = self.pipeline.state_dict()
            weights = digest({name: state[name] for name in self.pipeline.trained})
            scales = [entry.get("scale", 1.0) for entry in changed["adapters"]]
            changed["adapters"] = {"sha256": bytes(weights.tolist()).hex(), "scales": scales}
        return changed


def stage_of(plain: dict[str, Any], checkpoint: Checkpoint, asked: Asked, session: Session, number: int = 0) -> Stage:
    """Builds a stage from its completed options; raises `ValueError` for parts that do not fit each other."""
    check_average(plain)
    content, source = _source(plain, checkpoint, session)
    pipeline = _pipeline(plain, asked.config.get("guidance"), number, content, source, session)
    if plain["sampler"] is not None:
        check_grid(pipeline)
    pipeline.check()  # a foreign checkpoint may contain parts that do not fit each other
    return Stage(plain, checkpoint, source, pipeline)


def asked_stages(asked: Asked, cascade: Sequence[Mapping[str, Any]]) -> Iterator[Asked]:
    """Yields a request for each later stage of a cascade, of which the last has the evaluation of the run.

    Raises `ConfigurationError` for options that a stage does not have.
    """
    for number, entry in enumerate(cascade, 1):
        if "checkpoint" not in entry:
            raise ConfigurationError(f"cascade: stage {number} has no checkpoint: set {{checkpoint: RUN}}")
        kept = _SHARED if number == len(cascade) else ("seed", "num_samples", "repeats", "allow_targets")
        shared = [each for each in asked.overrides if each.lstrip("+~").split("=")[0].split(".")[0] in kept]
        overrides = [*shared, *_overrides(entry, number)]
        yield Asked(raw("sample", overrides), asked.folder, "sample", overrides)


def _overrides(entry: Mapping[str, Any], number: int) -> Iterator[str]:
    """Yields the options of a stage as those of a command line."""
    for name, value in entry.items():
        if name not in (*_OPTIONS, *_GROUPS):
            available = ", ".join((*_OPTIONS, *_GROUPS))
            raise ConfigurationError(f"cascade: stage {number} has no option {name} (available: {available})")
        if name in _GROUPS and isinstance(value, Mapping):
            new = "++" if name == "condition" else ""
            yield from (f"{new}{name}.{option}={written(each)}" for option, each in value.items())
        else:
            yield f"{name}={written(value)}"


@torch.no_grad()
def check_chain(stages: Sequence[Stage], item: Mapping[str, Tensor], seeds: Sequence[int]) -> None:
    """Raises `ValueError` if a stage cannot take samples of the one before; `item` is the condition of one sample."""
    for before, stage in pairwise(stages):
        pipeline = before.pipeline
        there = {name: values.to(pipeline.device) for name, values in item.items()}
        sample = pipeline.codec.decode(torch.zeros(1, *pipeline.shape, device=pipeline.device), there)
        batch = stage.batch(sample.cpu(), item, seeds)
        if stage.plain["sampler"] is not None:
            stage.pipeline.guided({"position": torch.zeros(1), **batch})


def _source(
    plain: dict[str, Any], checkpoint: Checkpoint, session: Session
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Returns the content of a checkpoint with the weights to sample, and their source for `result.json`."""
    own, content = plain["ema"]["length"], checkpoint.content
    if own is not None:
        key = [str(checkpoint.path), plain["ema"]]
        content = session.keep("average", key, lambda: reconstructed(checkpoint.path, **plain["ema"]))
    weights = plain["weights"] if plain["weights"] != "ema" else next(iter(content.get("ema", {})), "raw")
    weights = str(weights) if own is None else content["reconstruction"]
    return content, {"checkpoint": str(checkpoint.file), "weights": weights}


def _pipeline(
    plain: dict[str, Any],
    chosen: Any,
    number: int,
    content: Mapping[str, Any],
    source: dict[str, Any],
    session: Session,
) -> Pipeline:
    """Returns the model with what samples it; `chosen` is the guidance that the command chooses itself."""
    weights, targets, path = str(plain["weights"]), plain["allow_targets"], plain["checkpoint"]
    allowed = (*USER_TARGETS, *targets)
    key = [source, targets, number, *(plain.get("adapters") or [])]
    pipeline = session.keep("pipeline", key, lambda: _adapted(restored(content, weights, targets, path), plain))
    _change(pipeline, plain, content)
    if plain["sampler"] is not None:
        pipeline.sampler = build(plain["sampler"], allowed)
        pipeline.guidance = built_guides(plain, chosen, content)
        pipeline.constraint = build(plain["constraint"], allowed)
    pipeline.view = build(plain["view"], allowed) or type(pipeline).view
    return pipeline


def _changes(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of the adapters of the run that the command changes; earlier versions had none."""
    return {name: value for name, value in (plain.get("adapter") or {}).items() if value != AS_RUN}


def _adapted(pipeline: Pipeline, plain: Mapping[str, Any]) -> Pipeline:
    """Returns the model with the adapters that the command adds."""
    for entry in plain.get("adapters") or []:
        if unknown := sorted(set(entry) - {"checkpoint", "scale", "weights"}):
            raise ConfigurationError(
                f"adapters: an entry has no option {unknown[0]} (available: checkpoint, scale, weights)"
            )
        if "checkpoint" not in entry:
            raise ConfigurationError("adapters: an entry has no checkpoint: set {checkpoint: RUN}")
        scale, weights = entry.get("scale", 1.0), str(entry.get("weights", "ema"))
        check_value("adapters.scale", Annotated[float, Ge(0)], scale)
        if not hasattr(pipeline, "attach"):
            raise ConfigurationError(f"adapters change diffusion models, but this one is a {type(pipeline).__name__}")
        add_adapters(pipeline, entry["checkpoint"], scale, weights, plain["allow_targets"])
    return pipeline


def _change(pipeline: Pipeline, plain: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Sets strength and noise levels of the adapters of the run, which an earlier trial may have changed."""
    nodes, changes = content["config"]["pipeline"].get("adapters") or {}, _changes(plain)
    if changes and not nodes:
        named = options({f"adapter.{name}": value for name, value in changes.items()})
        raise ConfigurationError(f"{named} has no effect: the run has no adapter; see adapters")
    for name, node in nodes.items():
        chosen = {"scale": node.get("scale", 1.0), "interval": node.get("interval"), **changes}
        pipeline.adapters[name].rescale(pipeline, name, chosen["scale"])
        pipeline.adapters[name].limit(pipeline, name, chosen["interval"])
