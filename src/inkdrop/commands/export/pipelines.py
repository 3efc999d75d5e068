"""The parts of a model as diffusers has them: the networks of its pipeline, its scheduler, and its autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from inkdrop.commands.export.texts import as_json, text_parts

if TYPE_CHECKING:
    from torch import Tensor

    from inkdrop.models import Autoencoder, Latent

_PREDICTIONS = {"NoisePrediction": "epsilon", "DataPrediction": "sample", "VPrediction": "v_prediction"}
_TEXTS = {  # components that must be None for diffusers where the folder lacks them
    "StableDiffusionPipeline": ("text_encoder", "tokenizer"),
    "StableDiffusion3Pipeline": tuple(f"{part}{i}" for i in ("", "_2", "_3") for part in ("text_encoder", "tokenizer")),
}
_Network = tuple[dict[str, Any], dict[str, "Tensor"]]


def pipeline(model: Any) -> tuple[str, dict[str, bytes], dict[str, _Network], str]:
    """Returns the class of a diffusion model, its files but for those of networks, its networks, and arguments.

    The arguments are those that the class needs to load the folder. Raises `ValueError` for a model that diffusers does
    not have.
    """
    from inkdrop.denoiser.network import NetworkDenoiser
    from inkdrop.networks import DiT, LatentUNet, LearnedVariance, MMDiT, UNet

    denoiser = getattr(model, "denoiser", None)
    if type(denoiser) is not NetworkDenoiser:
        kind = type(model if denoiser is None else denoiser).__name__
        raise ValueError(
            f"the checkpoint holds a {kind}, which cannot be exported: choose a run of task=diffusion with "
            "denoiser=network, or of task=autoencoder"
        )
    network: Any = denoiser.network
    if type(network) is LearnedVariance and type(network.network) is DiT:
        network = network.network  # theirs has twice the channels too
    kinds: dict[Any, tuple[Callable[..., Any], Callable[[Any], dict[str, Any]]]] = {
        UNet: (_pixel_pipeline, _scheduler),
        LatentUNet: (_latent_pipeline, _scheduler),
        DiT: (_transformer, _scheduler),
        MMDiT: (_text_transformer, _flow_scheduler),
    }
    if type(network) not in kinds:
        raise ValueError(
            f"the network is a {type(network).__name__}, which cannot be exported: choose a run with network=unet, "
            "network=latent_unet, network=dit or network=mmdit"
        )
    make, make_scheduler = kinds[type(network)]
    scheduler = make_scheduler(model)
    published, networks, further, files = make(model, network)
    if published.endswith("Pipeline"):
        parts = {name: ["diffusers", config["_class_name"]] for name, (config, _) in networks.items()}
        index = {"_class_name": published, **parts, "scheduler": ["diffusers", scheduler["_class_name"]], **further}
        files["model_index.json"] = as_json(index)
    given = "" if published.endswith("Pipeline") else f', subfolder="{next(iter(networks))}"'
    given += "".join(f", {name}=None" for name in _TEXTS.get(published, ()) if name not in further)
    return published, {**files, "scheduler/scheduler_config.json": as_json(scheduler)}, networks, given


def _scheduler(model: Any) -> dict[str, Any]:
    """The configuration of a DDIMScheduler with the betas of a discrete chain."""
    import torch

    denoiser: Any = model.denoiser
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


def _flow_scheduler(model: Any) -> dict[str, Any]:
    """The configuration of a FlowMatchEulerDiscreteScheduler, with the shift of the time grid."""
    from inkdrop.predictions import FlowPrediction
    from inkdrop.schedules import LinearInterpolation
    from inkdrop.time_grids import Shifted

    denoiser, grid = model.denoiser, model.sampler.time_grid
    if type(denoiser.schedule) is not LinearInterpolation or type(denoiser.prediction) is not FlowPrediction:
        kinds = f"{type(denoiser.schedule).__name__} and {type(denoiser.prediction).__name__}"
        raise ValueError(
            f"FlowMatchEulerDiscreteScheduler is of a straight path, but the run has {kinds}: choose a run with "
            "schedule=linear prediction=flow"
        )
    shift = float(grid.shift) if type(grid) is Shifted else 1.0
    return {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": shift}


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
    if (vae := _vae(model)) is None:
        raise ValueError(
            "a StableDiffusionPipeline needs codes of an autoencoder: choose a run with codec=latent or "
            "codec=latent_published"
        )
    if not network.doors["tokens"]:
        raise ValueError(
            "a UNet2DConditionModel attends to tokens, but this network takes none: choose a run with a conditioner "
            "that makes tokens, such as conditioner=words or conditioner=text"
        )
    entries, files = text_parts(model.conditioner)
    networks = {"unet": _published(network), "vae": vae}
    return "StableDiffusionPipeline", networks, {"requires_safety_checker": False, **entries}, files


def _vae(model: Any) -> _Network | None:
    """The autoencoder whose codes the model diffuses; None if it diffuses something else."""
    from inkdrop.models import Autoencoder, Latent

    if type(model.codec) is not Latent or type(model.codec.model.model) is not Autoencoder:
        return None
    return autoencoder(model.codec.model.model, model.codec)


def _transformer(model: Any, network: Any) -> _Parts:
    """A diffusion transformer with a table of classes, and the autoencoder of its codes.

    Theirs always has a table, so that a model without classes has one of a class that adds nothing.
    """
    import torch

    from inkdrop.conditioners import Label
    from inkdrop.networks.diffusers_dit import CLASSES
    from inkdrop.networks.diffusers_format import config_for_diffusers, to_diffusers

    labelled = type(model.conditioner) is Label
    if network.doors["vector"] and not labelled:
        raise ValueError(
            f"a DiTTransformer2DModel has classes, but the conditioner is a {type(model.conditioner).__name__}: choose "
            "a run with conditioner=label or conditioner=none"
        )
    table = network.patch.bias.new_zeros(2, len(network.patch.bias))
    if labelled:
        with torch.no_grad():
            table = network.vector(model.conditioner.embedding.weight)
    network.vector = torch.nn.Identity()
    config = {**config_for_diffusers(network), "num_embeds_ada_norm": len(table) - 1}
    state = to_diffusers(network, {CLASSES: table})
    made = _of_codes_or_pixels(model, "DiTPipeline", (config, state))
    if made[1].get("vae", ({}, {}))[0].get("shift_factor"):
        raise ValueError("a DiTPipeline knows no shift_factor: choose a run with codec.shift=0, or without codec.scale")
    return made


def _text_transformer(model: Any, network: Any) -> _Parts:
    """A transformer of text and image, the autoencoder of its codes, and its text encoders if diffusers knows them."""
    from inkdrop.networks.diffusers_format import config_for_diffusers, to_diffusers

    if "mask" in model.conditioner(model.conditioner.example(1)):
        raise ValueError(
            "an SD3Transformer2DModel attends to all tokens, but the conditioner hides some: choose a run with "
            "conditioner=texts_published"
        )
    parts = config_for_diffusers(network), to_diffusers(network)
    published, networks, _, _ = _of_codes_or_pixels(model, "StableDiffusion3Pipeline", parts)
    return published, networks, *(text_parts(model.conditioner) if "vae" in networks else ({}, {}))


def _of_codes_or_pixels(model: Any, published: str, transformer: _Network) -> _Parts:
    """A pipeline of a transformer and an autoencoder, or the transformer of pixels alone."""
    from inkdrop.codecs import Pixels

    vae, kind = _vae(model), transformer[0]["_class_name"]
    if vae is None and type(model.codec) is not Pixels:
        raise ValueError(
            f"the codec is {type(model.codec).__name__}, but a {kind} is of pixels, or of codes of an autoencoder: "
            "choose a run with codec=pixels, codec=latent or codec=latent_published"
        )
    if vae is None:
        return kind, {"transformer": transformer}, {}, {}
    return published, {"transformer": transformer, "vae": vae}, {}, {}


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
