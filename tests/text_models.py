"""Folders of tiny text models as transformers writes them, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

WORDS = ("a", "red", "blue", "circle", "square", "left", "of", "größer")
SPECIAL = ("<pad>", "</s>", "<unk>", "<s>")
CLIP = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
CLIP |= {"max_position_embeddings": 12, "projection_dim": 4, "eos_token_id": 1, "bos_token_id": 3, "pad_token_id": 0}
T5 = {"vocab_size": 16, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2}
T5_FURTHER = {
    "relative_attention_num_buckets": 4,
    "relative_attention_max_distance": 8,
    "feed_forward_proj": "gated-gelu",
}


def model(architecture: str) -> Any:
    """A model of transformers with random weights."""
    import transformers

    torch.manual_seed(0)
    if architecture.startswith("T5"):
        kind = getattr(transformers, architecture)
        return kind(
            transformers.T5Config(**T5, **T5_FURTHER, decoder_start_token_id=0, tie_word_embeddings=True)
        ).eval()
    config: Any = transformers.CLIPTextConfig(**CLIP)
    if architecture == "CLIPModel":
        vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        vision |= {"image_size": 4, "patch_size": 2}
        config = transformers.CLIPConfig(text_config=CLIP, vision_config=vision, projection_dim=4)
    return getattr(transformers, architecture)(config).eval()


def tokenizer(begins: bool) -> Any:
    """A tokenizer of words, which ends a text with a token, and begins it with one for CLIP."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate((*SPECIAL, *WORDS))}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    single, special = ("<s> $A </s>", [("<s>", 3), ("</s>", 1)]) if begins else ("$A </s>", [("</s>", 1)])
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    made.add_special_tokens([*SPECIAL])
    made.enable_padding(length=20)  # which the files of some models have
    return made


def made(folder: Path, architecture: str = "CLIPTextModel", **config: Any) -> Path:
    """A folder with configuration, tokenizer and weights, and with code that must not run."""
    model(architecture).save_pretrained(folder)
    (folder / "code.py").write_text("raise SystemExit('executed')\n")
    tokenizer(not architecture.startswith("T5")).save(str(folder / "tokenizer.json"))
    changed(folder, **config)
    return folder


def changed(folder: Path, **config: Any) -> Path:
    """The folder with other values in its configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder
