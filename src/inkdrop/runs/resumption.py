"""Resuming an interrupted run: finds its latest checkpoint, and refuses a changed configuration."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning

from inkdrop.checkpoints.files import RECORD, complete, latest_intact, places, read_record, read_verified
from inkdrop.checkpoints.models import check_models
from inkdrop.configuration.building import USER_TARGETS, TargetError, current, locate, parameters_of
from inkdrop.configuration.moved import renamed
from inkdrop.configuration.secrets import masked
from inkdrop.configuration.suggestions import options
from inkdrop.distributed.processes import is_first
from inkdrop.errors import CheckpointError, ConfigurationError
from inkdrop.files.showing import harmless
from inkdrop.files.writing import reason, refuse_links
from inkdrop.runs.free import FREE, within
from inkdrop.runs.ownership import is_run, refuse_foreign

_ABSENT = "(nothing)"
_PLAIN = (bool, int, float, str)
_NEEDED = (
    *("pytorch-lightning_version", "global_step", "world_size", "data_fingerprint", "facts", "metrics", "callbacks"),
    *("optimizer_states", "lr_schedulers", "loops"),
)


@dataclass
class Resumed:
    """A run to resume.

    - `checkpoint`: file of the checkpoint.
    - `step`: number of completed optimizer steps.
    - `run_id`: name of the run, or None for one of an earlier version.
    - `world_size`: number of processes up to now.
    - `data_fingerprint`: fingerprint of its data.
    - `classes`: names of its classes.
    - `facts`: versions, threads and commit up to now.
    - `latest`: latest values of the metrics.
    - `protocol`: protocol of the latest evaluation.
    - `logged`: size of each record in bytes.
    - `remarks`: texts on what has changed since.
    """

    checkpoint: Path
    step: int
    run_id: str | None
    world_size: int
    data_fingerprint: str
    classes: list[str]
    facts: dict[str, Any]
    latest: dict[str, float]  # values that were measured by then
    protocol: dict[str, Any]  # of the latest evaluation
    logged: dict[str, int]  # bytes of each record that were written by then
    models: dict[str, Any]  # what the checkpoint keeps of models within this one
    remarks: list[str]
    content: dict[str, Any]  # of the checkpoint, until training has taken it


def resumed(folder: Path, plain: Mapping[str, Any], secret: Any = frozenset()) -> Resumed | None:
    """Returns the run in a folder that a resolved configuration resumes, or None for a fresh run.

    `secret` are the paths of values that records do not show. Raises the errors of `refuse_foreign`, `resume_point` and
    `check_same`.
    """
    if is_first():
        refuse_foreign(folder, plain)
    config = masked(plain, secret)
    checkpoint = resume_point(folder, config["resume"])
    if checkpoint is None:
        if old := read_record(folder).get("config"):  # it ended before its first checkpoint
            check_same(masked(old, secret), config, config["resume_allow"])
        elif (folder / "config.yaml").exists() and is_first():
            print(f"warning: {folder / 'config.yaml'} cannot be read, and is rewritten", file=sys.stderr)
        return None
    content = read_verified(checkpoint)
    if "logged" not in content:
        raise CheckpointError(
            f"{checkpoint} was written by a version from which runs cannot resume: start a new run with "
            f"{options({'init_from': checkpoint})}"
        )
    if lacking := [name for name in _NEEDED if content.get(name) in (None, [])]:
        raise CheckpointError(f"{harmless(checkpoint)} is damaged: it lacks {lacking[0]}, and its run cannot resume")
    version = str(content["pytorch-lightning_version"])
    if _release(version) > _release(lightning.__version__):
        raise CheckpointError(
            f"{checkpoint} was written with Lightning {version}, newer than {lightning.__version__}: update lightning"
        )
    check_models(content.get("models", {}))
    remarks = [f"changed: {line}" for line in check_same(content["config"], config, config["resume_allow"])]
    return Resumed(
        checkpoint,
        content["global_step"],
        content["config"].get("run_id"),
        content["world_size"],
        content["data_fingerprint"],
        content.get("classes", []),
        content["facts"],
        content.get("latest", content["metrics"]),
        _mapping(content["callbacks"].get("Evaluate", {}).get("protocol")),
        content["logged"],
        content.get("models", {}),
        remarks,
        content,
    )


def _release(version: str) -> list[int]:
    """Returns the major and minor number, between which the format of a training state may change."""
    return [int(number) for number in re.findall(r"\d+", version)[:2]]


def _mapping(node: Any) -> dict[str, Any]:
    return node if isinstance(node, dict) else {}


def changed_facts(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns the differences between two records of versions, threads and commit; without them runs are identical."""
    old, new = ({**_mapping(record.get("versions")), **record} for record in (before, now))
    names = [name for name in new if name in old and name != "versions" and old[name] != new[name]]
    return [f"{name} is now {new[name]} instead of {old[name]}" for name in names]


