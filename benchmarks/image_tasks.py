"""What the image tasks reach: `python benchmarks/image_tasks.py FOLDER [PART ...]` prints a table for each part.

Parts: mixture, gaussians, edits, digits, resolution, mnist_14, mnist_28, cascade, styles, guides, segmentation,
annotators, cost, sweep; without any, all of them. Runs are trained into FOLDER once, by their experiments. The last
column says whether a figure meets what its row asks for; the command ends with code 1 if one does not. Edits by text
are in benchmarks/editing.py.
"""

from __future__ import annotations

import importlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import derived
import torch
from image_to_image import (
    of_annotators,
    of_cascade,
    of_guides,
    of_mnist_14,
    of_mnist_28,
    of_resolution,
    of_segmentation,
    of_styles,
)
from task_table import FAILED, latest, row, sampled, trained
from torch import Tensor

import inkdrop
from inkdrop.constraints import ConstraintFactory, Particles, Replacement
from inkdrop.data import Digits
from inkdrop.metrics import Classifier
from inkdrop.pipeline.origins import Edit, Inverted
from inkdrop.samplers import Ancestral, heun
from inkdrop.time_grids import Centred, Resampled, TimeGrid, Trailing

_ANALYTIC = importlib.import_module("analytic")  # of the tests, which task_table adds to the path
SCHEDULES, BatchGaussian, mixture = _ANALYTIC.SCHEDULES, _ANALYTIC.BatchGaussian, _ANALYTIC.mixture
exact_pipeline, gaussian, sliced_w1 = _ANALYTIC.exact_pipeline, _ANALYTIC.gaussian, _ANALYTIC.sliced_w1

# Mixtures ------------------------------------------------------------------------------------------------------------


def conditional(denoiser: Any, y: float, count: int, seed: int) -> Tensor:
    """Exact draws of the second coordinate given that the first is y, sorted."""
    mean, covariance = denoiser.means, denoiser.covariances
    gain, gap = covariance[:, 0, 1] / covariance[:, 0, 0], y - mean[:, 0]
    weights = denoiser.weights * (-(gap**2) / covariance[:, 0, 0] / 2).exp() / covariance[:, 0, 0].sqrt()
    generator = torch.Generator().manual_seed(seed)
    mode = torch.multinomial(weights, count, replacement=True, generator=generator)
    std = (covariance[:, 1, 1] - gain * covariance[:, 0, 1]).sqrt()
    normal = torch.randn(count, dtype=torch.float64, generator=generator)
    return ((mean[:, 1] + gain * gap)[mode] + std[mode] * normal).sort().values


def of_mixture(folder: Path) -> None:
    """W1 of filled-in coordinates to the exact conditional law, for ten observations drawn at random."""
    count, mask = 2000, torch.tensor([True, False])
    denoiser = mixture(SCHEDULES["vp"], BatchGaussian(), spread=3)
    ways: dict[str, tuple[TimeGrid, ConstraintFactory]] = {
        "replacement": (Trailing(100), Replacement()),
        "RePaint": (Resampled(Trailing(50), 1, 10), Replacement()),
        **{f"K = {copies}": (Trailing(250), Particles(copies)) for copies in (1, 4, 16)},
    }
    ratios, order, within = [], 0, 0
    observations = denoiser.draw(10, seed=7)[:, 0].tolist()
    for number, y in enumerate(observations):
        exact = conditional(denoiser, y, 20 * count, 1)[10::20]
        floors = [float((conditional(denoiser, y, count, seed) - exact).abs().mean()) for seed in range(2, 22)]
        floor, spread = statistics.fmean(floors), statistics.stdev(floors)
        values = {}
        for name, (grid, constraint) in ways.items():
            pipeline = exact_pipeline(denoiser, Ancestral(grid))
            pipeline.constraint = constraint
            known = {"known": torch.tensor([[y, 0.0]]).expand(count, 2), "mask": mask.expand(count, 2)}
            samples = pipeline(known, range(5000 * number, 5000 * number + count))[:, 1]
            values[name] = float((samples.sort().values - exact).abs().mean())
        ratios.append(values["replacement"] / values["RePaint"])
        order += values["K = 1"] > values["K = 4"] > values["K = 16"]
        within += values["K = 16"] <= floor + 3 * spread
        shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        row(f"x_0 = {y:.2f}", f"{shown}; exact draws {floor:.3f} +- {spread:.3f}")
    ratio = f"{min(ratios):.2f} to {max(ratios):.2f}"
    row("W1 of replacement / RePaint", ratio, ">= 2 at each observation", min(ratios) >= 2)
    row("particles fall with K", f"{order} of 10", "10", order == 10)
    row("K = 16 within 3 deviations of exact draws", f"{within} of 10", "10", within == 10)


