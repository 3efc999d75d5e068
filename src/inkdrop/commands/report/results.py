"""Reads `result.json`, which may come from an untrusted source: values are checked, and names made harmless."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le, Len

from inkdrop.errors import UnreadableError
from inkdrop.files import read_json
from inkdrop.files.fields import wrong_field
from inkdrop.files.showing import harmless
from inkdrop.files.value_names import metric_of
from inkdrop.runs.free import FREE, within

MAX_BYTES, MAX_METRICS = 2**22, 1000  # of one file
_LARGEST = 10**300  # of integers, which must be convertible to floats
_INTEGER = Annotated[int, Ge(-_LARGEST), Le(_LARGEST)]
_NUMBER = float | _INTEGER
_MEASURED = dict[str, dict[str, Any]]
_FIELDS: dict[str, Any] = {
    "metrics": Annotated[dict[str, _NUMBER], Len(0, MAX_METRICS)] | None,
    "protocol": dict[str, Any],
    "network_calls": Annotated[int, Ge(0), Le(10**9)] | None,
}
_FACTS: dict[str, Any] = {
    **_FIELDS,
    **dict.fromkeys(("seconds", "samples_per_second", "flops", "steps", "threads", "trained_weights"), _NUMBER | None),
    "seed": _INTEGER | None,
    "git_commit": str | None,
    "versions": Annotated[dict[str, str], Len(0, MAX_METRICS)],
}
_PROTOCOL: dict[str, Any] = {
    "measurement": dict[str, Any],
    "metrics": _MEASURED,
    "sampling": dict[str, Any],
    "likelihoods": _MEASURED,
    "variants": Annotated[_MEASURED, Len(0, MAX_METRICS)],
}
NO_SETTING = (*FREE, "seed", "name", "defaults", "hydra")
# In the order of their columns.
COSTS = ("network calls", "trained weights", "seconds", "samples per second", "FLOPs")


@dataclass(frozen=True)
class Result:
    """What one run has measured, or one variant of its samples.

    - `name`: its folder, followed by `@` and the variant.
    - `folder`: where its files are.
    - `settings`: its options by path.
    - `seed`: what distinguishes it from others of the same settings, or None.
    - `metrics`: values by name.
    - `protocols`: protocol of each metric, with its hash.
    - `costs`: those of `COSTS` that are known.
    - `facts`: versions, commit and threads by name.
    - `variant`: name of the variant, or an empty text.
    - `kind`: where the settings come from, `run` for `config.yaml`, `samples` for the protocol, else `folder`.
    - `overrides`: options by which a sweep distinguishes its trials.
    """

    name: str
    folder: Path
    settings: dict[str, Any]
    seed: int | None
    metrics: dict[str, float]
    protocols: dict[str, dict[str, Any]]
    costs: dict[str, float] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    variant: str = ""
    kind: str = "samples"
    overrides: dict[str, str] = field(default_factory=dict)

    def protocol(self, metric: str) -> dict[str, Any]:
        """Returns the protocol of a metric, which its repeats and variants share."""
        return self.protocols.get(metric_of(metric), {})

    def completed(self, other: Result) -> Result:
        """Returns this result with the metrics, protocols and costs that only the other one has."""
        return replace(
            self,
            metrics={**other.metrics, **self.metrics},
            protocols={**other.protocols, **self.protocols},
            costs={**other.costs, **self.costs},
        )


def read_results(file: Path, name: str, config: Mapping[str, Any] | None = None) -> list[Result]:
    """Returns the results in a `result.json`: that of the samples, and one for each measured variant.

    `name` is what the result is called. The settings are those of `config`, the content of the run's `config.yaml`, and
    without it those of the protocol. A file without metrics has no results. Raises `UnreadableError` for a file of
    another format.
    """
    content = read_json(file, max_bytes=MAX_BYTES)
    protocol = content.get("protocol", {"sampling": {}, "metrics": {}, "measurement": {}})
    if (wrong := wrong_field(content, _FACTS) or _wrong_protocol(protocol)) is not None:
        raise UnreadableError(f"{harmless(file)} is not a result of inkdrop: {wrong}")
    if not content.get("metrics"):
        return []
    metrics = {harmless(name): float(value) for name, value in content["metrics"].items()}
    protocols = {harmless(name): {**own, **protocol["measurement"]} for name, own in protocol["metrics"].items()}
    protocols |= {harmless(name): own for name, own in protocol.get("likelihoods", {}).items()}
    variants, facts = protocol.get("variants", {}), _facts(content)

    def result(sampling: Mapping[str, Any], values: dict[str, float], variant: str = "") -> Result:
        own = f"{name}@{variant}" if variant else name
        costs = _costs(content, sampling.get("network_calls", content.get("network_calls")))
        if config is not None:
            kind, seed, settings = "run", content.get("seed"), settings_of(config)
        elif sampling:
            kind, seed = "samples", sampling.get("seed", content.get("seed"))
            settings = {"checkpoint": content.get("checkpoint"), **dict(leaves(sampling))}
        else:  # nothing is known of its options: it is a setting by itself
            kind, seed, settings = "folder", None, {"folder": own}
        settings = {path: value for path, value in settings.items() if path not in ("seed", "network_calls")}
        settings["variant"] = variant
        return Result(own, file.parent, settings, seed, values, protocols, costs, facts, variant, kind)

    own = {key: value for key, value in metrics.items() if key.partition("@")[2] not in variants}
    results = [result(protocol["sampling"], own)]
    for variant, measured in variants.items():
        values = {key.partition("@")[0]: value for key, value in metrics.items() if key.endswith(f"@{variant}")}
        results.append(result(measured["sampling"], values, harmless(variant)))
    return [each for each in results if each.metrics]


def _costs(content: Mapping[str, Any], calls: int | None) -> dict[str, float]:
    keys = ("trained_weights", "seconds", "samples_per_second", "flops")
    found = zip(COSTS, (calls, *(content.get(key) for key in keys)), strict=True)
    return {name: float(value) for name, value in found if value is not None}


def _facts(content: Mapping[str, Any]) -> dict[str, str]:
    """Returns what bit-identical results depend on, as texts."""
    facts = {f"version of {name}": value for name, value in content.get("versions", {}).items()}
    facts |= {"git commit": content.get("git_commit"), "threads": content.get("threads")}
    return {harmless(name): harmless(value) for name, value in facts.items() if value is not None}


def _wrong_protocol(protocol: Mapping[str, Any]) -> str | None:
    """Returns a description of the first field of a protocol that is not of its type, or None."""
    wrong = wrong_field(protocol, _PROTOCOL, ("measurement", "metrics", "sampling"))
    if wrong is not None:
        return wrong
    measured = {**protocol["metrics"], **protocol.get("likelihoods", {})}
    faults = [wrong_field(own, {"hash": str}) for own in measured.values()]
    samplings = [protocol["sampling"], *(own.get("sampling") for own in protocol.get("variants", {}).values())]
    for sampling in samplings:
        fields = {**_FIELDS, "seed": _INTEGER | None}
        faults.append("sampling is not a mapping" if not isinstance(sampling, dict) else wrong_field(sampling, fields))
    return next((fault for fault in faults if fault is not None), None)


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields values by path; a part is represented by the name of its class."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield path, str(value).rpartition(".")[2]
            elif key != "_partial_":
                yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a `config.yaml` by path, without its seed, its name and those that change no result.

    References are kept as they are written, so that a value which is copied through them is one setting.
    """
    return {path: value for path, value in leaves(config) if not within(path, NO_SETTING)}
