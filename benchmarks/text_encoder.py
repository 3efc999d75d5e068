"""What a frozen text encoder costs: `python benchmarks/text_encoder.py` prints a table for conditioner=text.

The encoder is a text model of CLIP with 123 M random weights, in a folder that the script makes with transformers. It
conditions the UNet of experiment=scenes on batches of 64 captions of scenes, on a GPU if there is one.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inkdrop.conditioners import Text
from inkdrop.data import Scenes, collect
from inkdrop.networks import UNet
from inkdrop.pipeline import foreign

BATCH, ROUNDS, TOKENS = 64, 12, 16
SIZES: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
WORDS = ("a", "of", "left", "right", "above", "below", "circle", "square", "triangle", "cross", "red", "green", "blue")


def main() -> None:
    """Prints the table."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        make(folder)
        text = Text(foreign(folder), token_dim=64, length=TOKENS).to(device)
    data = collect(Scenes({"x": "picture", "caption": "caption"}, None, 0, BATCH, num_scenes=640).splits["train"])
    batches = [{name: value[i : i + BATCH].to(device) for name, value in data.items()} for i in range(0, 640, BATCH)]
    network = UNet([3, 16, 16], 16, [1, 2, 4], 1, [4], norm_groups=8, token_dim=64).to(device)
    optimizer = torch.optim.AdamW([*network.parameters(), *(each for each in text.parameters() if each.requires_grad)])

    def step(cond: dict[str, Tensor], x: Tensor) -> None:
        optimizer.zero_grad()
        network(x, torch.zeros(len(x), device=device), **cond).square().mean().backward()
        optimizer.step()

    with torch.no_grad():
        first = [seconds(partial(text, batch), device) for batch in batches[:3]]
        again = [seconds(partial(text, batch), device) for _ in range(ROUNDS) for batch in batches[:3]]
    steps = [seconds(lambda: step(text(batches[0]), batches[0]["x"] / 127.5 - 1), device) for _ in range(ROUNDS)]
    whole, cached = statistics.median(steps[2:]), statistics.median(again)
    weights = sum(each.numel() for each in text.encoder.parameters())
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {device}")
    print(f"| of a batch of {BATCH} captions | ms | share of a step |")
    print("|---|---|---|")
    print(f"| a training step | {1e3 * whole:.1f} | |")
    print(f"| its condition, new captions | {1e3 * statistics.median(first):.1f} | |")
    print(f"| its condition, captions seen before | {1e3 * cached:.2f} | {cached / whole:.2%} |")
    trained = sum(each.numel() for each in text.parameters() if each.requires_grad)
    print(f"{weights / 1e6:.1f} M frozen weights, {trained} trained ones in the conditioner")


def make(folder: str, **sizes: Any) -> None:
    """The folder of an encoder, whose sizes may be others than those of the first CLIP."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    config: Any = transformers.CLIPTextConfig(**SIZES | sizes, eos_token_id=1, bos_token_id=0, pad_token_id=0)
    transformers.CLIPTextModel(config).save_pretrained(folder)
    words = {word: number for number, word in enumerate(("<s>", "</s>", "<unk>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer.save(f"{folder}/tokenizer.json")


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """The time of a call, with what it leaves to the device."""
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
