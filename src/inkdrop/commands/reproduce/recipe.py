"""A recipe: the node `baseline` of an experiment, which says what was published, and how it is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Len
from omegaconf import OmegaConf

from inkdrop.commands.reproduce.verdicts import Target
from inkdrop.configuration.compose import CONF, composed_in
from inkdrop.configuration.suggestions import nearest
from inkdrop.errors import ConfigurationError
from inkdrop.files import read_yaml
from inkdrop.files.fields import wrong_field
from inkdrop.files.showing import harmless
from inkdrop.runs.free import within
from inkdrop.runs.identity import options_of

_NUMBER = float | int
_TEXTS = list[str]
_SEED = Annotated[int, Ge(0)]
_FIELDS: dict[str, Any] = {
    "source": dict[str, str] | None,
    "targets": Annotated[dict[str, dict[str, Any] | None], Len(1, 50)],
    "seeds": Annotated[list[_SEED], Len(1, 1000)],
    "protocol": str | None,
    "data": str | None,
    "weights": Annotated[int, Ge(0)] | None,
    "differs": _TEXTS,
    "needs": _TEXTS,
}
_TARGET: dict[str, Any] = {
    "value": _NUMBER | None,
    "deviation": Annotated[float, Gt(0)] | Annotated[int, Gt(0)] | None,
    "runs": Annotated[int, Ge(2)] | None,
    "tolerance": Annotated[float, Ge(0)] | Annotated[int, Ge(0)] | None,
    "reason": str,
}
_SOURCE = ("paper", "place", "code", "read")
# Options in which two runs of one recipe may differ; what never matters to a run is left out already. Those of speed
# change the order of sums, which no verdict sees.
_SPEED = ("channels_last", "compile", "optimizer.foreach", "optimizer.fused")
_NOT_COMPARED = ("seed", "name", "defaults", "hydra", *_SPEED)


@dataclass(frozen=True)
class Recipe:
    """What an experiment is compared with.

    - `name`: name of the experiment.
    - `folder`: the configuration folder that has `experiment/NAME.yaml`.
    - `options`: the options that matter, by path.
    - `targets`: published figures by metric.
    - `seeds`: seeds of the runs.
    - `source`: where the figures stand, and how they were read.
    - `protocol`, `data`, `weights`: hash of the measurement, fingerprint of the data and number of weights, or None.
    - `differs`: what is not as published.
    - `needs`: what a run needs and this repository lacks.
    """

    name: str
    folder: Path
    options: dict[str, Any]
    targets: dict[str, Target]
    seeds: list[int]
    source: dict[str, str] = field(default_factory=dict)
    protocol: str | None = None
    data: str | None = None
    weights: int | None = None
    differs: list[str] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)

    @property
    def is_published(self) -> bool:
        """Whether it has a published figure."""
        return any(each.value is not None for each in self.targets.values())


def read_recipe(name: str, folder: str | None = None, options: Sequence[str] = ()) -> Recipe:
    """Returns the recipe of an experiment, which is what its file says, as options of the command line leave it.

    - `name`: name of the experiment.
    - `folder`: a further configuration folder, as --config-dir names it.
    - `options`: options of train.

    Raises `ConfigurationError` for an experiment without `baseline`, and for a wrong one.
    """
    config = composed_in(folder, "train", [f"experiment={name}", *options])
    places = [Path(each.path) for each in config.hydra.runtime.config_sources if each.schema == "file"]
    own = next((each for each in places if _is_recipe(each / "experiment" / f"{name}.yaml")), None)
    if own is None:
        known = names(folder)
        advice = f"did you mean {near}?" if (near := nearest(name, known)) else f"recipes are {', '.join(known)}"
        raise ConfigurationError(f"experiment={harmless(name)} has no baseline to be compared with: {advice}")
    # What an experiment inherits was published of another one.
    written = OmegaConf.create({"baseline": read_yaml(own / "experiment" / f"{name}.yaml").get("baseline")})
    changes = OmegaConf.from_dotlist([each for each in options if each.startswith("baseline.")])
    node: Any = OmegaConf.to_container(OmegaConf.merge(written, changes))["baseline"] or {}  # type: ignore[index, call-overload]
    if (wrong := _wrong(node)) is not None:
        raise ConfigurationError(f"the baseline of experiment={harmless(name)} is not valid: {wrong}")
    targets = {metric: Target(**(target or {})) for metric, target in node.pop("targets").items()}
    return Recipe(name, own, compared(config), targets, **{key: each for key, each in node.items() if each is not None})


def names(folder: str | None = None) -> list[str]:
    """Returns the experiments that have a recipe, in `conf/` and in a further configuration folder."""
    found = []
    for place in (CONF, *([Path(folder)] if folder else [])):
        for file in sorted((place / "experiment").glob("*.yaml")):
            if _is_recipe(file):
                found.append(file.stem)
    return list(dict.fromkeys(found))


def _is_recipe(file: Path) -> bool:
    """Returns whether an experiment has its baseline itself, and not only that of one which it extends."""
    return file.is_file() and "\nbaseline:" in file.read_text(errors="replace")


def compared(config: Any) -> dict[str, Any]:
    """Returns the options of a configuration in which a run may not differ from its recipe, by path."""
    options = options_of(config)
    return {
        path: value
        for path, value in options.items()
        if value not in (None, {}, []) and not within(path, _NOT_COMPARED)
    }


def _wrong(node: Mapping[str, Any]) -> str | None:
    """Returns what is wrong with a node `baseline`, or None."""
    if unknown := sorted(set(node) - set(_FIELDS)):
        return f"{harmless(unknown[0])} is unknown: fields are {', '.join(_FIELDS)}"
    wrong = wrong_field(node, _FIELDS, ("targets", "seeds"))
    if wrong is None and (unknown := sorted(set(node.get("source") or {}) - set(_SOURCE))):
        wrong = f"source.{harmless(unknown[0])} is unknown: fields are {', '.join(_SOURCE)}"
    for metric, target in node["targets"].items() if wrong is None else ():
        wrong = wrong or _wrong_target(metric, target or {})
    return wrong


def _wrong_target(metric: str, target: Mapping[str, Any]) -> str | None:
    place = f"targets.{harmless(metric)}"
    if unknown := sorted(set(target) - set(_TARGET)):
        return f"{place}.{harmless(unknown[0])} is unknown: fields are {', '.join(_TARGET)}"
    if (wrong := wrong_field(target, _TARGET)) is not None:
        return f"{place}.{wrong}"
    if target.get("value") is None:
        return None
    if target.get("deviation") is not None:
        return None if target.get("runs") else f"{place}.runs, the number of runs of the deviation, is missing"
    if target.get("tolerance") is None or not target.get("reason"):
        return f"{place} needs deviation and runs, or tolerance and its reason"
    return None
