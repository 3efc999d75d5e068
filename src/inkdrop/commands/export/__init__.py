"""The command `export`: writes the model of a run as a folder that diffusers loads, or its adapter alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inkdrop.commands.export.card import CARD, card, facts_of, results_of
from inkdrop.commands.export.pipelines import autoencoder, pipeline
from inkdrop.commands.export.texts import as_json
from inkdrop.commands.plain_options import read_options
from inkdrop.errors import ConfigurationError
from inkdrop.files.showing import harmless
from inkdrop.files.writing import write_text

_OPTIONS = {"checkpoint": "", "folder": "", "weights": "ema", "format": "diffusers"}
_EPILOG = """\
checkpoint=RUN  run folder or checkpoint
folder=OUT      the folder to write, which must not exist
weights=ema     ema, raw, or another average of the weights
format=...      diffusers, or adapter: the adapter of a run without its base, in the layout of peft

The model of a run with network=unet becomes a DDIMPipeline, one with network=latent_unet and a codec of an autoencoder
a StableDiffusionPipeline, with its text encoder if conditioner=text_published, one with network=mmdit a
StableDiffusion3Pipeline, with its text encoders if conditioner=texts_published, one with network=dit a DiTPipeline, and
the one of task=autoencoder an AutoencoderKL. Of a transformer in pixels there is the transformer alone.
"""


def main(arguments: Sequence[str]) -> None:
    """Writes the folder, and prints how diffusers loads it."""
    description = "Writes the model of a run as a folder that diffusers loads, or its adapter alone."
    options = read_options(arguments, "export", description, _EPILOG, _OPTIONS)
    from inkdrop.commands.command import for_the_user

    with for_the_user():
        code = export(**options)
    print(f"{options['folder']}: {code}")


def export(checkpoint: str, folder: str, weights: str = "ema", format: str = "diffusers") -> str:
    """Writes the model of a run in a format, and returns the Python code that loads it.

    Raises `ValueError` for a model that the format does not have, or if the folder exists.
    """
    if format not in (known := {"diffusers": _to_diffusers, "adapter": _to_adapter}):
        raise ConfigurationError(f"format={harmless(format)} is unknown: available: {', '.join(known)}")
    if Path(folder).exists():
        raise ConfigurationError(f"folder={harmless(folder)} exists: choose a new one")
    results = results_of(checkpoint)  # before anything is written
    code, title, facts = known[format](checkpoint, folder, weights)
    write_text(Path(folder) / CARD, card(title, {**facts, "average": weights}, code, results))
    return code.replace(_HERE, json.dumps(folder))


_Written = tuple[str, str, dict[str, Any]]  # Python code that loads the folder, the title of its card, and facts
_HERE = '"FOLDER"'


def _to_adapter(checkpoint: str, folder: str, weights: str) -> _Written:
    """Writes the one adapter of a run without its base."""
    from inkdrop.checkpoints.adapters import adapters_of, write_adapter
    from inkdrop.configuration import build

    found = adapters_of(checkpoint, weights)
    if len(found) > 1:
        raise ConfigurationError(f"the run has the adapters {', '.join(found)}, but a folder holds one")
    (shared,) = found.values()
    write_adapter(Path(folder), shared, getattr(build(shared.node), "published", None))
    kind = str(shared.node["_target_"]).rpartition(".")[2]
    facts = {
        "weights": f"{sum(each.numel() for each in shared.weights.values()):,}",
        "SHA-256 of the base": shared.base,
    }
    return f"inkdrop.pipeline.add_adapters(inkdrop.load(BASE), {_HERE})", f"Adapter: {kind}", facts


def _adapter_to_diffusers(model: Any, out: Path) -> _Written:
    """Writes the adapter of a model alone; `python -m inkdrop merge` makes a whole model of a LoRA."""
    from safetensors.torch import save

    from inkdrop.adapters.published import adapter_for_diffusers
    from inkdrop.files.writing import make_folder, write_bytes

    function, file, weights = adapter_for_diffusers(model)
    make_folder(out)
    write_bytes(out / file, save({name: each.float().contiguous() for name, each in weights.items()}, {"format": "pt"}))
    code = f"pipe.{function}({_HERE})  # where pipe is that of the exported base"
    return code, f"Adapter: {', '.join(type(each).__name__ for each in model.adapters.values())}", facts_of(model)


def _to_diffusers(checkpoint: str, folder: str, weights: str) -> _Written:
    from safetensors.torch import save

    from inkdrop.files.writing import write_bytes
    from inkdrop.models import Autoencoder
    from inkdrop.pipeline import load

    out = Path(folder)
    model: Any = load(checkpoint, weights)
    if model.adapters:
        return _adapter_to_diffusers(model, out)
    facts = facts_of(model)  # before the network is changed
    if isinstance(model, Autoencoder):
        published, files, networks, given = "AutoencoderKL", dict[str, bytes](), {".": autoencoder(model)}, ""
    else:
        published, files, networks, given = pipeline(model)
    for name, (config, state) in networks.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        weights_of = {key: value.detach().float().contiguous() for key, value in state.items()}
        write_bytes(out / name / "diffusion_pytorch_model.safetensors", save(weights_of, {"format": "pt"}))
        write_bytes(out / name / "config.json", as_json(config))
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(out / name, content)
    return f"diffusers.{published}.from_pretrained({_HERE}{given})", published, facts
