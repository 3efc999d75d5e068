"""What adapters reach: `python benchmarks/adapters.py FOLDER [PART ...]` prints a table for each part.

Parts: lora, control, subject; without any, all of them. Runs are trained into FOLDER once: about an hour of CPU time.
The last column says whether a figure meets what its row asks for; the command ends with code 1 if one does not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from task_table import FAILED, data_of, drawn, row, sampled, trained
from torch import Tensor

import inkdrop
from inkdrop.checkpoints import read_checkpoint
from inkdrop.data.contents import COLOURS, SEEN_PAIRS, SHAPES, described
from inkdrop.data.drawing import STYLES
from inkdrop.files.texts import decoded, encoded
from inkdrop.metrics.scene_judge import judge, look

SEEDS = range(3)
CIRCLE, TAUGHT = "a red circle", "a zog circle"


def size(run: Path, trained_only: bool) -> int:
    """The number of weights in the checkpoint of a run."""
    content = read_checkpoint(run)
    names = content["trainable"] if trained_only else [n for n in content["state_dict"] if ".lora_" not in n]
    return sum(content["state_dict"][name].numel() for name in names)


def of_lora(folder: Path) -> None:
    """Digits whose levels are inverted: what LoRA gains of what a full fine-tune gains."""
    base = trained(folder, "digits", "experiment=digits")
    arrays = folder / "inverted"
    if not arrays.exists():
        arrays.mkdir()
        for split, fields in data_of(["experiment=digits"]).items():
            rows = torch.arange(len(fields["x"]))
            np.savez(arrays / f"{split}.npz", x=255 - fields["x"][rows].numpy(), label=fields["label"][rows].numpy())
    data = ["data=arrays", f"data.path={arrays / 'train.npz'}", f"data.validation={arrays / 'validation.npz'}"]
    data += ["+data.fields.label=label", "data.num_classes=10", "data.shape=[1,8,8]", "trainer.max_steps=600"]
    common = [f"base={base}", *data, "callbacks.evaluate=null"]
    lora = ["adapter=lora", "adapter.lora.rank=1", "adapter.lora.layers=['*']", "optimizer.lr=0.02"]
    runs = {
        "the base": trained(folder, "inverted_base", *common, "trainer.max_steps=1", "optimizer.lr=0"),
        "full": trained(folder, "inverted_full", *common),
        "LoRA, rank 1": trained(folder, "inverted_lora", *common, *lora),
    }
    shares, distances = {}, {}
    for name, run in runs.items():
        metrics = sampled(run, "evaluate=true", "num_samples=350", f"data_folders=[{arrays}]")["metrics"]
        distances[name] = next(value for key, value in metrics.items() if key.startswith("fd_") and key[-1].isdigit())
        shares[name] = size(run, True) / size(base, False)
        trained_share = "" if run is runs["the base"] else f"; {100 * shares[name]:.1f}% of the weights trained"
        row(f"inverted digits: FD, {name}", f"{distances[name]:.3f}{trained_share}")
    gain = (distances["the base"] - distances["LoRA, rank 1"]) / (distances["the base"] - distances["full"])
    met = gain >= 0.8 and shares["LoRA, rank 1"] <= 0.05
    row("gain of LoRA relative to the full fine-tune", f"{100 * gain:.1f}%", ">= 80% with <= 5% of the weights", met)


def covered(pictures: Tensor) -> Tensor:
    """Which pixels (N, 16, 16) of scenes are of an object: those nearer to a colour than to the ground."""
    x = pictures.float()
    edges = [x[:, :, 0], x[:, :, -1], x[:, :, 1:-1, 0], x[:, :, 1:-1, -1]]
    ground = torch.cat(edges, 2).median(2).values
    rays = STYLES["bright"].levels() - ground[:, None]
    along = torch.einsum("nkc,nchw->nkhw", rays, x - ground[:, :, None, None]) / rays.square().sum(2)[..., None, None]
    return along.max(1).values >= 0.5


def iou(one: Tensor, other: Tensor) -> float:
    """The mean ratio of intersection and union of masks (N, H, W)."""
    both, any_ = (one & other).flatten(1).sum(1), (one | other).flatten(1).sum(1)
    return float((both / any_.clamp(min=1)).mean())


def recoloured(caption: str) -> str:
    """A caption with each colour replaced by the one two places further, which keeps them different."""
    words = caption.split()
    return " ".join(COLOURS[(COLOURS.index(word) + 2) % 6] if word in COLOURS else word for word in words)


def contradicted(captions: list[str]) -> tuple[list[int], list[str], list[str]]:
    """Of captions of one object: their numbers, captions of another shape and colour, and those of the other colour."""
    rows, asked, expected = [], [], []
    for place, caption in enumerate(captions):
        words = caption.split()
        if len(words) == 3:
            colour, shape = COLOURS.index(words[1]), SHAPES.index(words[2])
            other = (colour + 1) % len(COLOURS)
            wrong = next(s % 4 for s in range(shape + 1, shape + 4) if SEEN_PAIRS[other * 4 + s % 4])
            rows.append(place)
            asked.append(f"a {COLOURS[other]} {SHAPES[wrong]}")
            expected.append(f"a {COLOURS[other]} {words[2]}")
    return rows, asked, expected


def of_control(folder: Path) -> None:
    """Outlines of scenes as hints for a model of texts."""
    base = trained(folder, "scenes", "experiment=scenes")
    fields = ["+data.fields.outline=outline", "+data.fields.mask=mask"]
    options = [*fields, "adapter=controlnet", "adapter.controlnet.hint=outline", "optimizer.lr=1e-3"]
    options += ["conditioner.dropout=0.5", "trainer.max_steps=2000", "callbacks.evaluate=null"]
    run = trained(folder, "control", f"base={base}", *options)
    split = data_of(["experiment=scenes", *fields])["validation"]
    fields_of = {name: split[name][torch.arange(240)] for name in ("caption", "outline", "mask")}
    truth = fields_of["mask"][:, 0] > 127
    hinted: Any = inkdrop.load(run)
    free: Any = inkdrop.load(base)
    followed = iou(covered(drawn(hinted, {k: fields_of[k] for k in ("caption", "outline")})), truth)
    alone = iou(covered(drawn(free, {"caption": fields_of["caption"]})), truth)
    row("outlines: IoU of what is drawn with the hint", f"{followed:.3f}", ">= 0.8", followed >= 0.8)
    row("outlines: the same without the hint", f"{alone:.3f}", "<= 0.3", alone <= 0.3)
    frozen = read_checkpoint(run)["state_dict"]
    moved = max(
        float((frozen[name.replace("conditioner.", "conditioner.parts.model.")] - value).abs().max())
        for name, value in next(iter(read_checkpoint(base)["ema"].values())).items()
    )
    row("outlines: largest change of a weight of the base", f"{moved:g}", "0", moved == 0)
    turned = [recoloured(caption) for caption in decoded(fields_of["caption"])]
    x = drawn(hinted, {"caption": encoded(turned), "outline": fields_of["outline"]})
    verdict, geometry = judge(look(x), described(turned)), iou(covered(x), truth)
    both = float(verdict.all.double().mean())
    row("other colours in the caption: IoU with the hint", f"{geometry:.3f}", ">= 0.8", geometry >= 0.8)
    row("other colours in the caption: read rightly in all", f"{100 * both:.1f}%", ">= 90%", both >= 0.9)
    _against(hinted, fields_of, truth)


def _against(hinted: Any, fields_of: dict[str, Tensor], truth: Tensor) -> None:
    """Captions that name another shape than the hint shows, as the model samples and with a stronger hint."""
    rows, asked, expected = contradicted(decoded(fields_of["caption"]))
    batch, guidance = {"caption": encoded(asked), "outline": fields_of["outline"][rows]}, hinted.guidance
    for name, strength, guides in (("guidance 2", 1.0, guidance), ("no guidance, strength 2", 2.0, {})):
        hinted.guidance = guides
        hinted.adapters["controlnet"].rescale(hinted, "controlnet", strength)
        x = drawn(hinted, batch)
        verdict, geometry = judge(look(x), described(expected)), iou(covered(x), truth[rows])
        shape, colours = (float(each.double().mean()) for each in (verdict.binding, verdict.colours))
        what = f"another shape in the caption, {name}"
        row(f"{what}: shape of the hint", f"{100 * shape:.1f}%", ">= 90%", shape >= 0.9)
        row(f"{what}: IoU with the hint", f"{geometry:.3f}")
        row(f"{what}: colour of the caption", f"{100 * colours:.1f}%", ">= 90%", colours >= 0.9)


def draw_subject(folder: Path) -> Path:
    """Four pictures of a disc with a light and a dark half and a bar across, on grounds of several levels."""
    place = folder / "subject"
    place.mkdir(exist_ok=True)
    y, x = np.mgrid[:128, :128] / 8 + 1 / 16
    for number, (cx, cy, ground) in enumerate(((5, 6, 20), (10, 5, 30), (6, 10.5, 25), (9.5, 9, 40))):
        inside = (x - cx) ** 2 + (y - cy) ** 2 < 3.2**2
        picture = np.full((128, 128, 3), float(ground))
        picture[inside & (x < cx)], picture[inside & (x >= cx)] = (230, 40, 40), (240, 240, 240)
        picture[inside & (abs(y - cy) < 0.8)] = (40, 220, 220)
        small = picture.reshape(16, 8, 16, 8, 3).mean((1, 3)).round().astype(np.uint8)
        Image.fromarray(small).save(place / f"{number}.png")
    return place


def of_subject(folder: Path) -> None:
    """A subject of four pictures: its likeness, and what is left of its class."""
    base, pictures = trained(folder, "scenes", "experiment=scenes"), draw_subject(folder)
    clean = ["loss.time_sampler=null", "callbacks.loss_by_noise_level=null", "trainer.max_steps=1500"]
    eyes: Any = inkdrop.load(trained(folder, "clip", "experiment=clip", *clean))
    given = [f"base={base}", f"data.subject={pictures}", f"data.caption='{TAUGHT}'", f"data.class_caption='{CIRCLE}'"]
    words, zog = ["adapter=[new_words,lora]", "optimizer.lr=5e-3"], "adapter.new_words.words={zog:circle}"
    runs = {
        "base": [base],
        "DreamBooth": [trained(folder, f"booth_{s}", "experiment=dreambooth", *given, f"seed={s}") for s in SEEDS],
        "DreamBooth without prior": [
            trained(folder, "booth_alone", "experiment=dreambooth", *given, "data.num_prior=0")
        ],
        "DreamBooth by LoRA": [trained(folder, "booth_lora", "experiment=dreambooth", *given, *words, zog)],
        "textual inversion": [trained(folder, "inversion", "experiment=textual_inversion", *given, zog)],
    }
    real = torch.stack([torch.from_numpy(np.asarray(Image.open(f))) for f in sorted(pictures.glob("*.png"))])
    known = _vectors(eyes, real.permute(0, 3, 1, 2))
    alike = known @ known.T
    ceiling = float((alike.sum() - alike.diagonal().sum()) / (len(known) * (len(known) - 1)))
    accuracy, spread = {}, {}
    for name, each in runs.items():
        found = [_of_subject(run, eyes, known) for run in each]
        cosine, accuracy[name], spread[name] = (sum(values) / len(values) for values in zip(*found, strict=True))
        shown = f"{cosine / ceiling:.3f}" + (
            f" (seeds {', '.join(f'{f[0] / ceiling:.3f}' for f in found)})" if len(found) > 1 else ""
        )
        asked = (">= 0.9", all(f[0] >= 0.9 * ceiling for f in found)) if name == "DreamBooth" else ("", None)
        row(f"{name}: cosine to the subject, relative to real pictures", shown, *asked)
        drop, share = accuracy["base"] - accuracy[name], spread[name] / spread["base"]
        judged = (name == "DreamBooth", drop <= 0.02, share >= 0.9)
        row(
            f"{name}: {CIRCLE} read rightly",
            f"{100 * accuracy[name]:.1f}%",
            *((">= base - 2", judged[1]) if judged[0] else ()),
        )
        row(f"{name}: diversity of {CIRCLE}", f"{share:.3f}", *((">= 0.9", judged[2]) if judged[0] else ()))


def _vectors(eyes: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.nn.functional.normalize(eyes.data(eyes.codec.encode({"x": x})).float(), dim=1)


def _of_subject(run: Path, eyes: Any, known: Tensor) -> tuple[float, float, float]:
    """The cosine of samples to the subject, and the share of right samples of the class with their diversity."""
    pipeline: Any = inkdrop.load(run)
    subject = drawn(pipeline, {"caption": encoded([TAUGHT] * 120)})
    of_class = drawn(pipeline, {"caption": encoded([CIRCLE] * 240)})
    right = float(judge(look(of_class), described([CIRCLE] * 240)).all.double().mean())
    apart = torch.pdist(of_class.flatten(1).float()).mean()
    return float((_vectors(eyes, subject) @ known.T).mean()), right, float(apart)


PARTS: dict[str, Callable[[Path], None]] = {"lora": of_lora, "control": of_control, "subject": of_subject}


def main() -> None:
    """Prints the tables of the chosen parts."""
    folder, *chosen = sys.argv[1:]
    if unknown := sorted(set(chosen) - set(PARTS)):
        sys.exit(f"unknown part {unknown[0]}: available: {', '.join(PARTS)}")
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in chosen or PARTS:
        print(f"\n## {name}\n\n| what | figure | asked | met |\n|---|---|---|---|")
        PARTS[name](Path(folder))
    if FAILED:
        sys.exit(f"{len(FAILED)} figures do not meet what is asked: {json.dumps(FAILED)}")


if __name__ == "__main__":
    main()