def refuse_unusable(folder: Path) -> None:
    """Raises `ConfigurationError` if a folder cannot be created, or contains a symbolic link."""
    if files := [path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()]:
        raise ConfigurationError(f"output_dir={folder} cannot be created, because {files[0]} is a file: rename one")
    try:
        refuse_links(folder)
    except OSError as error:
        raise ConfigurationError(f"output_dir={folder} cannot be written to: {reason(error)}") from None


def refuse_results(folder: Path) -> None:
    """Raises `ConfigurationError` for a folder that contains a run or samples, which must not be replaced."""
    if holds_run(folder):
        raise ConfigurationError(f"output_dir={folder} contains other samples, or a run: choose a new folder")


def resume_point(folder: Path, resume: str) -> Path | None:
    """Returns the checkpoint from which the run in this folder resumes, or None for a fresh run.

    `resume` is auto, must, or never. Raises `ConfigurationError` for never in a folder with a run, and
    `CheckpointError` for must without a checkpoint or if no checkpoint is intact.
    """
    if resume == "never":
        if holds_run(folder) and is_first():  # the others see the files of the first process
            raise ConfigurationError(f"output_dir={folder} contains another run: choose a new folder, or resume=auto")
        return None
    if files := complete(places(folder, "checkpoints")):
        if (latest := latest_intact(files)) is not None:
            return latest
        where = files[-1].parent
        raise CheckpointError(f"no checkpoint in {where} is intact: start again in a new folder with resume=never")
    if resume == "must":
        raise CheckpointError(f"resume=must requires a checkpoint in {folder}: set resume=auto to start a run")
    if (folder / "result.json").exists() or ((folder / "metrics.jsonl").exists() and not is_run(folder)):
        raise ConfigurationError(f"output_dir={folder} contains another run, without checkpoints: choose a new folder")
    return None


def holds_run(folder: Path) -> bool:
    """Returns whether a run was started in this folder."""
    names = (RECORD, "config.yaml", "metrics.jsonl", "result.json", "checkpoints")
    return any((folder / name).exists() for name in names)


def check_same(old: Mapping[str, Any], new: Mapping[str, Any], allow: Sequence[str]) -> list[str]:
    """Returns the allowed differences between two resolved configurations, as lines of text.

    Raises `ConfigurationError` with all other differences: those of options that neither `allow` nor `FREE` covers.
    """
    changed = _changes(renamed(old), renamed(new))
    refused = {path: values for path, values in changed.items() if not within(path, [*FREE, *allow])}
    if refused:
        lines = "\n".join(
            f"  {harmless(path)}: {harmless(before)} -> {harmless(after)}" for path, (before, after) in refused.items()
        )
        raise ConfigurationError(
            f"this run was started with another configuration:\n{lines}\n"
            "restore the options, choose a new output_dir, or accept the change by "
            f"{options({'resume_allow': [*allow, *refused]})}"
        )
    return [f"{path}: {before} -> {after}" for path, (before, after) in changed.items() if within(path, allow)]


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns the values that differ, by path, except those that only repeat another one through a reference."""
    before, after = (dict(_leaves(config, folder=str(config.get("output_dir", "")))) for config in (old, new))
    changed = {
        path: (before.get(path, _ABSENT), after.get(path, _ABSENT))
        for path in dict.fromkeys([*before, *after])
        if repr(before.get(path, _ABSENT)) != repr(after.get(path, _ABSENT))  # here nan equals itself
    }

    def repeats(path: str) -> bool:
        tails = (path.split(".", n)[-1] for n in range(1, path.count(".") + 1))
        return any(repr(changed.get(tail)) == repr(changed[path]) for tail in tails)

    return {path: values for path, values in changed.items() if not repeats(path)}


def _leaves(node: Any, path: str = "", folder: str = "") -> Iterator[tuple[str, Any]]:
    """Yields values by path; the run folder is replaced by a common name in them, because it may have been moved."""
    if isinstance(node, Mapping) and node:
        for key, value in {**_defaults(node.get("_target_")), **node}.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key), folder)
    else:
        node = current(node) if path.endswith("_target_") else node
        inside = isinstance(node, str) and f"{node}/".startswith(f"{folder}/")
        yield path, node.replace(folder, "output_dir", 1) if inside else node


def _defaults(target: Any) -> dict[str, Any]:
    """Returns the plain defaults of a target's arguments, which a run of an earlier version without an option used.

    The result is empty for a target that cannot be located, such as one of the user's own package.
    """
    try:
        parameters = parameters_of(locate(target, USER_TARGETS)).values()
    except (TargetError, ValueError):
        return {}
    return {each.name: each.default for each in parameters if each.default is None or type(each.default) in _PLAIN}
