"""Models within a model: what a checkpoint keeps of them, so that it is enough on its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from inkdrop.checkpoints.building import MAX_MODELS
from inkdrop.checkpoints.files import locate_checkpoint
from inkdrop.checkpoints.snapshots import find_snapshots
from inkdrop.configuration.building import current
from inkdrop.configuration.guides import LOADED
from inkdrop.errors import CheckpointError
from inkdrop.files.fields import wrong_field
from inkdrop.files.plain import read_bytes
from inkdrop.files.showing import harmless
from inkdrop.models import MAX_FOREIGN_BYTES, Reference

EMBEDDED = "inkdrop.pipeline.embedded"
GUIDES = "pipeline.guidance"  # the place of what guides samples, which a model within another does not have
FOREIGN, FILES = "inkdrop.pipeline.foreign", "inkdrop.models.ForeignFiles"
# Files of a foreign model that are kept if its folder has them; its weights are kept as those of a module.
_NAMES = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "spiece.model", "tokenizer.model"),
)
_ENCODER = "text_encoder"  # the folder of diffusers; a second one is text_encoder_2, with tokenizer_2
_KEPT: dict[str, Any] = {
    "config": dict[str, Any],
    "classes": list[str],
    "source": dict[str, Any],
    "sha256": str,
    "saved": bool,
    "models": dict[str, dict[str, Any]],
    "weights": dict[str, Tensor],
}
_NEEDED = [name for name in _KEPT if name != "weights"]
_KEPT_FILES: dict[str, Any] = {"files": dict[str, Tensor], "source": dict[str, Any], "sha256": str}
_SOURCE = ("checkpoint", "weights", "length", "step")


class Loaded(NamedTuple):
    """A model that was read while another was built, once or more, and what a checkpoint keeps of it."""

    models: list[Any]
    kept: dict[str, Any]


_loads: ContextVar[dict[str, Loaded] | None] = ContextVar("models that are read", default=None)


@contextmanager
def loads_noted() -> Iterator[dict[str, Loaded]]:
    """Collects the models that are read within the block, by their sources."""
    found: dict[str, Loaded] = {}
    token = _loads.set(found)
    try:
        yield found
    finally:
        _loads.reset(token)


def note(model: Any, source: Mapping[str, Any], content: Mapping[str, Any], digest: Callable[[], str]) -> None:
    """Says that a model was read, of a checkpoint with this content and digest."""
    if (noted := _loads.get()) is not None:
        kept = {"config": content["config"]["pipeline"], "classes": list(content.get("classes", []))}
        within = {name: each for name, each in content.get("models", {}).items() if _is_inner(name)}
        kept |= {"source": dict(source), "sha256": digest(), "models": within}
        noted.setdefault(_key(source), Loaded([], kept)).models.append(model)


def _is_inner(place: str) -> bool:
    """Whether a model within another needs what is at this place of the configuration of its task."""
    return place.startswith("pipeline") and not place.startswith(f"{GUIDES}.")


def note_files(path: str, files: Mapping[str, Tensor]) -> None:
    """Says that the files of a foreign model were read from a folder."""
    if (noted := _loads.get()) is not None:
        source = {"path": path}
        kept = {"files": dict(files), "source": source, "sha256": digest_of_files(files)}
        noted[_key(source)] = Loaded([], kept)


def foreign_files(path: str | Path) -> dict[str, Tensor]:
    """Returns the content (N), uint8, of the files of a foreign model by name, without its weights.

    The tokenizer of a `text_encoder` is in the folder `tokenizer` next to it, as diffusers has it, if not in it.

    Raises `CheckpointError` if there is no `config.json`, or for files that are too large.
    """
    folder = Path(path)
    places = {name: folder / name for name in _NAMES if (folder / name).is_file() or name == "config.json"}
    if "tokenizer.json" not in places and folder.name.startswith(_ENCODER):
        beside = folder.with_name(folder.name.replace(_ENCODER, "tokenizer", 1))
        places |= {name: beside / name for name in _NAMES if name != "config.json" and (beside / name).is_file()}
    contents = {name: read_bytes(place, MAX_FOREIGN_BYTES, CheckpointError) for name, place in places.items()}
    return {name: torch.frombuffer(bytearray(content), dtype=torch.uint8) for name, content in contents.items()}


def digest_of_files(files: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names and the SHA-256 of the contents of files."""
    each = (f"{name} {hashlib.sha256(files[name].numpy().tobytes()).hexdigest()}" for name in sorted(files))
    return hashlib.sha256("\n".join(each).encode()).hexdigest()


def inner_models(node: Any, noted: Mapping[str, Loaded], modules: Collection[nn.Module]) -> dict[str, dict[str, Any]]:
    """What a checkpoint keeps of the models in a configuration, by their place in it.

    Those among the `modules` of the task have their weights in its state. Others, such as the models of guidance, have
    their weights here, but for those that a `Reference` holds.
    """
    found = {place: noted[_key(each)] for place, each in _places(node) if _key(each) in noted}
    saved, held = set(map(id, modules)), {id(each.model) for each in modules if isinstance(each, Reference)}
    kept = {}
    for place, (models, each) in found.items():
        there = set(map(id, models))
        apart = not (there <= saved or there <= held)
        weights = {"weights": dict(models[0].state_dict())} if apart and models else {}
        kept[place] = {**each, "saved": there <= saved, **weights} if models else each
    return kept


