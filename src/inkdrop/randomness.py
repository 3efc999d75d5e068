"""Keyed randomness: every random number is a pure function of a seed, a purpose and a position.

Nothing here keeps a state. What a sample is given does therefore not depend on the batch it stands in, on the number
of workers or devices, or on whether the run was interrupted before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MAX_SEED = 2**32 - 1


def _word(value: int | str) -> int:
    """32 bits of a position or of a purpose; the built-in `hash` of a string differs from process to process."""
    if isinstance(value, str):
        return int.from_bytes(hashlib.blake2s(value.encode(), digest_size=4).digest(), "little")
    return value & MAX_SEED


def _mix(keys: np.ndarray, word: int | np.ndarray) -> np.ndarray:
    """One round of the finaliser of MurmurHash3: bijective in the keys for a given word, and the other way round."""
    h = (keys ^ np.asarray(word, np.uint64)) & np.uint64(MAX_SEED)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h ^= h >> np.uint64(shift)
        h = (h * np.uint64(factor)) & np.uint64(MAX_SEED)
    return h ^ (h >> np.uint64(16))


@dataclass(frozen=True, eq=False)
class Generators:
    """One random stream per sample, each a key of 32 bits.

    `at(purpose, *position)` leads to other, independent streams. Equal keys give equal numbers however often they are
    asked for. For one purpose and position, different seeds never share a key, nor do different positions of one seed:
    torch's CPU generator looks at 32 bits of its seed only, so the keys have no more.
    """

    keys: np.ndarray  # (B), values below 2**32

    @classmethod
    def from_seeds(cls, seeds: Iterable[int]) -> Generators:
        """One stream per seed of a sample slot; `ValueError` for a seed outside 0 to 2**32 - 1."""
        seeds = list(seeds)
        if wrong := [seed for seed in seeds if not 0 <= seed <= MAX_SEED]:
            raise ValueError(f"seed {wrong[0]} is not between 0 and {MAX_SEED}")
        return cls(np.array(seeds, np.uint64))

    @classmethod
    def from_positions(cls, seed: int, positions: Iterable[int]) -> Generators:
        """One stream per global position of one seed, such as the count of training samples seen so far."""
        return cls(_mix(cls.from_seeds([seed]).keys, np.array(list(positions), np.uint64) & np.uint64(MAX_SEED)))

    def __len__(self) -> int:
        return len(self.keys)

    def at(self, purpose: str, *position: int) -> Generators:
        """The streams of this purpose and position."""
        keys = self.keys
        for word in [_word(purpose), *map(_word, position)]:
            keys = _mix(keys, word)
        return Generators(keys)

    def repeat(self, copies: int) -> Generators:
        """`copies` streams per sample, side by side; the first of each is the sample's own."""
        others = [self.at("copy", number).keys for number in range(1, copies)]
        return Generators(np.stack([self.keys, *others], axis=1).reshape(-1))

    def normal(self, shape: Iterable[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers `(B, *shape)` on the CPU; another shape gives other numbers."""
        return self._fill(torch.Tensor.normal_, shape, dtype)

    def uniform(self, shape: Iterable[int] = (), dtype: torch.dtype = torch.float64) -> Tensor:
        """Numbers `(B, *shape)` uniform in [0, 1) on the CPU."""
        return self._fill(torch.Tensor.uniform_, shape, dtype)

    def _fill(self, fill: object, shape: Iterable[int], dtype: torch.dtype) -> Tensor:
        out = torch.empty((len(self), *shape), dtype=dtype)
        generator = torch.Generator()
        for row, key in zip(out.unbind(), self.keys.tolist(), strict=True):
            fill(row, generator=generator.manual_seed(key))  # type: ignore[operator]
        return out
