"""Results of runs and of sampling, side by side: a table, and quality against network calls."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inkdrop.metrics.protocol import metric_of
from inkdrop.writing import replacing, write_text

_SHOWN = 12  # samples of each setting in a picture of all
_BESIDE = r"_(floor(_\d+k?)?|baseline)$"  # what is not a value of the samples


@dataclass(frozen=True)
class Result:
    """One `result.json`: its folder, how samples were made by path, the metrics, and the protocol of each metric."""

    name: str
    settings: dict[str, Any]
    network_calls: int | None
    metrics: dict[str, float]
    protocols: dict[str, dict[str, Any]]  # by metric, its hash among them

    def protocol(self, metric: str) -> dict[str, Any]:
        """That of a metric; over repeats and of a variant it is that of the metric itself."""
        return self.protocols.get(metric_of(metric), {})


@dataclass(frozen=True)
class Report:
    """Results side by side: rows of the settings that differ and of values, and what stands beside all of them."""

    settings: list[str]
    metrics: list[str]
    rows: list[Result]
    beside: dict[str, dict[str, float]]  # floor and baseline, by metric

    def table(self) -> list[list[str]]:
        """Header, a row for each result, one each for baseline and floor, and the hash of each metric's protocol."""
        names = self.settings or ["folder"]
        header = [*(_last(name) for name in names), "network calls", *self.metrics]
        rows = [
            [
                *(str(row.settings.get(name, "") if self.settings else row.name) for name in names),
                str(row.network_calls or ""),
                *(_number(row.metrics.get(name)) for name in self.metrics),
            ]
            for row in self.rows
        ]
        for kind in dict.fromkeys(kind for values in self.beside.values() for kind in values):
            values = [_number(self.beside.get(name, {}).get(kind)) for name in self.metrics]
            rows.append([kind, *[""] * len(names), *values])
        hashes = [self.protocol(name).get("hash", "unknown") for name in self.metrics]
        return [header, *rows, ["protocol", *[""] * len(names), *hashes]]

    def protocol(self, metric: str) -> dict[str, Any]:
        """What all values of a metric were measured under."""
        return next((row.protocol(metric) for row in self.rows if row.protocol(metric)), {})

    def markdown(self) -> str:
        """The table, and under it the protocol of each metric."""
        header, *rows = self.table()
        lines = ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *rows)]
        for metric in self.metrics:
            facts = self.protocol(metric)
            told = ", ".join(f"{name} {value}" for name, value in facts.items() if name != "hash")
            lines.append(f"\n{metric}: protocol {facts.get('hash', 'unknown')}: {told}")
        return "\n".join([*lines, ""])

    def write(self, folder: Path) -> list[Path]:
        """`report.md`, `report.csv` and, where network calls differ, `report.png`; returns the files."""
        files = [folder / "report.md", folder / "report.csv"]
        write_text(files[0], self.markdown())
        table = io.StringIO(newline="")
        csv.writer(table).writerows(self.table())
        write_text(files[1], table.getvalue())
        if len({row.network_calls for row in self.rows}) > 1:
            from inkdrop.plots import curves

            files.append(folder / "report.png")
            panels = {name: self.curves(name) for name in self.metrics}
            floors = {name: value for name in self.metrics if (value := self.beside.get(name, {}).get("floor"))}
            with replacing(files[-1]) as file:
                curves(panels, floors, "network calls").savefig(file)
        if strips := self._strips(folder):
            from inkdrop.plots import strips as drawn

            files.append(folder / "strips.png")
            with replacing(files[-1]) as file:
                drawn(strips).savefig(file)
        return files

    def _strips(self, folder: Path) -> dict[str, Any]:
        """The first images of each result in a row, by its settings; nothing unless all have the same seeds."""
        import numpy as np
        import torch

        from inkdrop.pictures import grid

        rows, seeds = {}, set()
        for row in self.rows:
            if not (folder / row.name / "samples.npz").exists():
                return {}
            with np.load(folder / row.name / "samples.npz", allow_pickle=False) as content:
                x = content["x"][:_SHOWN]
                seeds.add(tuple(content["seeds"][:_SHOWN]))
            if x.dtype != np.uint8 or x.ndim != 4:
                return {}
            label = ", ".join(f"{_last(name)} {row.settings.get(name)}" for name in self.settings) or row.name
            rows[f"{label}, {row.network_calls} calls"] = grid(torch.from_numpy(x).permute(0, 3, 1, 2), len(x))
        return rows if len(seeds) == 1 and len(rows) > 1 else {}

    def curves(self, metric: str) -> dict[str, list[tuple[float, float]]]:
        """Points of network calls and value, in order, by the settings that differ apart from the number of steps."""
        own = [name for name in self.settings if _last(name) != "num_steps"]
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in self.rows:
            if row.network_calls and (value := row.metrics.get(metric)) is not None:
                label = ", ".join(f"{_last(name)} {row.settings.get(name)}" for name in own) or metric
                lines.setdefault(label, []).append((row.network_calls, value))
        return {label: sorted(points) for label, points in lines.items()}