def embedded(node: Any, models: Mapping[str, Any], path: str | Path, place: str = "", depth: int = 0) -> Any:
    """A configuration in which the models whose weights a checkpoint holds are described instead of read from files.

    `place` is that of the node in the configuration of the task. Raises `CheckpointError` for models that are nested
    too deep.
    """
    if depth > MAX_MODELS:
        raise CheckpointError(f"{harmless(path)} has more than {MAX_MODELS} models within each other")
    if isinstance(node, list):
        return [embedded(each, models, path, f"{place}[{i}]", depth) for i, each in enumerate(node)]
    if not isinstance(node, dict):
        return node
    kept = models.get(place)
    if kept is not None and "files" in kept:
        return _embedded_files(node, kept, path, place)
    if kept is not None and (wrong := wrong_field(kept, _KEPT, _NEEDED)) is not None:
        raise CheckpointError(f"{harmless(path)} is not an inkdrop checkpoint: of its model {harmless(place)}, {wrong}")
    weights = {} if kept is None or "weights" not in kept else {"weights": kept["weights"]}
    if kept is None or not (kept["saved"] or weights) or current(node.get("_target_")) != LOADED:
        below = f"{place}." if place else ""
        return {name: embedded(each, models, path, f"{below}{name}", depth) for name, each in node.items()}
    inner = {name: each for name, each in kept["config"].items() if name != "guidance"}
    model = embedded(inner, kept["models"], path, "pipeline", depth + 1)
    return {"_target_": EMBEDDED, "model": model, "classes": kept["classes"], **weights}


def _embedded_files(node: Mapping[str, Any], kept: Mapping[str, Any], path: str | Path, place: str) -> dict[str, Any]:
    """The files of a foreign model within a checkpoint."""
    wrong = wrong_field(kept, _KEPT_FILES, [*_KEPT_FILES])
    if wrong is None and (node.get("_target_") != FOREIGN or digest_of_files(kept["files"]) != kept["sha256"]):
        wrong = "its files are not those of its SHA-256"
    if wrong is not None:
        raise CheckpointError(f"{harmless(path)} is not an inkdrop checkpoint: of its model {harmless(place)}, {wrong}")
    return {"_target_": FILES, "files": kept["files"]}


def check_models(models: Mapping[str, Any]) -> None:
    """Raises `CheckpointError` if the file of a model within a run is another one than when the run was started.

    A file that is gone is needed only where the checkpoint does not hold the weights, and is asked for there.
    """
    for place, kept in models.items():
        source = kept.get("source", {})
        if "files" in kept:
            _check_files(place, source.get("path"), kept.get("sha256"))
            continue
        if not isinstance(source.get("checkpoint"), str) or not isinstance(kept.get("sha256"), str):
            raise CheckpointError(f"the checkpoint does not say which file {harmless(place)} is: use another file")
        if Path(source["checkpoint"]).exists() and _digest(**source) != kept["sha256"]:
            raise CheckpointError(
                f"{place}.checkpoint={harmless(source['checkpoint'])} is not the file that the run was started with, "
                f"whose SHA-256 is {kept['sha256']}: put that back, move this one away, or start a new run"
            )


def _check_files(place: str, path: Any, digest: Any) -> None:
    if isinstance(path, str) and Path(path).exists() and digest_of_files(foreign_files(path)) != digest:
        raise CheckpointError(
            f"{harmless(place)}.path={harmless(path)} is not the model that the run was started with, whose SHA-256 "
            f"is {harmless(digest)}: put that back, move this folder away, or start a new run"
        )


def digest_of_snapshots(path: str | Path, step: int | None) -> str:
    """SHA-256 of the digests of all snapshots of which an average that ends at this step is made."""
    return hashlib.sha256(" ".join(each["sha256"] for each in find_snapshots(path, step)).encode()).hexdigest()


def _digest(checkpoint: str, length: float | None = None, step: int | None = None, **_: Any) -> str:
    return locate_checkpoint(checkpoint).digest if length is None else digest_of_snapshots(checkpoint, step)


def _key(source: Mapping[str, Any]) -> str:
    if "path" in source:
        return f"foreign {source['path']}"
    return repr([source.get(name) or (name == "weights" and "ema") or None for name in _SOURCE])


def _places(node: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The nodes that read a model from its file, with their places."""
    if isinstance(node, list):
        for i, each in enumerate(node):
            yield from _places(each, f"{place}[{i}]")
    elif isinstance(node, dict):
        if node.get("_target_") == EMBEDDED:
            return
        if current(node.get("_target_")) in (LOADED, FOREIGN):
            yield place, node
        for name, each in node.items():
            yield from _places(each, f"{place}.{name}" if place else str(name))