def of_gaussians(folder: Path) -> None:
    """Translation between two Gaussians, and the way back."""
    schedule, variances = SCHEDULES["vp"], ([0.3, 0.05], [0.02, 0.4])
    means = torch.tensor([[0.5, -0.2], [-0.6, 0.9]])
    old, new = (
        exact_pipeline(gaussian(schedule, mean, torch.diag(torch.tensor(each))), heun(Centred(200, 0.47, 1.5)))
        for mean, each in zip(means, variances, strict=True)
    )
    data = old.denoiser.draw(1000)
    there, back = Inverted(), Inverted()
    there.model, back.model = old, new
    translated = new({}, range(1000), **there.begin(new, {"x": data}, {})._asdict())
    returned = old({}, range(1000), **back.begin(old, {"x": translated}, {})._asdict())
    exact = means[1] + (torch.tensor(variances[1]) / torch.tensor(variances[0])).sqrt() * (data - means[0])
    map_error, trip = (float((a - b).square().mean().sqrt()) for a, b in ((translated, exact), (returned, data)))
    row("RMS to the closed-form map", f"{map_error:.1e}", "<= 1e-2", map_error <= 1e-2)
    row("RMS of the round trip, Heun, 200 steps", f"{trip:.1e}", "<= 1e-5", trip <= 1e-5)


def of_edits(folder: Path) -> None:
    """SDEdit of one guide: W1 to the exact law at every t_start."""
    count, guide = 4000, torch.tensor([[0.9, -0.3]], dtype=torch.float64)
    denoiser = mixture(SCHEDULES["vp"], BatchGaussian())
    pipeline = exact_pipeline(denoiser, Ancestral(Trailing(100)))
    for t_start in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0):
        (now,) = denoiser.schedule.points([t_start])

        def exact(seed: int, now: Any = now) -> Tensor:
            eps = torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            return denoiser.draw_given(now.alpha * guide + now.sigma * eps, now, seed + 1)

        floor = statistics.fmean(sliced_w1(exact(seed), exact(99)) for seed in range(0, 10, 2))
        start = Edit(t_start=t_start).begin(pipeline, {"x": guide.expand(count, 2)}, {})
        value = sliced_w1(pipeline({}, range(count), **start._asdict()), exact(99))
        row(f"t_start = {t_start}", f"{value:.3f}; exact draws {floor:.3f}", "<= 2 x", value <= 2 * floor)


# Digits and scenes ---------------------------------------------------------------------------------------------------

LOWER = (
    "derive.known={_target_:inkdrop.data.degradations.Copy}",
    "derive.mask={_target_:inkdrop.data.degradations.HalfMask,hidden:[lower]}",
)


def of_digits(folder: Path) -> None:
    """The lower half of 350 held-out digits filled in: does the digit keep its class?"""
    free = trained(folder, "digits_unconditional", "experiment=digits_unconditional")
    masked = trained(folder, "inpainting", "experiment=inpainting")
    stages = [[32, 32], [64]]
    extractor = Classifier("digits", [1, 8, 8], 10, stages, 64, batch_norm=False, weights="digits.safetensors")
    held_out = Digits([1, 8, 8], 10, 32).splits["validation"]
    truth, labels = held_out["x"][torch.arange(350)], held_out["label"][torch.arange(350)]
    train = Digits([1, 8, 8], 10, 32).splits["train"]
    every, of = train["x"][torch.arange(len(train["x"]))].float(), train["label"][torch.arange(len(train["x"]))]
    means = torch.stack([every[of == label].mean(0) for label in range(10)])

    def psnr(x: Tensor) -> float:
        error = (x.float() - truth.float())[..., 4:, :].square().mean((1, 2, 3)).clamp(min=1e-3)
        return float((10 * (255**2 / error).log10()).mean())

    def kept(x: Tensor) -> float:
        with torch.no_grad():
            return float((extractor.logits(extractor(x)).argmax(1) == labels).double().mean())

    ways = {
        "replacement": (free, ["constraint=replacement", *LOWER]),
        "RePaint": (free, ["constraint=replacement", "time_grid=resampled", *LOWER]),
        "8 particles, 50 steps": (free, ["constraint=particles", "constraint.copies=8", *LOWER]),
        "PiGDM": (free, ["constraint=pigdm", *LOWER]),
    }
    shares = {}
    for name, (run, options) in [*ways.items(), ("trained", (masked, []))]:
        if name == "trained":
            pipeline = inkdrop.load(run)
            mask = torch.ones(350, 1, 8, 8, dtype=torch.uint8)
            mask[:, :, 4:] = 0
            x = pipeline({"known": truth, "mask": mask}, range(350))
            x = torch.where(mask > 0, truth, x)
        else:
            grid = [] if "time_grid=resampled" in options else ["time_grid=trailing"]
            grid += ["time_grid.num_steps=50" if "steps" in name or not grid else "time_grid.num_steps=100"]
            more = ["evaluate=true", "metric=rmse", "extractor=none", "num_samples=350", "sampler=ancestral", *grid]
            sampled(run, *more, *options)
            x = latest(run)
        shares[name] = kept(x)
        row(name, f"class kept {100 * shares[name]:.1f}%, PSNR of the hole {psnr(x):.2f} dB")
    mean = torch.where(torch.arange(8)[:, None] >= 4, means[labels], truth.float()).round().to(torch.uint8)
    row("mean of the true class", f"class kept {100 * kept(mean):.1f}%, PSNR of the hole {psnr(mean):.2f} dB")
    order = shares["replacement"] < shares["RePaint"] <= shares["8 particles, 50 steps"] <= shares["trained"]
    row("order", "replacement < RePaint <= particles <= trained", "as said", order)


