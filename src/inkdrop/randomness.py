"""Keyed randomness: every random number is a pure function of a seed, a purpose and a position.

Nothing here is stateful. The random numbers of a sample therefore do not depend on its batch, on the number of workers
or devices, or on whether the run was interrupted before.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import astuple, dataclass

import numpy as np
import torch
from torch import Tensor

MAX_SEED = 2**32 - 1


@functools.cache
def _hashed(purpose: str) -> int:
    """Returns 32 bits of a purpose; the built-in `hash` of a string differs between processes."""
    return int.from_bytes(hashlib.blake2s(purpose.encode(), digest_size=4).digest(), "little")


# Shifts and factors of the finaliser of MurmurHash3.
_ROUNDS = ((16, 0x85EBCA6B), (13, 0xC2B2AE35))


def _mixed(key: int, word: int) -> int:
    """Applies one round of the finaliser of MurmurHash3, which is bijective in the key and in the word."""
    h = key ^ word
    for shift, factor in _ROUNDS:
        h = (h ^ (h >> shift)) * factor & MAX_SEED
    return h ^ (h >> 16)


def _mix(keys: np.ndarray, word: int | np.ndarray) -> np.ndarray:
    """Returns what `_mixed` does of each key."""
    h = keys.astype(np.uint32) ^ np.asarray(word, np.uint32)
    for shift, factor in _ROUNDS:
        h ^= h >> np.uint32(shift)
        h *= np.uint32(factor)  # modulo 2^32
    return (h ^ (h >> np.uint32(16))).astype(np.uint64)


# 2^64 divided by the golden ratio: its multiples modulo 2^64 are spread as evenly as those of any number.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def same_dropout(generators: Generators) -> None:
    """Seeds torch's global generators, from which dropout draws, by the first stream's purpose "dropout".

    A loss that calls a network twice in a step calls this before each, so that both calls drop the same elements.
    """
    seed = int(generators.at("dropout").keys[0])
    if torch.accelerator.is_available() and not torch.cuda.is_initialized():
        torch.manual_seed(seed)
        return
    # torch.manual_seed would note the stack of calls for devices that there may be later, in each step.
    for generator in (torch.default_generator, *(torch.cuda.default_generators if torch.cuda.is_initialized() else ())):
        generator.manual_seed(seed)


def sent(values: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Returns values of the host on a device and of a type, without waiting for what the device still has to do.

    The values are converted here and pinned, because a copy of other memory waits. Those that lie on the device, or
    belong on the host, are only converted.
    """
    values = values if dtype is None else values.to(dtype)
    if values.device == device:
        return values
    if device.type == "cuda" and values.device.type == "cpu" and not values.is_pinned():
        values = values.pin_memory()
    return values.to(device, non_blocking=device.type == "cuda")  # elsewhere the values could change before the copy


@dataclass(frozen=True, eq=False)
class Generators:
    """One random stream per sample, each given by a key of 32 bits.

    `at(purpose, *position)` returns other, independent streams. Equal keys always produce equal numbers. For one
    purpose and position, different seeds never share a key. Neither do different positions of one seed, nor the first
    100 million positions of seeds 0 to 19. The keys have 32 bits because torch's CPU generator uses no more of a seed.
    """

    keys: np.ndarray  # (B), values below 2**32
    places: np.ndarray  # (B), position times _GOLDEN plus a common start, modulo 2**64

    @classmethod
    def from_seeds(cls, seeds: Iterable[int]) -> Generators:
        """Returns one stream per seed; raises `ValueError` for a seed outside 0 to 2**32 - 1."""
        seeds = list(seeds)
        if wrong := [seed for seed in seeds if not 0 <= seed <= MAX_SEED]:
            raise ValueError(f"seed {wrong[0]} must be between 0 and {MAX_SEED}: choose another seed")
        keys = np.array(seeds, np.uint64)
        return cls(keys, keys * _GOLDEN)

    @classmethod
    def from_positions(cls, seed: int, positions: Iterable[int]) -> Generators:
        """Returns one stream per global position of one seed, such as the number of earlier training samples."""
        numbers, start = np.array(list(positions), np.uint64), cls.from_seeds([seed]).keys
        place = _mix(start, _hashed("place")) << np.uint64(32)
        # Neighbouring seeds are moved far apart: otherwise seed 1 at position 0 would equal seed 0 at position 1.
        far = start * (_GOLDEN >> np.uint64(32)) & np.uint64(MAX_SEED)
        return cls(_mix(far, numbers & np.uint64(MAX_SEED)), numbers * _GOLDEN + place)

    def __len__(self) -> int:
        return len(self.keys)

    def at(self, purpose: str, *position: int) -> Generators:
        """Returns the streams of this purpose and position."""
        keys, start = self.keys, 0
        for word in (_hashed(purpose), *(number & MAX_SEED for number in position)):
            keys, start = _mix(keys, word), _mixed(start, word)
        return Generators(keys, self.places + np.uint64(start << 32))

    def repeat(self, copies: int) -> Generators:
        """Returns `copies` adjacent streams per sample; the first one is the stream of the sample itself."""
        all_copies = [self, *(self.at("copy", number) for number in range(1, copies))]
        keys, places = (np.stack(arrays, axis=1).reshape(-1) for arrays in zip(*map(astuple, all_copies), strict=True))
        return Generators(keys, places)

    def firsts(self, copies: int) -> Generators:
        """Returns the stream of each sample itself, from `copies` adjacent streams per sample."""
        return Generators(self.keys[::copies], self.places[::copies])

    def normal(self, shape: Iterable[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Draws standard normal numbers `(B, *shape)` on the CPU; they depend on the shape."""
        return self._fill(torch.Tensor.normal_, shape, dtype)

    def uniform(self, shape: Iterable[int] = (), dtype: torch.dtype = torch.float64) -> Tensor:
        """Draws numbers `(B, *shape)` uniform in [0, 1) on the CPU."""
        return self._fill(torch.Tensor.uniform_, shape, dtype)

    def spread(self) -> Tensor:
        """Returns float64 numbers (B) in [0, 1), even over consecutive positions: `frac(start + position / phi)`.

        Each of them is uniform over seeds and purposes. Those of a batch are further apart than random numbers.
        """
        return torch.from_numpy((self.places >> np.uint64(11)).astype(np.float64)) * 2.0**-53

    def _fill(self, fill: object, shape: Iterable[int], dtype: torch.dtype) -> Tensor:
        out = torch.empty((len(self), *shape), dtype=dtype)
        generator = torch.Generator()
        for row, key in zip(out.unbind(), self.keys.tolist(), strict=True):
            fill(row, generator=generator.manual_seed(key))  # type: ignore[operator]
        return out
