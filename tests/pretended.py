"""A device that a CPU only pretends to be: what the host would read of it, or wait for, is written down.

Tensors that would lie on a GPU are marked, and so is all that is computed of them. They call themselves tensors of
`cuda:0`, an operation of marked and other tensors is refused as there, and what makes the host wait is noted with its
place: reading a number, copies that block, copies from or to memory that is not pinned, and indices from the host.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.overrides import TorchFunctionMode

DEVICE = torch.device("cuda", 0)
READ = {"item", "tolist", "__float__", "__int__", "__bool__", "__index__", "__format__", "__repr__", "numpy", "cpu"}
READ |= {
    "nonzero",
    "unique",
    "equal",
    "allclose",
    "masked_select",
    "__contains__",
    "__array__",
    "is_nonzero",
    "argwhere",
}


def marked(value: Any) -> bool:
    return isinstance(value, Tensor) and getattr(value, "there", False)


def mark(value: Any) -> Any:
    for each in tensors(value):
        each.there = True  # type: ignore[attr-defined]
    return value


def tensors(node: Any) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from tensors(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from tensors(value)


class Event:
    """An event of CUDA on a device that has always done everything."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def record(self, *args: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass


class There(Callback):
    """Puts what a trainer trains on the pretended device."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        trainer.strategy._root_device = DEVICE


class Pretended(TorchFunctionMode):
    """While it is entered, tensors on `cuda:0` are pretended; `waits` are those of the host while `counting`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        super().__init__()
        self.waits: list[str] = []
        self.counting = False
        group = torch._C._group_tensors_by_device_and_dtype

        def grouped(lists: Any, *args: Any) -> Any:
            return {
                (DEVICE if any(map(marked, tensors(value[0]))) else device, dtype): value
                for (device, dtype), value in group(lists, *args).items()
            }

        monkeypatch.setattr(torch._C, "_group_tensors_by_device_and_dtype", grouped)
        monkeypatch.setattr(torch.cuda, "Event", Event)

    def note(self, what: str) -> None:
        if self.counting:
            frames = [f for f in traceback.extract_stack() if "/inkdrop/" in f.filename or "/lightning/" in f.filename]
            self.waits.append(f"{what} at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", str(func))
        if name in ("__get__", "__set__"):
            return self._attribute(func, name, args)
        special = getattr(self, f"_do_{name.strip('_')}", None)
        if special is not None:
            return special(func, args, kwargs)
        if name in READ and marked(args[0]):
            self.note(name)
            return func(*args, **kwargs)
        if kwargs.get("device") is not None and torch.device(kwargs["device"]) == DEVICE:
            if name in ("tensor", "as_tensor"):
                self.note(f"torch.{name} on the device")
            return mark(func(*args, **{**kwargs, "device": "cpu"}))
        return self._computed(func, args, kwargs)

    def _attribute(self, func: Any, name: str, args: Any) -> Any:
        field = func.__self__.__name__
        if name == "__set__":
            func(*args)
            if marked(args[1]):
                mark(args[0])
            return None
        if marked(args[0]) and field in ("device", "is_cuda", "is_cpu"):
            return {"device": DEVICE, "is_cuda": True, "is_cpu": False}[field]
        value = func(*args)
        return mark(value) if marked(args[0]) else value

    def _computed(self, func: Any, args: Any, kwargs: Any) -> Any:
        given = [*tensors(args), *tensors(kwargs)]
        result = func(*args, **kwargs)
        if not any(map(marked, given)):
            return result
        if any(True for _ in tensors(result)):
            wrong = [each for each in given if not marked(each) and each.dim()]
            assert not wrong, f"{func.__name__} of tensors on two devices"
        return mark(result)

    def _do_to(self, func: Any, args: Any, kwargs: Any) -> Any:
        values, asked = args[0], [*args[1:], kwargs.get("device"), kwargs.get("other")]
        places = [each for each in asked if isinstance(each, str | torch.device | Tensor)]
        if not places:
            return mark(func(*args, **kwargs)) if marked(values) else func(*args, **kwargs)
        place = places[0]
        there = marked(place) if isinstance(place, Tensor) else torch.device(place) == DEVICE
        dtype = next((each for each in [*args, *kwargs.values()] if isinstance(each, torch.dtype)), None)
        dtype = place.dtype if isinstance(place, Tensor) else dtype or values.dtype
        if there == marked(values):
            result = values.to(dtype, copy=kwargs.get("copy", False))
            return mark(result) if there else result
        eager = kwargs.get("non_blocking") or any(each is True for each in args[1:])
        self._copied(values, there, eager and dtype == values.dtype, "to")
        result = values.to(dtype, copy=True)
        return mark(result) if there else result

    def _copied(self, values: Tensor, there: bool, eager: bool, how: str) -> None:
        """Notes a copy to the device, or from there, that is not left to itself."""
        if not eager or (there and not getattr(values, "pinned", False)):
            self.note(f"{how}, {'to' if there else 'from'} the device")

    def _do_cuda(self, func: Any, args: Any, kwargs: Any) -> Any:
        return self._do_to(func, (args[0], DEVICE), kwargs)

    def _do_copy(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func.__name__ == "copy_" and marked(args[0]) != marked(args[1]):
            self._copied(args[1], marked(args[0]), bool(kwargs.get("non_blocking") or args[2:]), "copy_")
        return func(*args, **kwargs)

    def _do_pin_memory(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = args[0].clone()
        result.pinned = True
        return result

    def _do_is_pinned(self, func: Any, args: Any, kwargs: Any) -> Any:
        return getattr(args[0], "pinned", False)

    def _do_getitem(self, func: Any, args: Any, kwargs: Any) -> Any:
        if marked(args[0]):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(each, list) or (isinstance(each, Tensor) and not marked(each)) for each in index):
                self.note("an index from the host")
            if any(marked(each) and each.dtype == torch.bool for each in index):
                self.note("an index by a mask")
        result = func(*args, **kwargs)
        return mark(result) if marked(args[0]) else result

    def _do_setitem(self, func: Any, args: Any, kwargs: Any) -> Any:
        if marked(args[0]) and isinstance(args[2], Tensor) and not marked(args[2]):
            self.note("an element from the host")
        return func(*args, **kwargs)
