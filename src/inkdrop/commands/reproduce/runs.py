"""The runs of a recipe: one for each seed, by the launcher of sweeps, and what they have measured."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from inkdrop.commands.reproduce.points import plain
from inkdrop.commands.reproduce.recipe import Recipe, compared
from inkdrop.commands.sweep.record import read_trials
from inkdrop.commands.sweep.trials import FINISHED, folder_of
from inkdrop.distributed.signals import EXIT_CODES
from inkdrop.errors import ConfigurationError
from inkdrop.files import read_json, read_yaml
from inkdrop.files.showing import harmless
from inkdrop.metrics.protocol import is_higher_better, protocol_hash


@dataclass
class Runs:
    """What the runs of a recipe have left.

    - `results`: content of `result.json` by seed.
    - `folders`: run folders by seed.
    - `failed`: why a seed has no result.
    """

    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    folders: dict[int, Path] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def values(self, metric: str) -> dict[int, float | None]:
        """Returns the values of a metric by seed; None where it was not measured."""
        return {seed: each["metrics"].get(metric) for seed, each in self.results.items()}

    def floor(self, metric: str) -> float | None:
        """Returns the floor of a metric, which all seeds and all variants share."""
        name = f"{metric.partition('@')[0]}_floor"
        return next((each["metrics"][name] for each in self.results.values() if name in each["metrics"]), None)

    def is_higher_better(self, metric: str) -> bool:
        """Returns whether higher values of a metric are better."""
        name = metric.partition("@")[0]
        return any(is_higher_better(name, each.get("protocol", {})) for each in self.results.values())

    def protocols(self) -> set[str]:
        """Returns the hashes of how the runs were measured, one if they agree."""
        return {pinned(each.get("protocol", {})) for each in self.results.values()}

    def fingerprints(self) -> set[str]:
        """Returns the fingerprints of the data, one if they agree."""
        records = (each.get("protocol", {}).get("measurement", {}) for each in self.results.values())
        return {str(each.get("fingerprint", "")) for each in records}

    def weights(self) -> int | None:
        """Returns the number of weights of the network, or None without a checkpoint."""
        from inkdrop.pipeline import load

        for folder in self.folders.values():
            if (folder / "checkpoints").is_dir():
                network = load(str(folder), "raw").network
                return sum(each.numel() for each in network.parameters())
        return None


def train(recipe: Recipe, seeds: Sequence[int], sweep: Path, options: Sequence[str], flags: Sequence[str]) -> None:
    """Trains a recipe with these seeds as a sweep; finished seeds are kept, and interrupted ones resume.

    A trial that fails is left to the verdict; raises `SystemExit` for options that cannot work, and after a signal.
    """
    from inkdrop.commands.entry import start
    from inkdrop.commands.train import Train

    listed = ",".join(map(str, seeds))
    words = [*flags, "-m", f"experiment={recipe.name}", f"seed={listed}", *options, f"output_dir={sweep}"]
    before = list(sys.argv)
    try:
        start(Train(), words)
    except SystemExit as error:
        if error.code in (None, 0):
            return
        if error.code in (2, *EXIT_CODES.values()) or not (sweep / "sweep.json").is_file():
            raise
    finally:
        sys.argv[:] = before


def collected(recipe: Recipe, seeds: Sequence[int], sweep: Path) -> Runs:
    """Returns what the runs of a recipe with these seeds have measured, as the record of their sweep has them."""
    runs = Runs(failed=dict.fromkeys(seeds, "it has not run"))
    trials = read_trials(sweep) if (sweep / "sweep.json").is_file() else []
    for trial in trials:
        folder = folder_of(sweep, trial)
        if not (folder / "config.yaml").is_file():
            continue
        config = OmegaConf.create(read_yaml(folder / "config.yaml"))
        seed = config.get("seed")
        if seed not in seeds or seed in runs.results or plain(compared(config)) != plain(recipe.options):
            continue
        if trial.state == FINISHED and (folder / "result.json").is_file():
            _add(runs, seed, folder)
        else:
            runs.failed[seed] = f"its run {trial.state}" + (f" with code {trial.exit_code}" if trial.exit_code else "")
    return runs


def finished(folder: Path) -> tuple[Runs, dict[str, Any]]:
    """Returns what one finished run has measured, and its options; raises `ConfigurationError` for another folder."""
    for name in ("config.yaml", "result.json"):
        if not (folder / name).is_file():
            raise ConfigurationError(f"{harmless(folder)} has no {name}: checkpoint= is the folder of a finished run")
    config = OmegaConf.create(read_yaml(folder / "config.yaml"))
    runs = Runs()
    _add(runs, int(config.seed), folder)
    return runs, compared(config)


def _add(runs: Runs, seed: int, folder: Path) -> None:
    runs.results[seed], runs.folders[seed] = read_json(folder / "result.json"), folder
    runs.failed.pop(seed, None)


def pinned(record: dict[str, Any]) -> str:
    """Returns the hash of how values were measured, without what differs between seeds and machines.

    It leaves out the data, which have a fingerprint, and the number of network calls, which a solver of
    adaptive steps chooses.
    """
    sampled = {"": record.get("sampling", {})}
    sampled |= {name: each.get("sampling", {}) for name, each in record.get("variants", {}).items()}
    measured = {key: value for key, value in record.get("measurement", {}).items() if key != "fingerprint"}
    kept = [{**record.get(kind, {})} for kind in ("metrics", "likelihoods")]
    settings = [{name: {**each, "hash": ""} for name, each in kind.items()} for kind in kept]
    sampling = {
        name: {key: value for key, value in each.items() if key != "network_calls"} for name, each in sampled.items()
    }
    return protocol_hash({"measurement": measured, "settings": settings, "sampling": sampling})
