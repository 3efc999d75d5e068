"""Text encoders of transformers, CLIP and T5, from files that are data: nothing of a folder is executed.

B batch, L tokens, D width of the encoder.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from inkdrop.files.fields import wrong_field
from inkdrop.files.showing import harmless
from inkdrop.models import ForeignFiles

_Count = Annotated[int, Ge(1), Le(2**20)]
_Small = Annotated[float, Gt(0), Le(1)]
# The fields of a configuration that are used. Others may name code or files elsewhere, and are left out.
_CLIP_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"), _Count),
    **dict.fromkeys(("num_attention_heads", "max_position_embeddings"), _Count),
    "hidden_act": Literal["quick_gelu", "gelu"],
    "layer_norm_eps": _Small,
    "eos_token_id": Annotated[int, Ge(0)],
    **dict.fromkeys(("bos_token_id", "pad_token_id"), Annotated[int, Ge(0)] | None),
}
_PROJECTED_FIELDS: dict[str, Any] = {**_CLIP_FIELDS, "projection_dim": _Count}
_T5_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"), _Count),
    **dict.fromkeys(("relative_attention_num_buckets", "relative_attention_max_distance"), _Count),
    "feed_forward_proj": Literal["relu", "gated-gelu", "gated-silu"],
    "layer_norm_epsilon": _Small,
}


class TextEncoder(nn.Module):
    """A text encoder: the tokens (B, L, D) and a vector (B, V) of texts, from numbers of tokens and a mask (B, L).

    - `dim`: the width D.
    - `vector_dim`: the width V, which is D but for a projected vector.
    - `text`: the layers, with their published names.
    - `num_tokens`: the number of different tokens.
    - `max_length`: the largest L, or None if there is no limit.
    """

    text: nn.Module
    dim: int
    vector_dim: int
    num_tokens: int
    max_length: int | None = None

    @abstractmethod
    def forward(self, numbers: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the tokens and the vector."""


class _CLIP(TextEncoder):
    """The text model of CLIP; the vector is that of the token that ends the text. Source: arXiv 2103.00020."""

    def __init__(self, transformers: Any, config: Mapping[str, Any]):
        super().__init__()
        model = transformers.CLIPTextModel(transformers.CLIPTextConfig(**_chosen(config, _CLIP_FIELDS)))
        self.dim = self.vector_dim = model.config.hidden_size
        self.num_tokens, self.max_length = model.config.vocab_size, model.config.max_position_embeddings
        self.text = getattr(model, "text_model", model)  # which one has the layers depends on the release

    def forward(self, numbers: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        output = self.text(input_ids=numbers, attention_mask=mask.long())
        return output.last_hidden_state, output.pooler_output


class _ProjectedCLIP(TextEncoder):
    """The states before the last layer of CLIP's text model, and the vector that it compares with images.

    Source: Podell et al. 2023, arXiv 2307.01952, section 2.1 (which states), and CLIP, arXiv 2103.00020.
    """

    def __init__(self, transformers: Any, config: Mapping[str, Any]):
        super().__init__()
        chosen = transformers.CLIPTextConfig(**_chosen(config, _PROJECTED_FIELDS))
        model = transformers.CLIPTextModelWithProjection(chosen)
        self.dim, self.vector_dim = model.config.hidden_size, model.config.projection_dim
        self.num_tokens, self.max_length = model.config.vocab_size, model.config.max_position_embeddings
        self.text, self.text_projection = (
            getattr(model.text_model, "text_model", model.text_model),
            model.text_projection,
        )

    def forward(self, numbers: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        output = self.text(input_ids=numbers, attention_mask=mask.long(), output_hidden_states=True)
        return output.hidden_states[-2], self.text_projection(output.pooler_output)


class _T5(TextEncoder):
    """The encoder of T5; the vector is the mean of the tokens. Source: arXiv 1910.10683."""

    def __init__(self, transformers: Any, config: Mapping[str, Any]):
        super().__init__()
        chosen = _chosen(config, _T5_FIELDS)
        model = transformers.T5EncoderModel(transformers.T5Config(**chosen, dropout_rate=0.0))
        self.dim = self.vector_dim = model.config.d_model
        self.num_tokens, self.text = model.config.vocab_size, model.encoder

    def forward(self, numbers: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.text(input_ids=numbers, attention_mask=mask.long()).last_hidden_state
        shares = mask / mask.sum(1, keepdim=True)
        return tokens, (tokens * shares[:, :, None]).sum(1)


def _whole(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return config


def _of_text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of the configuration of a model of images and texts."""
    return config.get("text_config") or {}


_Kind = tuple[Callable[[Any, Mapping[str, Any]], TextEncoder], Callable[[Mapping[str, Any]], Mapping[str, Any]]]
ARCHITECTURES: dict[str, _Kind] = {
    "CLIPTextModel": (_CLIP, _whole),
    "CLIPTextModelWithProjection": (_CLIP, _whole),
    "CLIPModel": (_CLIP, _of_text),
    "T5EncoderModel": (_T5, _whole),
    "T5ForConditionalGeneration": (_T5, _whole),
}
PROJECTED: dict[str, _Kind] = {"CLIPTextModelWithProjection": (_ProjectedCLIP, _whole)}
T5: dict[str, _Kind] = {name: kind for name, kind in ARCHITECTURES.items() if name.startswith("T5")}


def text_encoder(files: ForeignFiles, known: Mapping[str, _Kind] = ARCHITECTURES) -> TextEncoder:
    """Returns the text encoder of a foreign model, with its weights if its folder is there.

    `known` are the architectures that it may have: `PROJECTED` or `T5` alone, or all of `ARCHITECTURES`.

    Raises `ValueError` for another architecture, for a configuration that is out of range, for weights that do not fit,
    and if transformers is not installed.
    """
    kind, part = known[files.architecture(known)]
    try:
        import transformers
    except ImportError:
        raise ValueError("conditioner=text needs transformers: run `pip install 'inkdrop[features]'`") from None
    config = part(files.config)
    if not isinstance(config, Mapping):
        raise ValueError("config.json of the foreign model: text_config is not a mapping")
    with torch.random.fork_rng(devices=[]):  # the numbers that the weights begin with are not used
        try:
            encoder = kind(transformers, config)
        except Exception as error:  # transformers can raise errors of any type on a foreign configuration
            raise ValueError(f"config.json of the foreign model: {harmless(error)}") from None
    if (weights := files.weights()) is not None:
        _load(encoder, weights)
    return encoder


def _chosen(config: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    if (wrong := wrong_field(config, fields)) is not None:
        raise ValueError(wrong)
    return {name: config[name] for name in fields if name in config}


def _load(encoder: TextEncoder, weights: Mapping[str, Tensor]) -> None:
    """Loads published weights, of which those of other parts, such as a decoder, are left out."""
    given: dict[str, Tensor] = {}
    for name, value in weights.items():
        given[name.removeprefix("text_model.")] = value
        given.setdefault(name.removeprefix("encoder."), value)
    if "shared.weight" in given:
        given.setdefault("embed_tokens.weight", given["shared.weight"])
    own = {key.removeprefix("text."): value for key, value in encoder.state_dict().items()}
    for name, value in own.items():
        if name not in given or given[name].shape != value.shape:
            has = f"the shape {list(given[name].shape)}" if name in given else "nothing"
            raise ValueError(
                f"model.safetensors of the foreign model has {has} for {name}, but config.json says "
                f"{list(value.shape)}: use the original folder"
            )
    encoder.load_state_dict({key: given[key.removeprefix("text.")].float() for key in encoder.state_dict()})
