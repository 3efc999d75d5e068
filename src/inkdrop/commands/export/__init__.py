"""The command `export`: writes the model of a run as a folder that diffusers loads, or its adapter alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inkdrop.commands.export.card import CARD, card, facts_of, results_of
from inkdrop.commands.export.texts import as_json, text_parts
from inkdrop.commands.plain_options import read_options
from inkdrop.errors import ConfigurationError
from inkdrop.files.showing import harmless
from inkdrop.files.writing import write_text

if TYPE_CHECKING:
    from torch import Tensor

    from inkdrop.models import Autoencoder, Latent

_OPTIONS = {"checkpoint": "", "folder": "", "weights": "ema", "format": "diffusers"}
_PREDICTIONS = {"NoisePrediction": "epsilon", "DataPrediction": "sample", "VPrediction": "v_prediction"}
_EPILOG = """\
checkpoint=RUN  run folder or checkpoint
folder=OUT      the folder to write, which must not exist
weights=ema     ema, raw, or another average of the weights
format=...      diffusers, or adapter: the adapter of a run without its base, in the layout of peft

The model of a run with network=unet becomes a DDIMPipeline, one with network=latent_unet and a codec of an autoencoder
a StableDiffusionPipeline, with its text encoder if conditioner=text_published, and the one of task=autoencoder an
AutoencoderKL.
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
        published, files, networks = "AutoencoderKL", dict[str, bytes](), {".": autoencoder(model)}
    else:
        published, files, networks = _pipeline(model)
    for name, (config, state) in networks.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        weights_of = {key: value.detach().float().contiguous() for key, value in state.items()}
        write_bytes(out / name / "diffusion_pytorch_model.safetensors", save(weights_of, {"format": "pt"}))
        write_bytes(out / name / "config.json", as_json(config))
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(out / name, content)
    needs_texts = published == "StableDiffusionPipeline" and "text_encoder/config.json" not in files
    given = ", text_encoder=None, tokenizer=None" if needs_texts else ""
    return f"diffusers.{published}.from_pretrained({_HERE}{given})", published, facts


_Network = tuple[dict[str, Any], dict[str, "Tensor"]]


def _pipeline(model: Any) -> tuple[str, dict[str, bytes], dict[str, _Network]]:
    """The class of a diffusion model, its files but for those of networks, and its networks."""
    from inkdrop.denoiser.network import NetworkDenoiser
    from inkdrop.networks import LatentUNet, UNet

    denoiser = getattr(model, "denoiser", None)
    if type(denoiser) is not NetworkDenoiser:
        kind = type(model if denoiser is None else denoiser).__name__
        raise ValueError(
            f"the checkpoint holds a {kind}, which cannot be exported: choose a run of task=diffusion with "
            "denoiser=network, or of task=autoencoder"
        )
    kinds: dict[Any, Callable[..., Any]] = {UNet: _pixel_pipeline, LatentUNet: _latent_pipeline}
    if (made := kinds.get(type(denoiser.network))) is None:
        raise ValueError(
            f"the network is a {type(denoiser.network).__name__}, which cannot be exported: choose a run with "
            "network=unet or network=latent_unet"
        )
    scheduler = _scheduler(denoiser)
    published, networks, further, files = made(model, denoiser.network)
    parts = {name: ["diffusers", config["_class_name"]] for name, (config, _) in networks.items()}
    index = {"_class_name": published, **parts, "scheduler": ["diffusers", "DDIMScheduler"], **further}
    files |= {"model_index.json": as_json(index), "scheduler/scheduler_config.json": as_json(scheduler)}
    return published, files, networks


def _scheduler(denoiser: Any) -> dict[str, Any]:
    """The configuration of a DDIMScheduler with the betas of a discrete chain."""
    import torch

    schedule, count = denoiser.schedule, denoiser.schedule.num_timesteps
    if (prediction := _PREDICTIONS.get(type(denoiser.prediction).__name__)) is None:
        raise ValueError(
            f"{type(denoiser.prediction).__name__} is not a prediction of DDIMScheduler: choose a run with "
            "prediction=noise, v or data"
        )
    times = torch.arange(1, (count or 1) + 1, dtype=torch.float64) / (count or 1)
    point = schedule.point(times)
    alpha, sigma, c_noise = (torch.as_tensor(each) for each in (point.alpha, point.sigma, point.c_noise))
    whole = torch.arange(len(times), dtype=torch.float64)
    if not count or (alpha**2 + sigma**2 - 1).abs().max() > 1e-6 or (c_noise - whole).abs().max() > 1e-6:
        raise ValueError(
            f"{type(schedule).__name__} is not a discrete chain with alpha^2 + sigma^2 = 1, which DDIMScheduler needs: "
            "choose a run with schedule=linear_beta, scaled_linear or cosine"
        )
    kept = alpha**2
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": count,
        "trained_betas": (1 - kept / torch.cat([kept.new_ones(1), kept[:-1]])).tolist(),
        "prediction_type": prediction,
        "clip_sample": False,
        "set_alpha_to_one": True,
        "steps_offset": 1,  # StableDiffusionPipeline asks for it, and trailing does not use it
        "timestep_spacing": "trailing",
    }


