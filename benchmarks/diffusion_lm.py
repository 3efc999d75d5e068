"""How well Diffusion-LM works: `python benchmarks/diffusion_lm.py FOLDER [PART ...]` prints a table for each part.

Parts: copy, rounding, length, control; without any, all of them. Runs are trained into FOLDER once, by their
experiments: `copy`, `texts` and `attributes`, each with the options of OPTIONS in the environment; a run that was
stopped is taken as it is. The last column says whether a figure meets what its row asks for; the command ends with code
1 if one does not. SAMPLES in the environment is the number of samples of a figure, 100 unless it is set.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from task_table import FAILED, row, sampled, trained

import inkdrop
from inkdrop.codecs.vocabulary import END, PADDING
from inkdrop.configuration import build
from inkdrop.constraints import Replacement
from inkdrop.data import E2E
from inkdrop.files.texts import decoded, encoded
from inkdrop.guidance import AttributeGuidance, Clamp
from inkdrop.pipeline import Pipeline
from inkdrop.randomness import Generators

OPTIONS = os.environ.get("OPTIONS", "").split()
SAMPLES = int(os.environ.get("SAMPLES", "100"))
STEPS = 50  # of sampling
NAMES = ("name", "near", "food", "type")


def run_of(folder: Path, name: str, *options: str) -> Path:
    """Returns a run, which is trained unless it has a checkpoint."""
    if (folder / name / "checkpoints").is_dir():
        return folder / name
    return trained(folder, name, *options, *OPTIONS)


def texts_of(folder: Path) -> tuple[Path, Pipeline]:
    """Returns the run of texts, and its pipeline with few steps."""
    run = run_of(folder, "texts", "experiment=e2e_diffusion_lm")
    pipeline = inkdrop.load(run)
    pipeline.sampler.time_grid = build({"_target_": "inkdrop.time_grids.Trailing", "num_steps": STEPS})
    pipeline.guidance = {"clamp": Clamp()}
    return run, pipeline


def steps_of(run: Path) -> int:
    """Returns the optimizer steps of a run."""
    return int(json.loads((run / "checkpoints" / "index.json").read_text())["files"][-1]["step"])


def drawn(pipeline: Pipeline, **condition: str | list[str]) -> list[str]:
    """Returns texts of the seeds 0, 1, ..."""
    seeds = range(SAMPLES)
    parts = [list(seeds[first : first + 100]) for first in range(0, SAMPLES, 100)]
    return [text for part in parts for text in decoded(pipeline(pipeline.request(part, **condition), part))]


def of_copies(folder: Path) -> None:
    """Copies of words, from a clean source."""
    run = run_of(folder, "copy", "experiment=diffuseq_copy", "callbacks.evaluate=null")
    metrics = sampled(run, f"num_samples={SAMPLES}", "evaluate=true")["metrics"]
    (found,) = (value for name, value in metrics.items() if name.startswith("exact_match"))
    row(f"exact match of {SAMPLES} held-out copies, {steps_of(run):,} steps", f"{found:.1%}", ">= 95%", found >= 0.95)


def of_rounding(folder: Path) -> None:
    """Rounding of the noised x_0 of held-out texts."""
    run, pipeline = texts_of(folder)
    split = E2E([512], 0, 64).splits["validation"]
    right = count = 0
    with torch.no_grad():
        for items in torch.arange(len(split["x"])).split(256):
            batch = {"x": split["x"][items]}
            tokens = pipeline.codec.tokens(batch)  # type: ignore[operator]
            x_0 = pipeline.codec.encode(batch, Generators.from_seeds(items.tolist()))
            right += int((pipeline.codec.logits(x_0).argmax(2) == tokens).sum())  # type: ignore[operator]
            count += tokens.numel()
    share = right / count
    row(
        f"tokens of held-out texts that rounding recovers, {steps_of(run):,} steps",
        f"{share:.3%}",
        ">= 99.9%",
        share >= 0.999,
    )


def of_lengths(folder: Path) -> None:
    """Lengths that a fixed end asks for."""
    run, pipeline = texts_of(folder)
    pipeline.constraint = Replacement()
    wanted = [6 + 2 * (seed % 12) for seed in range(SAMPLES)]
    known = encoded([" ".join(["_"] * (length - 1) + ["."]) for length in wanted])
    batch = {"known": known, "mask": pipeline.codec.known(known)}  # type: ignore[operator]
    made = decoded(pipeline(batch, range(SAMPLES)))
    tokens = pipeline.codec.vocabulary.numbers(encoded(made), 48)  # type: ignore[union-attr, operator]
    lengths = ((tokens != END) & (tokens != PADDING)).sum(1).tolist()
    share = sum(a == b for a, b in zip(lengths, wanted, strict=True)) / SAMPLES
    row(
        f"texts of the length that is asked for, 6 to 28 words, {steps_of(run):,} steps",
        f"{share:.1%}",
        ">= 99%",
        share >= 0.99,
    )


def of_control(folder: Path) -> None:
    """Attributes that are asked for, found as strings in the texts, next to texts that nothing was asked of."""
    texts, pipeline = texts_of(folder)
    run = run_of(folder, "attributes", "experiment=e2e_attributes", f"codec.model.checkpoint={texts}")
    guide = AttributeGuidance(inkdrop.load(run))
    free = drawn(pipeline)
    pipeline.guidance = {"clamp": Clamp(), "attribute": guide}
    print(f"texts of {steps_of(texts):,} steps, classifier of {steps_of(run):,} steps", file=sys.stderr)
    for name in NAMES:
        values = [value for value in guide.classifier.values[name] if value]
        asked = [values[seed % len(values)] for seed in range(SAMPLES)]
        shares = [
            sum(value.lower() in text.lower() for value, text in zip(asked, each, strict=True)) / SAMPLES
            for each in (drawn(pipeline, **{name: asked}), free)
        ]
        shown = f"{shares[0]:.0%} controlled, {shares[1]:.0%} uncontrolled"
        row(f"{name}, {len(values)} values", shown, ">= 75%, <= 10%", shares[0] >= 0.75 and shares[1] <= 0.1)


PARTS: dict[str, Callable[[Path], None]] = {
    "copy": of_copies,
    "rounding": of_rounding,
    "length": of_lengths,
    "control": of_control,
}


def main() -> int:
    """Prints the tables and returns the exit code."""
    folder, *parts = sys.argv[1:]
    for part in parts or PARTS:
        print(
            f"\n{(PARTS[part].__doc__ or '').rstrip('.')}:\n\n| what | measured | asked for | met |\n|---|---|---|---|"
        )
        PARTS[part](Path(folder))
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