def report(folder: Path, only: str | None = None, without: Collection[Path] = ()) -> Report:
    """What lies in a folder and below, without what lies in some of its folders.

    `only` is the hash of a protocol whose values alone are shown. `ValueError` if nothing is there, or if values of
    unlike protocols would share a column.
    """
    left_out = {each.resolve() for each in without}
    files = [file for file in folder.rglob("result.json") if file.parent.resolve() not in left_out]
    results = [result for file in sorted(files, key=_numbers) for result in _read(file, folder)]
    if not results:
        raise ValueError(f"{folder} holds no result.json with metrics: train.py makes one, or sample.py evaluate=true")
    names = dict.fromkeys(name for each in results for name in each.metrics)
    metrics = [name for name in names if not re.search(_BESIDE, name)]
    for metric in metrics:
        if only is not None:
            for each in results:
                if not each.protocol(metric).get("hash", "").startswith(only):
                    each.metrics.pop(metric, None)
        _require_alike(metric, results)
    metrics = [name for name in metrics if any(name in each.metrics for each in results)]
    results = [each for each in results if any(name in each.metrics for name in metrics)]
    if not results:
        raise ValueError(f"no value in {folder} was measured under protocol {only}")
    beside: dict[str, dict[str, float]] = {}
    for name in names:
        if (match := re.search(_BESIDE, name)) and name[: match.start()] in metrics:
            value = next((each.metrics[name] for each in results if name in each.metrics), math.nan)
            beside.setdefault(name[: match.start()], {})[match[1].replace("_", " of ", 1)] = value
    paths = dict.fromkeys(path for each in results for path in each.settings)
    differ = [path for path in paths if len(_values(path, results)) > 1]
    return Report(differ, metrics, results, beside)


def _values(path: str, results: Sequence[Result]) -> set[str]:
    """The values of a setting; a part of another class, which has no such option, has none."""
    parent = path.rpartition(".")[0]
    return {repr(each.settings.get(path)) for each in results if path in each.settings or parent not in each.settings}


def _require_alike(metric: str, results: Sequence[Result]) -> None:
    """`ValueError` if values of this metric were measured under unlike protocols."""
    protocols = {each.protocol(metric).get("hash", "unknown"): each for each in results if metric in each.metrics}
    if len(protocols) > 1:
        facts = {key: dict(_leaves(each.protocol(metric))) for key, each in protocols.items()}
        paths = dict.fromkeys(path for own in facts.values() for path in own if path != "hash")
        differ = [path for path in paths if len({repr(own.get(path)) for own in facts.values()}) > 1]
        lines = [
            f"  {key}, such as {each.name}: " + ", ".join(f"{path} {facts[key].get(path)}" for path in differ)
            for key, each in protocols.items()
        ]
        told = "\n".join(lines)
        raise ValueError(f"{metric} was measured under unlike protocols:\n{told}\nchoose one: --protocol HASH")


def _read(file: Path, folder: Path) -> list[Result]:
    """What a `result.json` says of the samples, and of each variant that was measured beside them."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    if not (metrics := content.get("metrics")):
        return []
    protocol = content.get("protocol", {"sampling": {}, "metrics": {}, "measurement": {}})
    protocols = {name: {**own, **protocol["measurement"]} for name, own in protocol["metrics"].items()}
    protocols |= protocol.get("likelihoods", {})
    name, variants = str(file.parent.relative_to(folder)), protocol.get("variants", {})

    def result(name: str, sampling: Mapping[str, Any], values: dict[str, float]) -> Result:
        settings = {"checkpoint": content.get("checkpoint"), **dict(_leaves(sampling))}
        calls = settings.pop("network_calls", content.get("network_calls"))
        return Result(name, settings, calls, values, protocols)

    own = {key: value for key, value in metrics.items() if key.partition("@")[2] not in variants}
    results = [result(name, protocol["sampling"], own)]
    for variant, record in variants.items():
        values = {key.partition("@")[0]: metrics[key] for key in metrics if key.partition("@")[2] == variant}
        results.append(result(f"{name}@{variant}", record["sampling"], values))
    return results


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Values by path; a part goes by the name of its class."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield path, value.rpartition(".")[2]
            else:
                yield from _leaves(value, f"{path}.{key}" if path else key)
    else:
        yield path, node


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _number(value: float | None) -> str:
    """Five digits that count."""
    return "" if value is None else f"{value:.5g}"


def _numbers(file: Path) -> tuple[list[tuple[int, str]], str]:
    """Files in the order of the numbers in their names."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", str(file))], str(file)