_Parts = tuple[str, dict[str, _Network], dict[str, Any], dict[str, bytes]]


def _pixel_pipeline(model: Any, network: Any) -> _Parts:
    """A UNet of images in [-1, 1]; the vectors of classes become a table."""
    import torch

    from inkdrop.codecs import Pixels
    from inkdrop.conditioners import Label
    from inkdrop.networks.diffusers_format import NUM_CLASSES

    if type(model.codec) is not Pixels:
        raise ValueError(
            f"the codec is {type(model.codec).__name__}, but a UNet2DModel is of pixels: choose a run with "
            "codec=pixels, or with network=latent_unet"
        )
    vector, classes = network.vector, {}
    if vector is not None and type(model.conditioner) is Label:
        network.vector = None
        with torch.no_grad():
            classes = {"class_embedding.weight": vector(model.conditioner.embedding.weight)}
    config, state = _published(network)
    if classes:
        config |= {"num_class_embeds": model.conditioner.num_classes + 1, NUM_CLASSES: model.conditioner.num_classes}
    return "DDIMPipeline", {"unet": (config, {**state, **classes})}, {}, {}


def _latent_pipeline(model: Any, network: Any) -> _Parts:
    """A UNet of codes with tokens, their autoencoder, and the text encoder if diffusers knows it."""
    from inkdrop.models import Autoencoder, Latent

    if type(model.codec) is not Latent or type(model.codec.model.model) is not Autoencoder:
        raise ValueError(
            "a StableDiffusionPipeline needs codes of an autoencoder: choose a run with codec=latent or "
            "codec=latent_published"
        )
    if not network.doors["tokens"]:
        raise ValueError(
            "a UNet2DConditionModel attends to tokens, but this network takes none: choose a run with a conditioner "
            "that makes tokens, such as conditioner=words or conditioner=text"
        )
    inner = model.codec.model.model
    networks = {"unet": _published(network), "vae": autoencoder(inner, model.codec)}
    entries, files = text_parts(model.conditioner)
    return "StableDiffusionPipeline", networks, {"requires_safety_checker": False, **entries}, files


def _published(network: Any) -> _Network:
    from inkdrop.networks.diffusers_format import config_for_diffusers, to_diffusers

    if network.conv_in.weight.dim() != 4:
        raise ValueError(f"the network has {network.conv_in.weight.dim() - 2} dimensions, but diffusers' has 2")
    return config_for_diffusers(network), to_diffusers(network)


def autoencoder(model: Autoencoder, codec: Latent | None = None) -> _Network:
    """Returns configuration and weights of an `AutoencoderKL`, whose codes are those of the codec.

    Mean and deviation of a channel become a part of the maps before and after the codes; a published scale stays the
    `scaling_factor`. Raises `ValueError` for parts that `AutoencoderKL` lacks.
    """
    import torch

    from inkdrop.codecs import Pixels
    from inkdrop.models.observations import Observation
    from inkdrop.networks.autoencoders import ConvolutionalAutoencoder, ConvolutionalEncoder
    from inkdrop.networks.bottlenecks import KL
    from inkdrop.networks.diffusers_format import config_for_diffusers, to_diffusers

    fits = type(model.encoder) is ConvolutionalEncoder and type(model.bottleneck) is KL and type(model.codec) is Pixels
    if not fits or type(model.observation).mean is not Observation.mean:
        raise ValueError(
            "an AutoencoderKL is convolutional, of pixels, with a normal law of codes: choose an autoencoder with "
            "network=autoencoder bottleneck=kl observation=gaussian and images of 8 bits"
        )
    if model.encoder.norm_out.eps != 1e-6:
        raise ValueError(f"an AutoencoderKL has norm_eps=1e-6, but this network has {model.encoder.norm_out.eps}")
    decoder: Any = model.network
    network = ConvolutionalAutoencoder.joined(model.encoder, decoder, model.bottleneck)
    config, state = config_for_diffusers(network), to_diffusers(network)
    if codec is None:
        return config, state
    if codec.scale is not None:
        return {**config, "scaling_factor": codec.scale, "shift_factor": float(codec.mean[0]) or None}, state
    mean, std, half = codec.mean, codec.std, len(codec.mean)
    factor, shift = torch.cat([1 / std, std.new_ones(half)]), torch.cat([-mean / std, -2 * std.log()])
    before, after = state["quant_conv.weight"], state["post_quant_conv.weight"]
    state |= {
        "quant_conv.weight": before * factor[:, None, None, None],
        "quant_conv.bias": state["quant_conv.bias"] * factor + shift,
        "post_quant_conv.weight": after * std[:, None, None],
        "post_quant_conv.bias": state["post_quant_conv.bias"] + (after[:, :, 0, 0] @ mean),
    }
    return config, state
