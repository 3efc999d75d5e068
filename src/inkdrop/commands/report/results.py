"""Reads `result.json`, which may come from an untrusted source: values are checked, and names made harmless."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le, Len

from inkdrop.errors import UnreadableError
from inkdrop.files import read_json
from inkdrop.files.fields import wrong_field
from inkdrop.files.showing import harmless
from inkdrop.files.value_names import metric_of

MAX_BYTES, MAX_METRICS = 2**22, 1000  # of one file
_LARGEST = 10**300  # of integers, which must be convertible to floats
_NUMBER = float | Annotated[int, Ge(-_LARGEST), Le(_LARGEST)]
_MEASURED = dict[str, dict[str, Any]]
_FIELDS: dict[str, Any] = {
    "metrics": Annotated[dict[str, _NUMBER], Len(0, MAX_METRICS)] | None,
    "protocol": dict[str, Any],
    "network_calls": Annotated[int, Ge(0), Le(10**9)] | None,
}
_PROTOCOL: dict[str, Any] = {
    "measurement": dict[str, Any],
    "metrics": _MEASURED,
    "sampling": dict[str, Any],
    "likelihoods": _MEASURED,
    "variants": Annotated[_MEASURED, Len(0, MAX_METRICS)],
}


@dataclass(frozen=True)
class Result:
    """The content of one `result.json`.

    - `name`: its folder.
    - `settings`: options of sampling by path.
    - `network_calls`: network evaluations for one sample, or None.
    - `metrics`: values by name.
    - `protocols`: protocol of each metric, with its hash.
    """

    name: str
    settings: dict[str, Any]
    network_calls: int | None
    metrics: dict[str, float]
    protocols: dict[str, dict[str, Any]]

    def protocol(self, metric: str) -> dict[str, Any]:
        """Returns the protocol of a metric, which its repeats and variants share."""
        return self.protocols.get(metric_of(metric), {})


def read_results(file: Path, folder: Path) -> list[Result]:
    """Returns the results in a `result.json`: that of the samples, and one for each measured variant.

    A file without metrics has no results. Raises `UnreadableError` for a file of another format.
    """
    content = read_json(file, max_bytes=MAX_BYTES)
    protocol = content.get("protocol", {"sampling": {}, "metrics": {}, "measurement": {}})
    if (wrong := wrong_field(content, _FIELDS) or _wrong_protocol(protocol)) is not None:
        raise UnreadableError(f"{harmless(file)} is not a result of inkdrop: {wrong}")
    if not content.get("metrics"):
        return []
    metrics = {harmless(name): float(value) for name, value in content["metrics"].items()}
    protocols = {harmless(name): {**own, **protocol["measurement"]} for name, own in protocol["metrics"].items()}
    protocols |= {harmless(name): own for name, own in protocol.get("likelihoods", {}).items()}
    name, variants = str(file.parent.relative_to(folder)), protocol.get("variants", {})

    def result(name: str, sampling: Mapping[str, Any], values: dict[str, float]) -> Result:
        settings = {"checkpoint": content.get("checkpoint"), **dict(leaves(sampling))}
        calls = settings.pop("network_calls", content.get("network_calls"))
        return Result(name, settings, calls, values, protocols)

    own = {key: value for key, value in metrics.items() if key.partition("@")[2] not in variants}
    results = [result(name, protocol["sampling"], own)]
    for variant, record in variants.items():
        values = {key.partition("@")[0]: metrics[key] for key in metrics if key.partition("@")[2] == variant}
        results.append(result(f"{name}@{variant}", record["sampling"], values))
    return results


def _wrong_protocol(protocol: Mapping[str, Any]) -> str | None:
    """Returns a description of the first field of a protocol that is not of its type, or None."""
    wrong = wrong_field(protocol, _PROTOCOL, ("measurement", "metrics", "sampling"))
    if wrong is not None:
        return wrong
    measured = {**protocol["metrics"], **protocol.get("likelihoods", {})}
    faults = [wrong_field(own, {"hash": str}) for own in measured.values()]
    samplings = [protocol["sampling"], *(own.get("sampling") for own in protocol.get("variants", {}).values())]
    for sampling in samplings:
        faults.append("sampling is not a mapping" if not isinstance(sampling, dict) else wrong_field(sampling, _FIELDS))
    return next((fault for fault in faults if fault is not None), None)


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields values by path; a part is represented by the name of its class."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield path, str(value).rpartition(".")[2]
            else:
                yield from leaves(value, f"{path}.{key}" if path else key)
    else:
        yield path, node
