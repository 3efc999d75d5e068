"""Solvers on a trained network: `python benchmarks/network_solvers.py RUN` prints two tables and draws the first.

The first has the root mean square difference of x_0 to the solution by 1,000 steps from the same seeds, for every
solver with the grid that suits it and 5 to 50 network calls; the second the Fréchet distance of the same samples to the
training data by the evaluation of the run, beside that of the fine solution. Guidance and labels are those of the run.
Then how far held-out data come back from their noise.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.progress import track
from torch import Tensor

import inkdrop
from inkdrop.checkpoints import read_checkpoint
from inkdrop.configuration import CHECKPOINT_TARGETS, build
from inkdrop.data import collect
from inkdrop.noises import NoiseSource
from inkdrop.pipeline import Pipeline
from inkdrop.randomness import Generators
from inkdrop.samplers import (
    DDIM,
    PNDM,
    Calibrated,
    Sampler,
    abm,
    deis,
    dpm_2,
    dpm_3,
    dpm_multistep,
    dpmpp_2m,
    dpmpp_2s,
    dpmpp_3m,
    heun,
    ipndm,
    lms,
    midpoint,
    unipc,
)
from inkdrop.time_grids import Centred, Explicit, Karras, Linspace, LogSNR, TimeGrid, Trailing

centred = partial(Centred, centre=0.47, width=1.5)

CALLS = (5, 8, 10, 15, 20, 30, 50)
FINE = 1000  # steps of the solution that all are compared with
# Each with the grid that suits it, and the network calls that N steps take.
SOLVERS: dict[str, tuple[Callable[[TimeGrid], Sampler], Callable[[int], TimeGrid], Callable[[int], int]]] = {
    "abm, centred": (abm, centred, lambda n: n),
    "ddim, trailing": (DDIM, Trailing, lambda n: n),
    "ddim, centred": (DDIM, centred, lambda n: n),
    "heun, karras": (heun, Karras, lambda n: 2 * n - 1),
    "midpoint, karras": (midpoint, Karras, lambda n: 2 * n - 1),
    "dpm_2, log_snr": (dpm_2, LogSNR, lambda n: 2 * n - 1),
    "dpm_3, log_snr": (dpm_3, LogSNR, lambda n: 3 * n - 2),
    "dpmpp_2s, log_snr": (dpmpp_2s, LogSNR, lambda n: 2 * n - 1),
    "dpm_multistep, log_snr": (partial(dpm_multistep, order=2), LogSNR, lambda n: n),
    "dpmpp_2m, linspace": (dpmpp_2m, Linspace, lambda n: n),
    "dpmpp_2m, karras": (dpmpp_2m, Karras, lambda n: n),
    "dpmpp_2m, log_snr": (dpmpp_2m, LogSNR, lambda n: n),
    "dpmpp_3m, log_snr": (dpmpp_3m, LogSNR, lambda n: n),
    "unipc, linspace": (partial(unipc, order=3), Linspace, lambda n: n),
    "unipc, log_snr": (partial(unipc, order=3), LogSNR, lambda n: n),
    "deis, log_snr": (partial(deis, order=3), LogSNR, lambda n: n),
    "lms, karras": (partial(lms, order=4), Karras, lambda n: n),
    "ipndm, karras": (partial(ipndm, order=4), Karras, lambda n: n),
    "pndm, linspace": (PNDM, Linspace, lambda n: n + 9),
}


def main() -> None:
    """Prints the tables of one run and draws the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of `python train.py`")
    parser.add_argument("--num-samples", type=int, default=350, help="samples, all in one batch")
    parser.add_argument("--calls", type=int, nargs="+", default=CALLS, help="network calls")
    parser.add_argument("--distance", action="store_true", help="print the Fréchet distances too")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("solvers.png"), help="PNG file to write")
    arguments = parser.parse_args()
    cpu = f"{platform.machine()}, {os.cpu_count()} cores"
    machine = torch.cuda.get_device_name() if arguments.device == "cuda" else cpu
    print(f"{datetime.date.today()}, {machine}, torch {torch.__version__}\n")
    bench = Bench(arguments.run, arguments.num_samples, arguments.device)
    calls: list[int] = list(arguments.calls)
    rows = {name: [bench.samples(*solver, budget) for budget in calls] for name, solver in track(SOLVERS.items())}
    rows |= bench.calibrated(calls)
    errors = {name: [bench.error(each) for each in samples] for name, samples in rows.items()}
    table("difference to the fine solution", calls, errors, "{:.4f}")
    if arguments.distance:
        distances = {name: [bench.distance(each) for each in samples] for name, samples in rows.items()}
        print(f"\nFine solution: {bench.distance(bench.fine):.3f}; real data, held out: {bench.floor():.3f}\n")
        table("Fréchet distance", calls, distances, "{:.3f}")
    trips = ", ".join(f"{bench.round_trip(steps):.1e} by {steps} steps" for steps in (50, 200))
    print(f"\nHeld-out data to noise and back by abm, without guidance: {trips} each way")
    draw(calls, errors, arguments.output)


