"""Parts of `benchmarks/image_tasks.py` about models of scenes and of MNIST that are trained for a task.

`options` of a part are those of its trainings: fewer samples in a step than the experiments have, so that all parts
together end within two hours on two cores.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from task_table import data_of, distance, drawn, latest, moments, part_of, regression, row, sampled, trained
from torch import Tensor, nn

import inkdrop
from inkdrop.data import Scenes
from inkdrop.data.contents import contents
from inkdrop.metrics.scene_judge import judge, look
from inkdrop.pipeline import Pipeline
from inkdrop.pipeline.origins import Edit

COUNT = 1000  # held-out items
Right = Callable[[Tensor], float]

SCENES = ["experiment=super_resolution", "data.batch_size=32", "trainer.max_steps=1500"]
DIGITS = ["experiment=mnist_super_resolution", "data.batch_size=32", "trainer.max_steps=700"]
SMALL = [*DIGITS, "data.shape=[1,14,14]"]
PLAIN = ["conditioner.noise=0.0", "conditioner.concat_channels=2"]


def enlargements(folder: Path, name: str, options: list[str], factor: int, right: Right) -> None:
    """Rows of a model that enlarges images, beside bicubic enlargement and a regression of the same size."""
    run = trained(folder, name, *options)
    splits = data_of(options)
    held_out, train = splits["validation"], splits["train"]
    items = torch.arange(min(COUNT, len(held_out["x"])))
    truth, small = held_out["x"][items], held_out["image"][items]
    reference = moments(train["x"][torch.arange(min(20_000, len(train["x"])))])
    pipeline = inkdrop.load(run)
    assert isinstance(pipeline, Pipeline)
    mapped = regression(options, nn.functional.mse_loss)
    ways = {
        "bicubic": nn.functional.interpolate(small.float(), scale_factor=factor, mode="bicubic"),
        "regression": (mapped(small) + 1) * 127.5,
        "diffusion": drawn(pipeline, {"image": small}).float(),
        "held-out images": truth.float(),
    }
    psnr, error, share, far = {}, {}, {}, {}
    for way, values in ways.items():
        x = values.clamp(0, 255).round()
        psnr[way] = _psnr(x, truth)
        error[way] = float(((nn.functional.avg_pool2d(x, factor) - small.float()) / 127.5).square().mean())
        share[way], far[way] = 100 * right(x.to(torch.uint8)), distance(x, reference)
        shown = f"PSNR {psnr[way]:.2f} dB, " if way != "held-out images" else ""
        row(f"{name}, {way}", f"{shown}consistency {error[way]:.1e}, right {share[way]:.1f}%, FD {far[way]:.3f}")
    found = f"{error['diffusion']:.1e}"
    row(f"{name}, consistency of diffusion", found, "<= 1e-2", error["diffusion"] <= 1e-2)
    found = f"{far['diffusion']:.3f}, {far['regression']:.3f}"
    row(f"{name}, FD of diffusion and regression", found, "diffusion below", far["diffusion"] < far["regression"])
    found = f"{psnr['diffusion']:.2f}, {psnr['regression']:.2f}"
    row(f"{name}, PSNR of diffusion and regression", found, "diffusion below", psnr["diffusion"] < psnr["regression"])
    found = f"{share['diffusion']:.1f}%, {share['bicubic']:.1f}%"
    row(f"{name}, right of diffusion and bicubic", found, "diffusion above", share["diffusion"] > share["bicubic"])


def _psnr(x: Tensor, truth: Tensor) -> float:
    error = (x - truth.float()).square().mean((1, 2, 3)).clamp(min=1e-3)
    return float((10 * (255**2 / error).log10()).mean())


def of_resolution(folder: Path) -> None:
    """Scenes of 4 x 4 pixels enlarged to 16 x 16: `right` is the share with the colours and shapes of the scene."""
    scenes = contents(2, COUNT, unseen=False)

    def right(x: Tensor) -> float:
        return float(judge(look(x, "bright"), scenes).binding.double().mean())

    enlargements(folder, "super_resolution", [*SCENES, f"data.num_held_out={COUNT}"], 4, right)


def of_mnist_14(folder: Path) -> None:
    """MNIST enlarged from 7 x 7 to 14 x 14: `right` is the share that a classifier of 28 x 28 recognises."""
    enlargements(folder, "mnist_14_0", SMALL, 2, recognised())


def of_mnist_28(folder: Path) -> None:
    """MNIST enlarged from 14 x 14 to 28 x 28: `right` is the share that a classifier recognises."""
    enlargements(folder, "mnist_28", DIGITS, 2, recognised())


def recognised() -> Right:
    """The share of digits that the classifier of MNIST recognises, of which smaller ones are enlarged for it."""
    labels = data_of(["experiment=mnist"])["validation"]["label"][torch.arange(COUNT)]
    classifier = part_of(["experiment=mnist"], "extractor")

    @torch.no_grad()
    def right(x: Tensor) -> float:
        large = nn.functional.interpolate(x.float(), [28, 28], mode="bicubic").clamp(0, 255).round().to(torch.uint8)
        logits = torch.cat([classifier.logits(classifier(each)) for each in large.split(250)])
        return float((logits.argmax(1) == labels).double().mean())

    return right


def of_cascade(folder: Path) -> None:
    """Digits drawn at 7 x 7 and enlarged, by models that were trained with noise in the small image or without."""
    for steps in (20, 3):
        cascades(folder, steps)


def cascades(folder: Path, steps: int) -> None:
    """Rows of cascades whose first stage is sampled in so many steps: with few of them its samples are worse."""
    base = trained(folder, "mnist_7", "experiment=mnist_small", "trainer.max_steps=1000")
    differences = []
    for seed in (0, 1, 2):
        with_noise = trained(folder, f"mnist_14_{seed}", *SMALL, f"seed={seed}")
        without = trained(folder, f"mnist_14_plain_{seed}", *SMALL, *PLAIN, f"seed={seed}")
        common = [
            *("evaluate=true", "metric=[frechet,sliced_wasserstein]", "extractor=identity"),
            *("num_samples=1000", "batch_size=250", f"seed={3000 * seed}", f"time_grid.num_steps={steps}"),
        ]
        noisy, exact = (
            sampled(base, *common, f"cascade=[{{checkpoint:{each}{more}}}]")["metrics"]
            for each, more in ((with_noise, ",condition:{image_noise:0.1}"), (without, ""))
        )
        differences.append(noisy["fd_raw_1k"] - exact["fd_raw_1k"])
        for name, values in (("with", noisy), ("without", exact)):
            shown = ", ".join(f"{key} {values[key]:.3f}" for key in ("fd_raw_1k", "fd_raw_1k_floor", "swd_raw_1k"))
            row(f"{steps} steps, seed {seed}, {name} noise", shown)
    mean = statistics.fmean(differences)
    row(f"{steps} steps, with noise less without, mean of 3 seeds", f"{mean:+.4f}", "< 0", mean < 0)


MASKS = ["experiment=segmentation"]
ANNOTATED = [
    *(*MASKS, "data.batch_size=16", "trainer.max_steps=1000"),
    *("data.fields.x=annotated", "+data.fields.annotators=annotators"),
]


def _crossed(out: Tensor, x: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(out, (x + 1) / 2)


def of_segmentation(folder: Path) -> None:
    """Masks of scenes on textured noise: single samples, ensembles, a network trained with cross-entropy."""
    run = trained(folder, "segmentation", *MASKS)
    result = sampled(run, "evaluate=true", "num_samples=7680", "batch_size=480", "per_item=16")["metrics"]
    iou, ensemble = result["iou_7680"], result["iou_ensemble_7680"]
    mapped = regression(MASKS, _crossed)
    held_out = data_of(MASKS)["validation"]
    truth, image = held_out["x"][torch.arange(480)] > 127, held_out["image"][torch.arange(480)]
    found = mapped(image) > 0
    crossed = float(((found & truth).sum((1, 2, 3)) / (found | truth).sum((1, 2, 3))).mean())
    row("IoU of a sample", f"{iou:.3f}", ">= 0.90", iou >= 0.9)
    row("IoU of 16 samples together", f"{ensemble:.3f}", ">= a sample", ensemble >= iou)
    row("IoU with cross-entropy", f"{crossed:.3f}", "within 0.02 of a sample", iou >= crossed - 0.02)


def of_annotators(folder: Path) -> None:
    """Masks by two annotators: the generalised energy distance of 8 samples, and of a network with cross-entropy."""
    run = trained(folder, "annotators", *ANNOTATED)
    options = ["evaluate=true", "metric=ged", "num_samples=3840", "batch_size=480", "per_item=8"]
    ged = sampled(run, *options)["metrics"]["ged_3840"]
    mapped = regression(ANNOTATED, _crossed)
    held_out = data_of(ANNOTATED)["validation"]
    image, both = (held_out[name][torch.arange(480)] for name in ("image", "annotators"))
    single = mapped(image) > 0
    other = _energy(single, both > 127)
    row("generalised energy distance, samples and cross-entropy", f"{ged:.3f}, {other:.3f}", "below", ged < other)


def _energy(mask: Tensor, marked: Tensor) -> float:
    """The generalised energy distance of one mask (N, 1, H, W) for each item to annotators (N, A, H, W)."""

    def apart(first: Tensor, second: Tensor) -> Tensor:
        both, either = ((first & second).sum((2, 3)), (first | second).sum((2, 3)))
        return 1 - both / either

    between = torch.stack([apart(marked, each[:, None]).mean(1) for each in marked.unbind(1)]).mean(0)
    return float((2 * apart(marked, mask).mean(1) - between).mean())


STYLE = ["experiment=scenes_unconditional", "data.batch_size=16", "trainer.max_steps=1000"]


def of_styles(folder: Path) -> None:
    """Bright scenes turned into pastel ones by two models: do they keep their contents, and change their style?"""
    bright = trained(folder, "bright", *STYLE)
    pastel = trained(folder, "pastel", *STYLE, "data.style=pastel")
    scenes = contents(2, 480, unseen=False)
    held_out = Scenes({"x": "picture", "other": "other_style"}, [3, 16, 16], 0, 64).splits["validation"]
    source, other = (held_out[name][torch.arange(480)] for name in ("x", "other"))
    sampled(
        pastel,
        *("origin=translation", f"origin.checkpoint={bright}", "sampler=abm", "time_grid=centred"),
        *("time_grid.num_steps=50", "num_samples=480", "batch_size=240"),
    )
    translated = latest(pastel)
    far = []
    for name, x in (("the source", source), ("its translation", translated)):
        far.append(float((x.float() - other.float()).square().mean().sqrt() / 127.5))
        verdict = judge(look(x, "pastel"), scenes)
        shares = {each: float(getattr(verdict, each).double().mean()) for each in ("colours", "binding", "all")}
        shown = ", ".join(f"{each} {100 * value:.1f}%" for each, value in shares.items())
        row(f"{name}, judged as pastel", f"{shown}, RMS to the pastel scene {far[-1]:.3f}")
    row("contents unchanged", f"{100 * shares['all']:.1f}%", ">= 90%", shares["all"] >= 0.9)
    row("RMS to the pastel scene", f"{far[1]:.3f}, {far[0]:.3f}", "translation below source", far[1] < far[0])


def of_guides(folder: Path) -> None:
    """SDEdit of scenes in large flat squares, at 8 x 8 pixels: near to the guide, or near to real scenes."""
    options = ["experiment=scenes_small", "data.fields={x:small}", "data.shape=[3,8,8]"]
    run = trained(folder, "guided", *options)
    splits = data_of(options)
    real = splits["validation"]["x"][torch.arange(480)]
    guide = nn.functional.avg_pool2d(real.float(), 4).round().to(torch.uint8).repeat_interleave(4, 2)
    guide = guide.repeat_interleave(4, 3)
    reference = moments(splits["train"]["x"][torch.arange(20_000)])
    pipeline = inkdrop.load(run)
    assert isinstance(pipeline, Pipeline)
    row("the guides, and held-out scenes", f"FD {distance(guide, reference):.3f}, {distance(real, reference):.3f}")
    far, strange = [], []
    for t_start in (0.2, 0.4, 0.6, 0.8, 1.0):
        start = Edit(t_start=t_start).begin(pipeline, {"x": guide}, {})
        x = pipeline({}, range(480), **start._asdict())
        far.append(float(((x.float() - guide.float()) / 127.5).square().mean().sqrt()))
        strange.append(distance(x, reference))
        row(f"t_start = {t_start}", f"RMS to the guide {far[-1]:.3f}, FD {strange[-1]:.3f}")
    rises = all(a < b for a, b in pairwise(far))
    falls = all(a > b for a, b in pairwise(strange))
    row("RMS to the guide rises, FD falls", f"{rises}, {falls}", "both", rises and falls)
