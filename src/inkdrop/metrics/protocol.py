"""Under which conditions a value was measured, and a hash that tells like from unlike."""

from __future__ import annotations

import hashlib
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from inkdrop.files.showing import harmless

_DERIVED = re.compile(r"(_floor(_\d+k?)?|_baseline|_low|_high|_min)?(@.*)?$")


def sampling_facts(
    pipeline: Mapping[str, Any], weights: object, seed: int, network_calls: int, precision: str
) -> dict[str, Any]:
    """How samples were made: the configuration of a pipeline's sampler and guidance, and the rest that matters."""
    chosen = {name: pipeline.get(name) for name in ("sampler", "guidance")}
    return {**chosen, "weights": weights, "seed": seed, "network_calls": network_calls, "precision": precision}


def protocol(
    measurement: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, Any]],
    sampling: Mapping[str, Any],
    likelihoods: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The record that stands beside values: what was done, and hashes that tell like from unlike.

    Values of a metric whose hashes are equal were measured alike and may share a column; results with equal `hash` were
    also sampled alike. `likelihoods` are measured on held-out items, so that their hashes cover their own facts alone.
    """
    hashed = {
        name: {"hash": protocol_hash({"measurement": measurement, "metric": metric}), **metric}
        for name, metric in metrics.items()
    }
    parts = {"measurement": dict(measurement), "metrics": hashed, "sampling": dict(sampling)}
    if likelihoods:
        parts["likelihoods"] = {name: {"hash": protocol_hash(own), **own} for name, own in likelihoods.items()}
    return {"hash": protocol_hash(parts), **parts}


def protocol_hash(facts: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of SHA-256: equal facts, in any order, give equal digits, and others do not."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()[:12]


def short(count: int) -> str:
    """A number of samples as it stands in names: 350, 2k, 50k."""
    return f"{count // 1000}k" if count % 1000 == 0 and count else str(count)


def metric_of(name: str) -> str:
    """The metric that a value belongs to: floors, intervals and variants were measured as the metric itself was."""
    return _DERIVED.sub("", name)


def hash_of(name: str, record: Mapping[str, Any]) -> str:
    """The hash of the protocol that a value was measured under, or nothing if the record does not tell."""
    known = {**record.get("metrics", {}), **record.get("likelihoods", {})}
    return str(known.get(metric_of(name), {}).get("hash", ""))


def summary(values: Mapping[str, float], record: Mapping[str, Any]) -> str:
    """Lines for the terminal: each value, and the hash of the protocol that it was measured under."""
    lines = (f"{harmless(name):36} {value:<12.4f} {hash_of(name, record)}" for name, value in values.items())
    return "\n".join(line.rstrip() for line in lines)


def over_repeats(values: Sequence[Mapping[str, float]]) -> dict[tuple[str, str], float]:
    """By name and ending: the value, or of several the mean (no ending), its 95% interval by Student, the lowest."""
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
            (name, "_min"): min(each),
        }
    return result
