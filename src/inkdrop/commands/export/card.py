"""The model card of an exported folder: what it is, how it is loaded, and what its run has measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inkdrop.commands.report.results import Result, read_results
from inkdrop.files.showing import harmless
from inkdrop.files.value_names import metric_of, reference_of

CARD = "README.md"


def card(title: str, facts: Mapping[str, Any], code: str, results: str) -> str:
    """Returns the text of a model card, without anything of this machine.

    - `title`: the class of the model.
    - `facts`: what is said of the model, by name.
    - `code`: how the folder, called FOLDER, is loaded.
    - `results`: what `results_of` returns.
    """
    imports = "import diffusers\n\n" if code.startswith("diffusers.") else ""
    shown = [(name, each) for name, each in facts.items() if each not in (None, "")]
    parts = [
        f"---\nlibrary_name: {'diffusers' if 'inkdrop' not in code else 'peft'}\ntags: [inkdrop]\n---",
        f"# {title}",
        f"This model was trained and exported by inkdrop.\n\n{markdown_table(('part', 'here'), shown)}",
        f"## Use\n\nFOLDER is the folder of this file.\n\n```python\n{imports}{code}\n```",
        f"## Result\n\n{results}",
    ]
    return "\n\n".join(parts) + "\n"


def facts_of(model: Any) -> dict[str, Any]:
    """Returns what a card says of a model."""
    denoiser = getattr(model, "denoiser", None)
    facts: dict[str, Any] = {
        "shape of the data in the network": list(model.shape),
        "network": type(model.network).__name__,
        "weights": f"{sum(each.numel() for each in model.network.parameters()):,}",
        "codec": type(model.codec).__name__,
    }
    if denoiser is None:
        return facts
    steps = getattr(denoiser.schedule, "num_timesteps", None)
    return {
        **facts,
        "conditioner": type(model.conditioner).__name__,
        "classes": ", ".join(map(str, model.classes[:20])) + (", ..." if len(model.classes) > 20 else ""),
        "schedule": f"{type(denoiser.schedule).__name__}{f' of {steps} steps' if steps else ''}",
        "prediction": type(denoiser.prediction).__name__,
    }


def results_of(checkpoint: str) -> str:
    """Returns the values of a run, with floor, baseline and the hash of the protocol of each.

    `checkpoint` is the run folder or a checkpoint in it. Raises `UnreadableError` for another `result.json`.
    """
    path = Path(checkpoint)
    file = (path if path.is_dir() else path.parent.parent) / "result.json"
    found = read_results(file, "run") if file.is_file() else []
    results = [each for each in found if any(map(each.protocol, each.metrics))]
    result = next((each for each in results if not each.variant), None)
    if result is None:
        return "The run has measured no metric."
    names = _measured_by(result)
    rows = [(name, *_row(result, name)) for name in names]
    for each in results:
        if each.variant:
            rows += [(f"{name}@{each.variant}", *_row(each, name)) for name in _measured_by(each)]
    header = ("metric", "value", "floor", "baseline", "hash of the protocol")
    text = (
        "The floor is the value of held-out data, and the baseline that of a trivial method. Only values with the same "
        "hash were measured in the same way."
    )
    return (
        f"{markdown_table(header, rows)}\n\n{text}\n\n{markdown_table(('measured', 'with'), _measured(result, names))}"
    )


def _measured_by(result: Result) -> list[str]:
    """Returns the metrics of a result, without their floors, baselines and ends of intervals."""
    return [name for name in result.metrics if result.protocol(name) and metric_of(name) == name]


def _row(result: Result, name: str) -> tuple[str, str, str, str]:
    references: dict[str, str] = {}
    for other, value in result.metrics.items():
        if (found := reference_of(other)) is not None and found[0] == name:
            references.setdefault(found[1].partition(" ")[0], f"{value:.4g}")
    ends = [f"{each:.4g}" for end in ("low", "high") if (each := result.metrics.get(f"{name}_{end}")) is not None]
    shown = f"{result.metrics[name]:.4g}{f' ({ends[0]} to {ends[-1]})' if ends else ''}"
    protocol = str(result.protocol(name).get("hash", ""))
    return shown, references.get("floor", ""), references.get("baseline", ""), protocol


def _measured(result: Result, names: Sequence[str]) -> list[tuple[str, Any]]:
    """What the values depend on, as far as the protocol has it in one word."""
    protocol = result.protocol(names[0])
    facts = {name: protocol.get(name) for name in ("num_samples", "repeats", "data", "fingerprint", "reference")}
    facts |= {
        "seed": result.seed,
        **{name: int(each) for name, each in result.costs.items() if name == "network calls"},
    }
    facts |= {name: each for name, each in result.facts.items() if name.startswith("version of ")}
    return [(name.replace("_", " "), each) for name, each in facts.items() if isinstance(each, str | int)]


def markdown_table(header: Sequence[str], rows: Any) -> str:
    """Returns a table of Markdown, whose cells show what they contain."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(harmless(each).replace('|', chr(92) + '|') for each in row)} |" for row in lines)
