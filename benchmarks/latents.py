"""What latents and texts reach: `python benchmarks/latents.py FOLDER [PART ...]` prints a table for each part.

Parts: autoencoder, pixels, latents, clip, guidance, unclip, imagen, bounds, gan, families; without any, all of them.
Runs are trained into FOLDER once, by their experiments: about two hours of CPU time in all. `SEEDS=3` in the
environment trains text-to-image three times. The last column says whether a figure meets what its row asks for; the
command ends with code 1 if one does not.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from task_table import FAILED, data_of, latest, row, sampled, trained
from torch import Tensor

import inkdrop
from inkdrop.data.contents import described
from inkdrop.files.texts import decoded
from inkdrop.metrics.scene_judge import judge, look

SEEDS = range(int(os.environ.get("SEEDS", "1")))
MODES = torch.stack([torch.tensor([2 * math.cos(a), 2 * math.sin(a)]) for a in torch.arange(8) * math.pi / 4])


def seconds(run: Path) -> float:
    """The seconds of a run by the clock, with its evaluations."""
    return float(json.loads((run / "result.json").read_text())["seconds"])


def speed(run: Path) -> float:
    """The samples in a second of training, the median over the run, without evaluations."""
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return statistics.median(line[name] for line in lines if (name := "train/samples_per_second") in line)


def right(x: Tensor, captions: list[str]) -> float:
    """The share of scenes (N, 3, 16, 16) that show all that their captions say."""
    return float(judge(look(x, "bright"), described(captions)).all.double().mean())


def judged(run: Path, split: str, scale: float | None, *options: str, count: int = 480) -> float:
    """The share of samples that show all that the captions of a split say."""
    guidance = [] if scale is None else [f"guidance.scale={scale}"]
    result = sampled(run, "evaluate=true", f"held_out={split}", f"num_samples={count}", *guidance, *options)
    return next(float(value) for name, value in result["metrics"].items() if name.startswith("scene_all_"))


def of_autoencoder(folder: Path) -> None:
    """Reconstructions of held-out scenes from codes of 4 x 4 x 4 numbers."""
    run = trained(folder, "autoencoder", "experiment=autoencoder")
    metrics = sampled(run, "evaluate=true", "num_samples=480")["metrics"]
    psnr, all_right = (next(v for k, v in metrics.items() if k.startswith(name)) for name in ("psnr", "scene_all"))
    row("PSNR", f"{psnr:.1f} dB", ">= 28", psnr >= 28)
    row("read rightly by the judge", f"{100 * all_right:.1f}%", ">= 98%", all_right >= 0.98)
    row("training", f"{seconds(run):.0f} s")


def _text_to_image(runs: list[Path], name: str) -> None:
    for split, wanted in (("validation", 0.95), ("unseen", 0.80)):
        shares = [judged(run, split, 2.0) for run in runs]
        row(
            f"{name}: all right, {split} captions, guidance 2",
            " / ".join(f"{100 * each:.1f}%" for each in shares),
            f">= {100 * wanted:.0f}%",
            min(shares) >= wanted,
        )
    run = runs[-1]  # the last one whose samples of unseen captions were drawn
    x, captions = latest(run), _captions(run)
    shuffled = right(x, [captions[(i + 7) % len(captions)] for i in range(len(captions))])
    row(f"{name}: the same under other captions", f"{100 * shuffled:.1f}%", "< 5%", shuffled < 0.05)
    free = judged(run, "unseen", 0.0)
    row(f"{name}: without the caption", f"{100 * free:.1f}%", "< 5%", free < 0.05)
    splits = data_of(["experiment=scenes"])
    train = splits["train"]["x"][torch.arange(len(splits["train"]["x"]))].flatten(1).float()
    real = splits["unseen"]["x"][torch.arange(len(splits["unseen"]["x"]))]
    codec: Any = inkdrop.load(run).codec
    coded = codec.decode(codec.encode({"x": real}))  # what an autoencoder smooths is no copy
    near = [torch.cdist(each.flatten(1).float(), train).min(1).values for each in (x, real, coded)]
    middles = [float(each.median()) for each in near]
    error = 1.2533 * math.sqrt(sum(float(near[i].var()) / len(near[i]) for i in (0, 2)))  # of a difference of medians
    shown = "{:.0f}; real {:.0f}, and {:.0f} after the codec".format(*middles) + f"; standard error {error:.0f}"
    met = middles[0] >= middles[2] - 2 * error
    row(f"{name}: distance to the nearest training scene", shown, "not below real", met)
    row(f"{name}: training", " / ".join(f"{seconds(run):.0f} s" for run in runs))


def _captions(run: Path) -> list[str]:
    newest = max((run / "samples").glob("*/samples.npz"), key=lambda file: file.stat().st_mtime)
    with np.load(newest) as file:
        return [str(each) for each in file["caption"]]


def of_pixels(folder: Path) -> None:
    """Text to image by pixels."""
    _text_to_image([trained(folder, f"pixels_{seed}", "experiment=scenes", f"seed={seed}") for seed in SEEDS], "pixels")


def _latent(folder: Path, seed: int) -> Path:
    codes = trained(folder, "autoencoder", "experiment=autoencoder")
    options = ["experiment=scenes_latent", f"codec.model.checkpoint={codes}", f"seed={seed}"]
    return trained(folder, f"latents_{seed}", *options)


def of_latents(folder: Path) -> None:
    """Text to image by the codes of the autoencoder."""
    runs = [_latent(folder, seed) for seed in SEEDS]
    _text_to_image(runs, "latents")
    if (pixels := folder / "pixels_0").exists():
        latent = speed(pixels) / speed(runs[0])
        row("time of a step, latents / pixels", f"{latent:.2f}", "<= 0.5", latent <= 0.5)


def _clip(folder: Path) -> Path:
    """A CLIP of clean scenes."""
    clean = ["loss.time_sampler=null", "callbacks.loss_by_noise_level=null", "trainer.max_steps=1500"]
    return trained(folder, "clip", "experiment=clip", *clean)


def of_clip(folder: Path) -> None:
    """Retrieval of the captions of real scenes among all distinct ones."""
    model: Any = inkdrop.load(_clip(folder))
    for split in ("validation", "unseen"):
        fields = data_of(["experiment=scenes"])[split]
        rows = torch.arange(len(fields["x"]))
        captions = decoded(fields["caption"][rows])
        distinct = {caption: place for place, caption in enumerate(dict.fromkeys(captions))}
        first = torch.tensor([captions.index(caption) for caption in distinct])
        with torch.no_grad():
            data = torch.cat([model.encoded({"x": part}) for part in fields["x"][rows].split(256)])
            texts = model.texts({"caption": fields["caption"][first]})
        found = (data @ texts.T).argmax(1)
        share = float((found == torch.tensor([distinct[caption] for caption in captions])).double().mean())
        chance = 1 / len(distinct)
        row(
            f"caption retrieved, {split}", f"{100 * share:.1f}% of {len(distinct)}", "above chance", share > 20 * chance
        )


def of_guidance(folder: Path) -> None:
    """The model of pixels without its captions, 240 samples, under guidance by the CLIP of clean scenes."""
    clip, run = _clip(folder), trained(folder, "pixels_0", "experiment=scenes", "seed=0")
    options = ["guidance=[classifier_free,clip_similarity_of_estimate]", "guidance.classifier_free.scale=0"]
    options += [f"guidance.clip_similarity.model.checkpoint={clip}", "guidance.clip_similarity.interval=[0,100]"]
    shares = []
    for scale in (0.0, 0.25, 0.5, 1.0):  # at 2 it falls again
        chosen = f"guidance.clip_similarity.scale={scale}"
        shares.append(judged(run, "validation", None, *options, chosen, count=240))
        row(f"all right, guidance by similarity {scale:g}", f"{100 * shares[-1]:.1f}%")
    rising = all(later > earlier for earlier, later in itertools.pairwise(shares))
    row("rises over three scales", "yes" if rising else "no", "yes", rising)


def of_unclip(folder: Path) -> None:
    """Captions to vectors to scenes, and variations of scenes."""
    clip = _clip(folder)
    prior = trained(folder, "prior", "experiment=unclip_prior", f"codec.model.checkpoint={clip}")
    given = f"conditioner.model.checkpoint={clip}"
    decoder = trained(folder, "decoder", "experiment=unclip_decoder", given, "callbacks.evaluate=null")
    chain = f"cascade=[{{checkpoint: {decoder}}}]"
    fields = data_of(["experiment=scenes"])["validation"]
    rows = torch.arange(len(fields["x"]))
    captions = decoded(fields["caption"][rows])
    (folder / "captions.txt").write_text("\n".join(captions) + "\n")
    result = sampled(prior, f"num_samples={len(rows)}", f"condition.caption=@{folder / 'captions.txt'}", chain)
    assert result["num_samples"] == len(rows)
    share, direct = right(latest(prior), captions), None
    if (folder / "pixels_0/result.json").exists():
        direct = judged(folder / "pixels_0", "validation", 2.0)
    shown = "" if direct is None else f"; direct {100 * direct:.1f}%"
    met = None if direct is None else share >= direct - 0.05
    row("all right, validation captions", f"{100 * share:.1f}%{shown}", "within 5 points of direct", met)
    pipeline: Any = inkdrop.load(decoder)
    scenes = {"x": fields["x"][rows]}
    sets = [_drawn(pipeline, scenes, seed * len(rows)) for seed in (1, 2)]
    agree = [right(each, captions) for each in sets]
    both = (
        judge(look(sets[0], "bright"), described(captions)).all
        & judge(look(sets[1], "bright"), described(captions)).all
    )
    row("variations show what their scene shows", " / ".join(f"{100 * each:.1f}%" for each in agree))
    row(
        "two variations of a scene both do",
        f"{100 * float(both.double().mean()):.1f}%",
        ">= 90%",
        float(both.double().mean()) >= 0.9,
    )


def _drawn(pipeline: Any, batch: dict[str, Tensor], seed: int) -> Tensor:
    parts = []
    for rows in torch.arange(len(batch["x"])).split(256):
        parts.append(pipeline({name: each[rows] for name, each in batch.items()}, [seed + i for i in rows.tolist()]))
    return torch.cat(parts)


def of_imagen(folder: Path) -> None:
    """Captions to 8 x 8 pixels to 16 x 16 pixels, 480 samples, with dynamic thresholding in the first stage or none."""
    base = trained(folder, "imagen", "experiment=imagen", "callbacks.evaluate=null")
    large = trained(folder, "imagen_enlarging", "experiment=imagen_enlarging", "callbacks.evaluate=null")
    chain = f"cascade=[{{checkpoint: {large}, condition: {{image_noise: 0.1}}}}]"
    for scale in (2.0, 6.0):
        for name, guides in (
            ("dynamic thresholding", "[classifier_free,dynamic_threshold]"),
            ("none", "classifier_free"),
        ):
            share = judged(base, "validation", scale, f"guidance={guides}", chain)
            row(f"all right, validation captions, guidance {scale:g}, {name}", f"{100 * share:.1f}%")


def of_bounds(folder: Path) -> None:
    """The ELBO of a VAE of binary MNIST with 20 numbers; that of a linear VAE is in tests/test_autoencoders.py."""
    run = trained(folder, "vae_mnist", "experiment=vae_mnist")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    elbo = -next(line["validation/loss"] for line in reversed(lines) if "validation/loss" in line)
    row("ELBO of held-out images", f"{elbo:.1f} nats", ">= -110", elbo >= -110)


def of_gan(folder: Path) -> None:
    """The modes of a ring that GANs reach; a mode counts with at least 2% of 2,000 samples within 0.5 of it."""
    for seed in range(3):
        run = trained(folder, f"ring_{seed}", "experiment=gan_points", f"seed={seed}")
        sampled(run, "num_samples=2000")
        newest = max((run / "samples").glob("*/samples.npz"), key=lambda file: file.stat().st_mtime)
        with np.load(newest) as file:
            distance, mode = torch.cdist(torch.from_numpy(file["x"]), MODES).min(1)
        reached = int((torch.bincount(mode[distance < 0.5], minlength=8) > 40).sum())
        row(
            f"seed {seed}",
            f"{reached} of 8; {100 * float((distance < 0.5).double().mean()):.0f}% near one",
            ">= 7",
            reached >= 7,
        )


def of_families(folder: Path) -> None:
    """The Frechet distance of 350 digits by three families of models, and that of held-out digits."""
    for name in ("vae", "gan", "digits"):
        run = trained(folder, name, f"experiment={name}")
        result = sampled(run, "evaluate=true", "num_samples=350", "repeats=5")
        value, floor = (result["metrics"][f"fd_digits_350{ending}"] for ending in ("", "_floor"))
        calls = result["network_calls"]
        row({"digits": "DDPM"}.get(name, name.upper()), f"{value:.2f}; floor {floor:.2f}; {calls} network calls")


PARTS: dict[str, Callable[[Path], None]] = {
    name.removeprefix("of_"): each for name, each in list(globals().items()) if name.startswith("of_")
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or (unknown := set(sys.argv[2:]) - set(PARTS)):
        sys.exit(f"usage: python benchmarks/latents.py FOLDER [PART ...] with parts {', '.join(PARTS)}")
    for name in sys.argv[2:] or PARTS:
        print(f"\n{PARTS[name].__doc__}\n\n| {name} | figure | asks for | met |\n|---|---|---|---|", flush=True)
        PARTS[name](Path(sys.argv[1]))
    sys.exit(1 if FAILED else 0)
