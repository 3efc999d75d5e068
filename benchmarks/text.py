"""How well texts are diffused: `python benchmarks/text.py FOLDER [PART ...]` prints a table for each part.

Parts: bound, infilling, samples; without any, all of them. A masked diffusion and an autoregressive transformer of
equal size are trained into FOLDER once, each for as many optimizer steps as fit in `MINUTES` of CPU time of this
machine (10, where the environment does not say it). The last column says whether a figure meets what its row asks for;
the command ends with code 1 if one does not.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from task_table import FAILED, data_of, part_of, row, trained
from torch import Tensor

import inkdrop
from inkdrop.codecs.vocabulary import OPEN, PADDING
from inkdrop.data.degradations import MiddleBlanks
from inkdrop.data.loaders import Split
from inkdrop.files.texts import decoded
from inkdrop.metrics.texts import independent_words
from inkdrop.pipeline import Pipeline
from inkdrop.randomness import Generators

MINUTES = float(os.environ.get("MINUTES", "10"))
MODELS = {"masked": "experiment=e2e_masked", "autoregressive": "experiment=e2e_autoregressive"}
HELD_OUT = 1000  # held-out texts whose likelihood is measured
COUNT = 256  # texts that are filled in, or drawn
TRIED = 40  # optimizer steps by which the CPU time of one is measured


def cpu() -> float:
    """The CPU seconds of this process and of those that it has waited for."""
    used = [resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def seconds_of_a_step(experiment: str) -> float:
    """The CPU seconds of an optimizer step of an experiment."""
    task = part_of([experiment], "task")
    train = data_of([experiment])["train"]
    batch_size = part_of([experiment], "data").batch_size
    items = torch.arange(batch_size)
    batch = {name: column[items] for name, column in train.items()} | {"position": items}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that texts are cut is said by the run too
        task.pipeline.fit(lambda size, names=None: [batch], torch.device("cpu"))
    optimizer = torch.optim.AdamW(task.parameters(), 1e-3)
    start = 0.0
    for step in range(TRIED + 5):
        start = cpu() if step == 5 else start
        task.terms(batch, Generators.from_positions(0, items.tolist())).loss.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return (cpu() - start) / TRIED


def model(folder: Path, name: str) -> Any:
    """The trained model of this name, and the CPU seconds of its training."""
    run, note = folder / name, folder / f"{name}.json"
    if not (run / "result.json").exists():
        steps = int(60 * MINUTES / seconds_of_a_step(MODELS[name]))
        start = cpu()
        rare = [f"callbacks.{each}.every.steps={steps}" for each in ("checkpoint", "loss_by_noise_level")]
        rare += [f"evaluation.num_items={HELD_OUT}"]
        trained(folder, name, MODELS[name], f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}", *rare)
        note.write_text(json.dumps({"steps": steps, "minutes": (cpu() - start) / 60}))
    return inkdrop.load(run), json.loads(note.read_text())


def nats_per_token(folder: Path, name: str) -> float:
    """The value that the run of a model has measured on the first held-out texts."""
    measured = json.loads((folder / name / "result.json").read_text())["metrics"]
    (value,) = (value for name, value in measured.items() if name.endswith("_per_token"))
    return float(value)


def everything(split: Split) -> Tensor:
    """All texts (N, W) of a split."""
    return split["x"][torch.arange(len(split["x"]))]


def unigram(pipeline: Any) -> float:
    """The nats per token of held-out texts where each token is drawn independently, from the training frequencies."""
    splits = data_of(["experiment=e2e_masked"])
    counts: Counter[int] = Counter()
    vocabulary, length = pipeline.codec.vocabulary, pipeline.codec.length
    numbers = {name: vocabulary.numbers(everything(split), length) for name, split in splits.items()}
    counts.update(numbers["train"][numbers["train"] != PADDING].tolist())
    numbers["validation"] = numbers["validation"][:HELD_OUT]
    held = Counter(numbers["validation"][numbers["validation"] != PADDING].tolist())
    total = sum(counts.values()) + pipeline.codec.vocabulary.num_tokens  # each token has been seen once more
    nats = -sum(times * math.log((counts[number] + 1) / total) for number, times in held.items())
    return nats / sum(held.values())


def of_bound(folder: Path) -> None:
    """The bound of masked diffusion next to the likelihood of an autoregressive model of equal size and CPU time."""
    found = {name: model(folder, name) for name in MODELS}
    for name, (pipeline, facts) in found.items():
        size = sum(parameter.numel() for parameter in pipeline.parameters())
        row(
            f"{name}: parameters; steps; CPU minutes with evaluation",
            f"{size:,}; {facts['steps']:,}; {facts['minutes']:.1f}",
        )
    masked, exact = (nats_per_token(folder, name) for name in MODELS)
    row("nats per token: autoregressive, exact", f"{exact:.3f}")
    row("nats per token: masked diffusion, bound", f"{masked:.3f}", f"<= {1.1 * exact:.3f}", masked <= 1.1 * exact)
    row("ratio of both", f"{masked / exact:.3f}", "<= 1.10", masked <= 1.1 * exact)
    row("perplexity per token of both", f"{math.exp(exact):.1f}, {math.exp(masked):.1f}")
    row("nats per token: independent words", f"{unigram(found['masked'][0]):.3f}")


def judged(ruler: Any, texts: Tensor) -> float:
    """The nats per token of texts (N, W) under the autoregressive model."""
    nats, tokens = 0.0, 0
    with torch.no_grad():
        for part in texts.split(64):
            nats += float(ruler.nats({"x": part}).sum())
            tokens += int(ruler.codec.lengths({"x": part}).sum())
    return nats / tokens


def filled(pipeline: Any, known: Tensor, constraint: Any = None) -> Tensor:
    """Texts whose blanks a model has filled in."""
    if isinstance(pipeline, Pipeline):
        pipeline.constraint = constraint
    parts = torch.arange(len(known)).split(64)
    return torch.cat([pipeline({"known": known[items]}, items.tolist()) for items in parts])


def of_infilling(folder: Path) -> None:
    """Middle spans of held-out texts: their words by masked diffusion, from left to right, and independent."""
    (masked, _), (ruler, _) = (model(folder, name) for name in MODELS)
    x = data_of(["experiment=e2e_masked"])["validation"]["x"]
    x = x[torch.arange(0, len(x), len(x) // COUNT)[:COUNT]]
    codec: Any = ruler.codec
    known = MiddleBlanks(0.3)({"x": x}, Generators.from_positions(0, range(len(x))))
    places = codec.places(known)
    constraint = part_of(["experiment=e2e_masked", "constraint=blanks"], "constraint")
    words = everything(data_of(["experiment=e2e_masked"])["train"])
    frequent = codec.vocabulary.numbers(words, codec.length)
    frequent = frequent[frequent > PADDING + 1]
    drawn = frequent[(Generators.from_positions(0, range(len(x))).uniform((codec.length,)) * len(frequent)).long()]
    independent = codec.vocabulary.texts(places.where(places != OPEN, drawn), codec.num_bytes)
    values = {
        "the held-out texts themselves": judged(ruler, x),
        "filled in by masked diffusion, 64 steps": judged(ruler, filled(masked, known, constraint)),
        "filled in from left to right by the autoregressive model": judged(ruler, filled(ruler, known)),
        "filled in by independent words": judged(ruler, independent),
    }
    limit = values["filled in by independent words"]
    for name, value in values.items():
        diffused = "diffusion" in name
        row(f"nats per token, {name}", f"{value:.3f}", f"< {limit:.3f}" * diffused, value < limit if diffused else None)
    masked.sampler = part_of(["experiment=e2e_masked", "sampler=confidence", "time_grid.num_steps=8"], "sampler")
    surest = judged(ruler, filled(masked, known, constraint))
    row("nats per token, the surest of masked diffusion, 8 steps", f"{surest:.3f}", f"< {limit:.3f}", surest < limit)


def of_samples(folder: Path) -> None:
    """Texts that both models draw, and a third of words: nats per token under the autoregressive model."""
    (masked, _), (ruler, _) = (model(folder, name) for name in MODELS)
    train = everything(data_of(["experiment=e2e_masked"])["train"])

    def drawn(pipeline: Any) -> Tensor:
        return torch.cat([pipeline({}, items.tolist()) for items in torch.arange(COUNT).split(64)])

    texts = {"autoregressive": drawn(ruler), "masked, 64 steps": drawn(masked)}
    for name, options in (("masked, surest, 16 steps", ["sampler=confidence", "time_grid.num_steps=16"]),):
        masked.sampler = part_of(["experiment=e2e_masked", *options], "sampler")
        texts[name] = drawn(masked)
    texts["independent words"] = independent_words([train], COUNT, train.shape[1])
    known = set(decoded(train))
    for name, each in texts.items():
        lines = decoded(each)
        new = sum(line not in known for line in lines) / len(lines)
        row(
            f"{name}: nats per token; different; not in the training texts",
            f"{judged(ruler, each):.3f}; {len(set(lines)) / len(lines):.2f}; {new:.2f}",
        )
        for line in lines[:3]:
            print(f"|   {line[:150]} | | | |")


PARTS: dict[str, Callable[[Path], None]] = {"bound": of_bound, "infilling": of_infilling, "samples": of_samples}


def main(folder: str, *parts: str) -> None:
    """Prints the tables of these parts."""
    for name in parts or PARTS:
        if name not in PARTS:
            raise SystemExit(f"{name} is not a part: choose some of {', '.join(PARTS)}")
        print(f"\n{PARTS[name].__doc__}\n\n| what | value | asks for | met |\n|---|---|---|---|", flush=True)
        start = time.monotonic()
        PARTS[name](Path(folder))
        print(f"| seconds of this part | {time.monotonic() - start:.0f} | | |", flush=True)
    if FAILED:
        raise SystemExit(f"not met: {', '.join(FAILED)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