def of_cost(folder: Path) -> None:
    """Time of sampling with a constraint over that without one, interleaved, and of derived fields in training."""
    run = trained(folder, "digits_unconditional", "experiment=digits_unconditional")
    pipeline = inkdrop.load(run)
    pipeline.sampler = Ancestral(Trailing(40))
    known = {"known": torch.zeros(64, 1, 8, 8, dtype=torch.uint8), "mask": torch.ones(64, 1, 8, 8, dtype=torch.uint8)}
    known["mask"][:, :, 4:] = 0
    ratios = []
    for number in range(8):
        seconds = []
        for constraint in (None, Replacement()):
            pipeline.constraint = constraint
            start = time.process_time()
            pipeline(known if constraint else {}, range(64))
            seconds.append(time.process_time() - start)
        ratios += [seconds[1] / seconds[0]] * (number > 0)
    ratio = statistics.median(ratios)
    row("CPU of sampling with replacement / without", f"{ratio:.3f}", "<= 1.05", ratio <= 1.05)

    step, plain, shares = derived.step(), derived.seconds(derived.loader()), {}
    for name, field in derived.FIELDS.items():
        shares[name] = 100 * (derived.seconds(derived.loader(field)) - plain) / step
    most = max(shares, key=shares.__getitem__)
    row("most of a training step at 32 x 32", f"{shares[most]:.1f}%, {most}", "<= 5%", shares[most] <= 5)


def of_sweep(folder: Path) -> None:
    """A sweep over origin.t_start, which ends with a table."""
    run = trained(folder, "digits_unconditional", "experiment=digits_unconditional")
    root, where = Path(__file__).resolve().parents[1], folder / "sweeps" / str(time.time_ns())
    command = [sys.executable, str(root / "sample.py"), "-m", f"checkpoint={run.resolve()}", f"output_dir={where}"]
    command += ["origin=edit", "origin.t_start=0.2,0.6,1", "evaluate=true", "num_samples=350", "metric=[frechet,rmse]"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    head, *lines = [line.strip().strip("| ") for line in done.stdout.splitlines() if line.lstrip().startswith("|")]
    columns = [each.strip() for each in head.split("|")]
    found = [dict(zip(columns, (each.strip() for each in line.split("|")), strict=False)) for line in lines]
    found = [each for each in found if each.get("rmse_350", "-")[0].isdigit()]
    for each in found:
        row(f"t_start = {each['t_start']}", f"FD {each['fd_digits_350']}, RMS to the image {each['rmse_350']}")
    row("rows of the table that the sweep prints", str(len(found)), "3", len(found) == 3)


PARTS: dict[str, Callable[[Path], None]] = {
    "mixture": of_mixture,
    "gaussians": of_gaussians,
    "edits": of_edits,
    "digits": of_digits,
    "resolution": of_resolution,
    "mnist_14": of_mnist_14,
    "mnist_28": of_mnist_28,
    "cascade": of_cascade,
    "styles": of_styles,
    "guides": of_guides,
    "segmentation": of_segmentation,
    "annotators": of_annotators,
    "cost": of_cost,
    "sweep": of_sweep,
}


def main(folder: Path, *parts: str) -> None:
    """Prints the tables of these parts, or of all."""
    for name in parts or PARTS:
        part, start = PARTS[name], time.monotonic()
        print(f"\n{(part.__doc__ or '').splitlines()[0]}\n\n| {name} | found | asks for | met |\n|---|---|---|---|")
        part(folder)
        print(f"\n{name}: {time.monotonic() - start:.0f} s")
    if FAILED:
        sys.exit(f"not met: {', '.join(FAILED)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
