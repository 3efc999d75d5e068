"""The codec of latent diffusion, whose x are codes of an autoencoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from inkdrop.codecs import Batches, Codec
from inkdrop.codecs.base import NOTHING
from inkdrop.models.autoencoder import Autoencoder
from inkdrop.models.base import Model
from inkdrop.models.code_cache import CodeCache, key_of
from inkdrop.models.holding import Frozen
from inkdrop.randomness import Generators


class Latent(Codec):
    """Encodes data to the codes of a trained model: `x = (z - mean) / std` by channel, over the training data.

    The model is an autoencoder, or a contrastive model, whose vectors are not decoded further. It is a part of the
    checkpoint, which is then enough on its own. What its encoder returned is kept by the content of an item, in memory
    and in `INKDROP_CACHE_DIR`, so that an item is encoded once, also by later runs with this model on such a device.

    - `model`: the model with an encoder.
    - `scale`: x is `scale z`, as published models have it; None standardises instead.
    - `batch_size`: the items that it encodes or decodes at a time; fewer ones are filled up, so that an item has the
      same code, to the bit, in any batch.
    - `num_items`: the training items of which statistics are taken, at most.
    - `cache_mib`: the memory for what the encoder returned, and the space in the file; 0 keeps nothing.
    - `shift`: with `scale`, x is `scale (z - shift)`, as the autoencoder of Stable Diffusion 3 has it.

    Raises `ValueError` for a model without codes. Source: Rombach et al. 2022, arXiv 2112.10752, section 3.1.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: Model,
        scale: Annotated[float, Gt(0)] | None = None,
        batch_size: Annotated[int, Ge(1)] = 16,
        num_items: Annotated[int, Ge(1)] = 16384,
        cache_mib: Annotated[int, Ge(0)] = 1024,
        shift: float = 0.0,
    ):
        super().__init__()
        if not hasattr(model, "encoded"):
            raise ValueError(
                f"codec.model is a {type(model).__name__}, which has no codes: choose a run of task=autoencoder"
            )
        self.model = Frozen(model)
        self.scale, self.batch_size, self.num_items, self.cache_mib = scale, batch_size, num_items, cache_mib
        channels = self._inner.latent_shape[0]
        self.register_buffer("mean", torch.full((channels,), float(shift if scale else 0.0)))
        self.register_buffer("std", torch.full((channels,), 1 / (scale or 1.0)))
        self._cache = CodeCache(cache_mib * 2**20)
        self.register_load_state_dict_post_hook(lambda module, _: module._cache.clear())

    @property
    def _inner(self) -> Autoencoder:
        held: Autoencoder = self.model.model
        return held

    def check(self, data: Tensor) -> None:
        self._inner.codec.check(data)

    def shape(self, raw: Sequence[int]) -> list[int]:
        if (needed := self._inner.codec.shape(raw)) != list(self._inner.shape):
            raise ValueError(
                f"codec.model was trained on x of {list(self._inner.shape)}, but data.shape={list(raw)} "
                f"makes x of {list(needed)}: choose data of its shape, or another model"
            )
        return list(self._inner.latent_shape)

    @torch.no_grad()
    def fit(self, batches: Batches, device: torch.device) -> None:
        self.to(device)
        if self.scale is not None:
            return
        count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
        for batch in batches(self.batch_size, ["x"]):
            z = self._inner.codes(self._encoded(batch)).double().transpose(0, 1).flatten(1)  # (Z, ...)
            count += z.shape[1]
            total, squares = total + z.sum(1).cpu(), squares + z.square().sum(1).cpu()
            if count >= self.num_items * (z.shape[1] // len(batch["x"])):
                break
        self._cache.write()
        mean = total / count
        self.mean.copy_(mean)
        self.std.copy_((squares / count - mean**2).clamp(min=0).sqrt())
        if not (self.std > 0).all():
            raise ValueError(
                f"channel {int((self.std > 0).int().argmin())} of the codes does not vary over the training data: "
                "train the model longer, or with fewer channels"
            )

    @torch.no_grad()
    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        z = self._inner.codes(self._encoded(batch), generators)
        return (z - self._along(self.mean, z)) / self._along(self.std, z)

    def decode(
        self, x: Tensor, batch: Mapping[str, Tensor] = NOTHING, extras: Mapping[str, Tensor] = NOTHING
    ) -> Tensor:
        with torch.no_grad():
            return torch.cat([self._inner.decoded(self._codes(part)) for part in x.split(self.batch_size)])

    def reconstruct(self, x: Tensor) -> Tensor:
        return self._inner.codec.reconstruct(self._inner.output(self._codes(x)))

    def _codes(self, x: Tensor) -> Tensor:
        return x.float() * self._along(self.std, x) + self._along(self.mean, x)

    def _encoded(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the encoder returns for raw data, in float32, which is computed for items that are not kept."""
        data, device = batch["x"], self.mean.device
        self._cache.belongs_to(self._inner, self.mean)
        keys = [key_of(item) for item in data.cpu().numpy()]
        known = {key: self._cache.get(key) for key in keys}
        new = list({key: row for row, key in enumerate(keys) if known[key] is None}.values())
        made: dict[bytes, Tensor] = {}
        with torch.autocast(device.type, enabled=False):  # what is kept has the same type in every precision
            for start in range(0, len(new), self.batch_size):
                rows = new[start : start + self.batch_size]
                filled = rows + rows[-1:] * (self.batch_size - len(rows))  # rounding depends on the size of a batch
                encoded = self._inner.encoded({"x": data[filled].to(device)}).float().cpu()
                made |= {keys[row]: each.flatten().clone() for row, each in zip(rows, encoded, strict=False)}
        self._cache.add(made)
        found = {**known, **made}
        flat = torch.stack([each for key in keys if (each := found[key]) is not None])
        return flat.reshape(len(keys), -1, *self._inner.latent_shape[1:]).to(device)

    @staticmethod
    def _along(statistic: Tensor, z: Tensor) -> Tensor:
        """A statistic of channels that broadcasts to z (B, Z, *)."""
        return statistic.reshape(-1, *(1,) * (z.dim() - 2))
