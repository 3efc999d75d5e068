"""Protocols: how a value was measured, and a hash by which values are known to be comparable."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from scipy import stats

from inkdrop.configuration.moved import hashed_guides
from inkdrop.files.showing import harmless
from inkdrop.files.value_names import metric_of


def sampling_facts(
    pipeline: Mapping[str, Any], weights: object, seed: int, network_calls: int, precision: str
) -> dict[str, Any]:
    """Returns how samples were made.

    - `pipeline`: the configuration of the pipeline, of which sampler, guidance, constraint and origin count.
    - `weights`: name of the weights.
    - `seed`: seed of the first sample.
    - `network_calls`: network evaluations for one sample.
    - `precision`: precision of the computation.
    """
    guidance = pipeline.get("guidance")
    chosen = {"sampler": pipeline.get("sampler"), "guidance": hashed_guides(guidance)}
    chosen |= {name: pipeline[name] for name in ("constraint", "origin") if pipeline.get(name) is not None}
    return {**chosen, "weights": weights, "seed": seed, "network_calls": network_calls, "precision": precision}


def protocol(
    measurement: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, Any]],
    sampling: Mapping[str, Any],
    likelihoods: Mapping[str, Mapping[str, Any]] | None = None,
    higher: Collection[str] = (),
) -> dict[str, Any]:
    """Returns the record that is stored with values: how they were measured, and hashes of it.

    - `measurement`: what all metrics depend on.
    - `metrics`: settings of each metric.
    - `sampling`: how the samples were made.
    - `likelihoods`: settings of each likelihood of held-out items.
    - `higher`: names of the metrics whose higher values are better; no hash depends on them.

    Values of a metric with equal hashes were measured in the same way and may share a column; results with equal `hash`
    were also sampled in the same way. Likelihoods are measured on held-out items, so that their hashes cover only their
    own settings.
    """
    hashed = {
        name: {"hash": protocol_hash({"measurement": measurement, "metric": metric}), **metric}
        for name, metric in metrics.items()
    }
    parts = {"measurement": dict(measurement), "metrics": hashed, "sampling": dict(sampling)}
    if likelihoods:
        parts["likelihoods"] = {
            name: {"hash": protocol_hash(settings), **settings} for name, settings in likelihoods.items()
        }
    record = {"hash": protocol_hash(parts), **parts}
    for name in hashed.keys() & set(higher):
        hashed[name]["better"] = "higher"
    return record


def protocol_hash(facts: Mapping[str, Any]) -> str:
    """Returns twelve hexadecimal digits of the SHA-256 of facts, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()[:12]


def short(count: int) -> str:
    """Returns a number of samples as it is written in names: 350, 2k, 50k."""
    return f"{count // 1000}k" if count % 1000 == 0 and count else str(count)


def hash_of(name: str, record: Mapping[str, Any]) -> str:
    """Returns the hash of the protocol of a value, or an empty text if the record does not have it."""
    known = {**record.get("metrics", {}), **record.get("likelihoods", {})}
    return str(known.get(metric_of(name), {}).get("hash", ""))


def is_higher_better(name: str, record: Mapping[str, Any]) -> bool:
    """Returns whether higher values of a name are better, as far as the record says so."""
    return bool(record.get("metrics", {}).get(metric_of(name), {}).get("better") == "higher")


def summary(values: Mapping[str, float], record: Mapping[str, Any]) -> str:
    """Returns lines for the terminal: each value with the hash of its protocol."""
    lines = (f"{harmless(name):36} {value:<12.4f} {hash_of(name, record)}" for name, value in values.items())
    return "\n".join(line.rstrip() for line in lines)


def over_repeats(values: Sequence[Mapping[str, float]], higher: Collection[str] = ()) -> dict[tuple[str, str], float]:
    """Returns the value, or of several the mean, 95% interval by Student's t and best value, by name and ending.

    The best value is the lowest, `_min`, or for a name in `higher` the highest, `_max`.
    """
    if len(values) == 1:
        return {(name, ""): value for name, value in values[0].items()}
    result: dict[tuple[str, str], float] = {}
    for name in values[0]:
        each = [value[name] for value in values]
        mean = statistics.fmean(each)
        half = float(stats.t.ppf(0.975, len(each) - 1)) * statistics.stdev(each) / math.sqrt(len(each))
        result |= {
            (name, ""): mean,
            (name, "_low"): mean - half,
            (name, "_high"): mean + half,
            (name, "_max" if name in higher else "_min"): max(each) if name in higher else min(each),
        }
    return result
