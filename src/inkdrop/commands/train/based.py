"""A configuration that takes model and data from an earlier run, or a model from a published folder, by `base=`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from inkdrop.checkpoints import read_checkpoint
from inkdrop.commands.train.published import OPEN, is_published, published_base
from inkdrop.configuration.compose import CONF
from inkdrop.configuration.suggestions import options
from inkdrop.errors import CheckpointError, ConfigurationError
from inkdrop.files import read_yaml
from inkdrop.files.showing import harmless

# What makes the model: a different value is refused.
MODEL = ("network", "denoiser", "noise", "schedule", "prediction", "conditioner", "codec")
# What trains and measures it: an experiment, or options that the user types, replace it.
REST = (
    *("data", "loss", "time_sampler", "weighting", "coupling", "sampler", "time_grid", "guidance"),
    *("extractor", "metric", "evaluation", "likelihood"),
)
_REFERENCE = re.compile(r"\$\{(?:oc\.select:)?(\w+)(?:,[^}]*)?\}")  # the whole value, which another group has


def based(
    config: DictConfig, overrides: Sequence[str], earlier: Mapping[str, Any] | None
) -> tuple[DictConfig, Mapping[str, Any] | None]:
    """Returns the configuration with the model, the data and the evaluation of its base, and that of the base.

    An option of the command line wins, and so does what an experiment that it names sets. A run that
    resumes knows them where the file of the base is gone. A folder of diffusers has a model alone.
    Raises `CheckpointError` for a base that is not a diffusion model.

    - `config`: the composed configuration, with unresolved references.
    - `overrides`: the options as they were typed.
    - `earlier`: the configuration of the run in this folder, if there is one.
    """
    path = config.get("base")
    if path is None:
        return config, None
    if config.get("init_from"):
        raise ConfigurationError("base=RUN has the initial weights: remove init_from")
    typed = [each.lstrip("+~").partition("=")[0].split("@")[0] for each in overrides]
    named = _of_experiment(config, overrides)
    raw: Any = OmegaConf.to_container(config, resolve=False)
    base = _base(str(path), earlier or {}, raw, {*typed, *named})
    taken = [*MODEL, *(name for name in REST if name not in named)]
    taken = [name for name in taken if name not in base.get(OPEN, ())]
    merged = config.copy()
    OmegaConf.set_struct(merged, False)
    for name in taken:
        if name in typed:
            continue
        if name not in base:
            merged.pop(name, None)
            continue
        merged[name] = _merged(raw.get(name), base[name], taken)
        for each in typed:
            if each.startswith(f"{name}.") and (value := OmegaConf.select(config, each, default=base)) is not base:
                OmegaConf.update(merged, each, value)
    data = merged.get("data")
    if isinstance(data, DictConfig) and data.get("shape", ()) is None:
        data.shape = base["data"]["shape"]
    return merged, base


def _of_experiment(config: DictConfig, overrides: Sequence[str]) -> set[str]:
    """The parts that an experiment of the command line sets; all of them for one that is not in `conf/`."""
    chosen = [each.partition("=")[2] for each in overrides if each.startswith("experiment=")]
    found: set[str] = set()
    for name in chosen:
        if not (file := CONF / "experiment" / f"{name}.yaml").is_file():
            return set(REST)
        content: dict[str, Any] = read_yaml(file)
        for each in content.pop("defaults", []):
            if isinstance(each, str) and each != "_self_":  # an experiment that it extends
                found |= _of_experiment(config, [f"experiment={each}"])
            elif isinstance(each, dict):
                found |= {str(key).removeprefix("override /") for key in each}
        found |= set(content)
    return found


def _base(path: str, earlier: Mapping[str, Any], raw: Mapping[str, Any], chosen: Collection[str]) -> Mapping[str, Any]:
    """The configuration of the base, or that of a run which was started from it if its file is gone."""
    if earlier.get("base") == path and not Path(path).exists():
        return _without_references(earlier)
    if is_published(Path(path)):
        return published_base(path, raw, chosen)
    config: Mapping[str, Any] = read_checkpoint(path, "base")["config"]
    if missing := [name for name in MODEL[:2] if not isinstance(config.get(name), Mapping)]:
        raise CheckpointError(
            f"base={harmless(path)} has no {missing[0]}: name the run of a diffusion model, or use init_from"
        )
    if config.get("adapter"):
        raise CheckpointError(
            f"base={harmless(path)} has adapters: merge them first by `python -m inkdrop merge`, and name the result"
        )
    return config


def _without_references(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of a record, without references."""
    plain: Any = OmegaConf.to_container(
        OmegaConf.create({k: v for k, v in config.items() if k != "hydra"}), resolve=True
    )
    return plain


def _merged(composed: Any, base: Any, taken: Iterable[str]) -> Any:
    """A part of the base, in which a reference to another part that is taken from it stays a reference."""
    if not isinstance(base, Mapping):
        return base
    composed = composed if isinstance(composed, Mapping) else {}
    return {name: _kept(composed.get(name), value, taken) for name, value in base.items()}


def _kept(composed: Any, base: Any, taken: Iterable[str]) -> Any:
    found = _REFERENCE.fullmatch(composed) if isinstance(composed, str) else None
    return composed if found and found[1] in taken and found[1] != "data" else base


def refuse_another_model(plain: Mapping[str, Any], base: Mapping[str, Any] | None) -> None:
    """Raises `ConfigurationError` if a resolved configuration is of another model than that of its base."""
    if base is None:
        return
    for name in (each for each in MODEL if each not in base.get(OPEN, ())):
        for path, before, now in _differences(name, base.get(name), plain.get(name)):
            raise ConfigurationError(
                f"{path}={harmless(now)} is not the model of base={harmless(plain['base'])}, which has "
                f"{options({path: before})}: remove it"
            )


def _differences(path: str, before: Any, now: Any) -> Iterable[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*before, *now]):
            if name == "dropout":  # of training alone
                continue
            yield from _differences(f"{path}.{name}", before.get(name), now.get(name))
    elif repr(before) != repr(now):
        yield path, before, now
