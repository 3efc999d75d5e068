"""What the image tasks reach: `python benchmarks/image_tasks.py FOLDER [PART ...]` prints a table for each part.

Parts: mixture, gaussians, edits, digits, resolution, cascade, segmentation, cost; without any, all of them, in
less than two hours on two cores. Runs are trained into FOLDER once, by their experiments. The last column says whether
a figure meets what its row asks for; the command ends with code 1 if one does not.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import inkdrop
from inkdrop.configuration import build
from inkdrop.constraints import ConstraintFactory, Particles, Replacement
from inkdrop.data import Digits, Scenes
from inkdrop.data.contents import contents
from inkdrop.metrics import Classifier
from inkdrop.metrics.frechet import frechet_distance
from inkdrop.metrics.moments import GaussianStatistics
from inkdrop.metrics.scene_judge import judge, look
from inkdrop.pipeline import Pipeline
from inkdrop.pipeline.origins import Edit, Inverted
from inkdrop.samplers import Ancestral, heun
from inkdrop.time_grids import Centred, Resampled, TimeGrid, Trailing

for _folder in ("tests", "docs"):  # exact denoisers, and how experiments are composed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / _folder))
_ANALYTIC, _CHOICES = importlib.import_module("analytic"), importlib.import_module("choices")
SCHEDULES, BatchGaussian, mixture = _ANALYTIC.SCHEDULES, _ANALYTIC.BatchGaussian, _ANALYTIC.mixture
exact_pipeline, gaussian, sliced_w1 = _ANALYTIC.exact_pipeline, _ANALYTIC.gaussian, _ANALYTIC.sliced_w1

FAILED: list[str] = []


def row(name: str, shown: str, asks: str = "", met: bool | None = None) -> None:
    """Prints a line of the table."""
    verdict = "" if met is None else "yes" if met else "**no**"
    if met is False:
        FAILED.append(name)
    print(f"| {name} | {shown} | {asks} | {verdict} |", flush=True)


def trained(folder: Path, name: str, *options: str) -> Path:
    """Returns the run of this name, which is trained if it does not exist."""
    run = folder / name
    if not (run / "result.json").exists():
        inkdrop.train(*options, "logger=none", "callbacks.pictures=null", f"output_dir={run}")
    return run


def sampled(run: Path, *options: str) -> dict[str, Any]:
    """Returns result.json of samples of a run, in a new folder below it."""
    folder = run / "samples" / str(time.time_ns())
    return inkdrop.sample(f"checkpoint={run}", f"output_dir={folder}", *options)


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
        "particles": (free, ["constraint=particles", "constraint.copies=16", *LOWER]),
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
            grid = [] if "time_grid=resampled" in options else ["time_grid=trailing", "time_grid.num_steps=100"]
            more = ["evaluate=true", "metric=rmse", "extractor=none", "num_samples=350", "sampler=ancestral", *grid]
            sampled(run, *more, *options)
            x = _latest(run)
        shares[name] = kept(x)
        row(name, f"class kept {100 * shares[name]:.1f}%, PSNR of the hole {psnr(x):.2f} dB")
    mean = torch.where(torch.arange(8)[:, None] >= 4, means[labels], truth.float()).round().to(torch.uint8)
    row("mean of the true class", f"class kept {100 * kept(mean):.1f}%, PSNR of the hole {psnr(mean):.2f} dB")
    order = shares["replacement"] < shares["RePaint"] <= shares["particles"] <= shares["trained"]
    row("order", "replacement < RePaint <= particles <= trained", "as said", order)


def _latest(run: Path) -> Tensor:
    """Returns the newest samples of a run as (N, C, H, W)."""
    newest = max((run / "samples").glob("*/samples.npz"), key=lambda file: file.stat().st_mtime)
    with np.load(newest) as file:
        return torch.from_numpy(file["x"]).permute(0, 3, 1, 2)


def regression(experiment: str, steps: int, loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Returns the network of an experiment, fitted to map images to x in one call by another loss."""
    torch.manual_seed(0)
    pipeline: Pipeline = build(_CHOICES.composed([f"experiment={experiment}"])["pipeline"])
    network = pipeline.network.train()
    fields = {"picture": "small", "mask": "textured"}
    kind = "mask" if pipeline.shape[0] == 1 else "picture"
    train = Scenes({"x": kind, "image": fields[kind]}, list(pipeline.shape), 0, 64).splits["train"]
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    c_noise = torch.zeros(64)
    for _ in range(steps):
        rows = torch.randint(len(train["x"]), (64,))
        x = train["x"][rows].float() / 127.5 - 1
        cond = pipeline.conditioner({"image": train["image"][rows]})
        optimizer.zero_grad()
        loss(network(torch.zeros_like(x), c_noise, **cond), x).backward()
        optimizer.step()
        schedule.step()
    network.eval()

    @torch.no_grad()
    def mapped(image: Tensor) -> Tensor:
        cond = pipeline.conditioner({"image": image})
        return network(torch.zeros(len(image), *pipeline.shape), torch.zeros(len(image)), **cond)

    return mapped