class Bench:
    """A run, its evaluation, and the fine solution for some seeds."""

    def __init__(self, run: Path, count: int, device: str):
        self.run, self.count = run, count
        self.pipeline: Pipeline = inkdrop.load(run).to(device)
        config = read_checkpoint(run)["config"]
        self.evaluation, self.data = (build(config[name], CHECKPOINT_TARGETS) for name in ("evaluation", "data"))
        self.batch = {name: part.to(device) for name, part in self.evaluation.conditions(self.data, count).items()}
        self.held_out = collect(self.data.splits["validation"])
        chain = self.pipeline.denoiser.schedule.num_timesteps
        grid: TimeGrid = Trailing(min(FINE, chain)) if chain else centred(FINE)
        self.fine = self._drawn(abm(grid))

    def _drawn(self, sampler: Sampler) -> Tensor:
        """x_0 (B, *), not yet raw data."""
        denoiser, cond = self.pipeline.guided(self.batch)
        noise = NoiseSource(denoiser.noise, Generators.from_seeds(range(self.count)))
        return sampler(denoiser, self.pipeline.start(range(self.count)).to(self.pipeline.device), cond, noise)

    def round_trip(self, num_steps: int) -> float:
        """Root mean square difference of x_0 of held-out data to what comes back from its noise."""
        items = {name: part[: self.count].to(self.pipeline.device) for name, part in self.held_out.items()}
        self.pipeline.sampler, self.pipeline.guidance = abm(centred(num_steps)), {}
        eps = self.pipeline.invert(items)
        denoiser, cond = self.pipeline.guided(items)
        noise = NoiseSource(denoiser.noise, Generators.from_seeds(range(len(eps))))
        back = self.pipeline.sampler(denoiser, eps, cond, noise)
        return float((back - self.pipeline.codec.encode(items)).square().mean().sqrt())

    def samples(
        self,
        method: Callable[[TimeGrid], Sampler],
        grid: Callable[[int], TimeGrid],
        cost: Callable[[int], int],
        budget: int,
    ) -> Tensor | None:
        """Samples of the most steps that are within the budget, or None where there is none or the grid refuses."""
        num_steps = max((n for n in range(2, budget + 1) if cost(n) <= budget), default=0)
        try:
            return self._drawn(method(grid(num_steps))) if num_steps else None
        except ValueError:  # times below those of training
            return None

    def calibrated(self, calls: list[int]) -> dict[str, list[Tensor | None]]:
        """Samples by the calibrations that lie beside the checkpoint, if there are any."""
        found = {}
        for file in (self.run / "checkpoints" / "calibrations").glob("*.json"):
            content = json.loads(file.read_text())
            found[content["num_steps"]] = Calibrated(Explicit(content["times"]), content["coefficients"])
        if not found:
            return {}
        return {"calibrated": [self._drawn(found[budget]) if budget in found else None for budget in calls]}

    def error(self, samples: Tensor | None) -> float | None:
        """Root mean square difference to the fine solution."""
        return None if samples is None else float((samples - self.fine).square().mean().sqrt())

    def distance(self, samples: Tensor | None) -> float | None:
        """The first metric of the run's evaluation."""
        if samples is None:
            return None
        raw = self.pipeline.codec.decode(samples).cpu()
        return next(iter(self.evaluation.values([raw], self.data).values()))

    def floor(self) -> float:
        """The same of held-out data."""
        return next(iter(self.evaluation.floors_and_baselines(self.data, self.count).values()))


def table(title: str, calls: list[int], rows: dict[str, list[float | None]], form: str) -> None:
    """Prints one Markdown table, the best of each column in bold."""
    best = [min(v[k] for v in rows.values() if v[k] is not None) for k in range(len(calls))]  # type: ignore[type-var]
    print(f"| {title}, calls | {' | '.join(map(str, calls))} |\n|---|{'---|' * len(calls)}")
    for name, values in rows.items():
        cells = ["" if v is None else form.format(v) for v in values]
        bold = [f"**{c}**" if c and v == b else c for c, v, b in zip(cells, values, best, strict=True)]
        print(f"| {name} | {' | '.join(bold)} |")


def draw(calls: list[int], rows: dict[str, list[float | None]], output: Path) -> None:
    """Differences against calls, both on logarithmic axes."""
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    axes = figure.subplots()
    for number, (name, values) in enumerate(rows.items()):
        known = [(c, v) for c, v in zip(calls, values, strict=True) if v is not None]
        style = {"color": "black", "linewidth": 2.5} if name.startswith("abm") else {"color": f"C{number % 10}"}
        axes.plot(
            *zip(*known, strict=True),
            marker="o",
            markersize=3,
            label=name,
            linestyle="-" if number < 11 else "--",
            **style,
        )
    axes.set(xscale="log", yscale="log", xlabel="network calls", ylabel="root mean square difference to 1,000 steps")
    axes.set_ylim(top=min(2.0, axes.get_ylim()[1]))  # what is further off than data are from each other is lost
    axes.set_xticks(calls, list(map(str, calls)))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(output)
    print(f"\n{output}")


if __name__ == "__main__":
    main()