def of_resolution(folder: Path) -> None:
    """Scenes of 8 x 8 enlarged to 16 x 16, beside bicubic enlargement and a regression."""
    run = trained(folder, "super_resolution", "experiment=super_resolution")
    data = Scenes({"x": "picture", "image": "small"}, [3, 16, 16], 0, 64)
    held_out, scenes = data.splits["validation"], contents(2, 480, unseen=False)
    truth, small = (held_out[name][torch.arange(480)] for name in ("x", "image"))

    def facts(x: Tensor) -> tuple[float, float, float]:
        x = x.float().clamp(0, 255).round()
        psnr = (10 * (255**2 / (x - truth.float()).square().mean((1, 2, 3)).clamp(min=1e-3)).log10()).mean()
        again = nn.functional.avg_pool2d(x, 2)
        error = ((again - small.float()) / 127.5).square().mean()
        right = judge(look(x.to(torch.uint8), "bright"), scenes).binding.double().mean()
        return float(psnr), float(error), float(right)

    mapped = regression("super_resolution", 1500, nn.functional.mse_loss)
    pipeline = inkdrop.load(run)
    ways = {
        "bicubic": nn.functional.interpolate(small.float(), scale_factor=2, mode="bicubic"),
        "regression": (mapped(small) + 1) * 127.5,
        "diffusion": pipeline({"image": small}, range(480)).float(),
    }
    values = {name: facts(x) for name, x in ways.items()}
    distance = {name: _frechet(x.clamp(0, 255), truth) for name, x in ways.items()}
    for name, (psnr, error, right) in values.items():
        row(name, f"PSNR {psnr:.2f} dB, consistency {error:.1e}, binding {100 * right:.1f}%, FD {distance[name]:.3f}")
    row("consistency of diffusion", f"{values['diffusion'][1]:.1e}", "<= 1e-2", values["diffusion"][1] <= 1e-2)
    better = distance["diffusion"] < distance["regression"]
    row("FD, diffusion below regression", str(better), "yes", better)
    sharper = values["regression"][0] > values["diffusion"][0]
    row("PSNR, regression above diffusion", str(sharper), "yes", sharper)
    right = values["diffusion"][2] > values["bicubic"][2]
    row("binding, diffusion above bicubic", str(right), "yes", right)


def of_cascade(folder: Path) -> None:
    """Scenes drawn at 8 x 8 and enlarged, by models that were trained with noise in the small image or without."""
    base = trained(folder, "scenes_small", "experiment=scenes_small")
    plain = ["experiment=super_resolution", "conditioner.noise=0.0", "conditioner.concat_channels=4"]
    differences = []
    for seed in (0, 1, 2):
        with_noise = trained(folder, f"super_resolution_{seed}", "experiment=super_resolution", f"seed={seed}")
        without = trained(folder, f"super_resolution_plain_{seed}", *plain, f"seed={seed}")
        common = [
            *("evaluate=true", "metric=sliced_wasserstein", "extractor=identity"),
            *("num_samples=2000", "batch_size=250", f"seed={3000 * seed}"),
        ]
        noisy, exact = (
            sampled(base, *common, f"cascade=[{{checkpoint:{each}{more}}}]")["metrics"]
            for each, more in ((with_noise, ",condition:{image_noise:0.1}"), (without, ""))
        )
        key = next(name for name in noisy if name.endswith("_2k"))
        differences.append(noisy[key] - exact[key])
        row(f"cascade, seed {seed}", f"{key} with noise {noisy[key]:.4f}, without {exact[key]:.4f}")
    mean = statistics.fmean(differences)
    row("with noise less without, mean of 3 seeds", f"{mean:+.4f}", "< 0", mean < 0)


def _frechet(x: Tensor, truth: Tensor) -> float:
    """Returns the Frechet distance of the raw pixels of two sets, in [-1, 1]."""
    sets = [GaussianStatistics(each[0].numel()) for each in (x, truth)]
    for statistics_, each in zip(sets, (x, truth), strict=True):
        statistics_.update(each.flatten(1).double() / 127.5 - 1)
    return frechet_distance(*(each.compute() for each in sets))


def of_segmentation(folder: Path) -> None:
    """Masks of scenes on textured noise: single samples, ensembles, a network trained with cross-entropy."""
    run = trained(folder, "segmentation", "experiment=segmentation")
    result = sampled(run, "evaluate=true", "num_samples=7680", "batch_size=480", "per_item=16")["metrics"]
    iou, ensemble = result["iou_7680"], result["iou_ensemble_7680"]
    mapped = regression(
        "segmentation", 1500, lambda out, x: nn.functional.binary_cross_entropy_with_logits(out, (x + 1) / 2)
    )
    held_out = Scenes({"x": "mask", "image": "textured"}, [1, 16, 16], 0, 64).splits["validation"]
    truth, image = held_out["x"][torch.arange(480)] > 127, held_out["image"][torch.arange(480)]
    found = mapped(image) > 0
    crossed = float(((found & truth).sum((1, 2, 3)) / (found | truth).sum((1, 2, 3))).mean())
    row("IoU of a sample", f"{iou:.3f}", ">= 0.90", iou >= 0.9)
    row("IoU of 16 samples together", f"{ensemble:.3f}", ">= a sample", ensemble >= iou)
    row("IoU with cross-entropy", f"{crossed:.3f}", "within 0.02 of a sample", iou >= crossed - 0.02)


def of_cost(folder: Path) -> None:
    """Time of a network call with a constraint over that without one, interleaved."""
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


PARTS: dict[str, Callable[[Path], None]] = {
    "mixture": of_mixture,
    "gaussians": of_gaussians,
    "edits": of_edits,
    "digits": of_digits,
    "resolution": of_resolution,
    "cascade": of_cascade,
    "segmentation": of_segmentation,
    "cost": of_cost,
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
