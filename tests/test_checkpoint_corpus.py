"""Bad checkpoints, K1 to K24: what is refused, how it is told, and what goes on all the same."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import (
    CODEC,
    FIRST,
    LAST,
    Change,
    Content,
    Damage,
    Marker,
    at,
    changed,
    flip,
    put,
    registered,
    saved,
    without,
)
from entry_scripts import Script, completed
from image_files import GREY, encoded
from omegaconf import OmegaConf
from runs import POINTS, interrupted, run
from safetensors.torch import save_file

from inkdrop import load
from inkdrop.callbacks import EMA
from inkdrop.checkpoints import CheckpointFolder, find_checkpoint, read_checkpoint
from inkdrop.checkpoints.content import FORMAT
from inkdrop.errors import CheckpointError
from inkdrop.runs.ownership import locked

STEPS = "trainer.max_steps=2"
NETWORK = "pipeline.denoiser.network."
WEIGHT = f"{NETWORK}input.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with a checkpoint of each."""
    folder = tmp_path_factory.mktemp("corpus") / "whole"
    run(folder, STEPS)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of it that can be damaged."""
    return shutil.copytree(whole, tmp_path / "run")


@pytest.fixture
def file(whole: Path, tmp_path: Path) -> Path:
    """Its last checkpoint alone, as one gets it from somebody else."""
    return Path(shutil.copy(whole / "checkpoints" / LAST, tmp_path / "file.ckpt"))


def assert_refused(script: Script, checkpoint: Path | str, message: str, *options: str) -> None:
    """sample.py ends with code 4 and says this, on one screen, without advice to switch protection off."""
    ended = script("sample.py", f"checkpoint={checkpoint}", "num_samples=2", "output_dir=samples", *options)
    assert ended.code == 4, ended.err
    assert f"error: {checkpoint}" in ended.err or f"error: checkpoint={checkpoint}" in ended.err
    assert message in ended.err
    assert len(ended.err.splitlines()) < 12
    for unwanted in ("Traceback", "weights_only", "Warning"):
        assert unwanted not in ended.err
    assert {file.name for file in Path.cwd().glob("samples/*")} <= {"lock"}


def cut(num_bytes: Callable[[int], int]) -> Damage:
    return lambda file: os.truncate(file, num_bytes(file.stat().st_size))


def flip_weight(file: Path) -> None:
    flip(file, file.read_bytes().index(read_checkpoint(file)["state_dict"][WEIGHT].numpy().tobytes()))


INCOMPLETE, DIGEST, UNKNOWN = (
    "is incomplete: ",
    "is damaged: its digest",
    "it is incomplete, damaged or not a file of torch.save",
)
# name: (what happens to a file, how it is told by the index, and without)
DAMAGED: dict[str, tuple[Damage, str, str]] = {
    "K1-empty": (cut(lambda size: 0), INCOMPLETE, UNKNOWN),
    "K1-half": (cut(lambda size: size // 2), INCOMPLETE, UNKNOWN),
    "K1-end": (cut(lambda size: size - 100), INCOMPLETE, UNKNOWN),
    "K2-header": (lambda file: flip(file, 0), DIGEST, "is damaged in "),
    "K2-html": (lambda file: file.write_text("<html>404</html>"), INCOMPLETE, UNKNOWN),
    "K2-png": (lambda file: file.write_bytes(encoded(GREY)), INCOMPLETE, UNKNOWN),
    "K3": (flip_weight, DIGEST, "is damaged in "),
}


@pytest.mark.parametrize(("damage", "told", "alone"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_and_the_one_before_it_is_taken(
    damage: Damage, told: str, alone: str, folder: Path, script: Script, capfd: pytest.CaptureFixture[str]
) -> None:
    file = folder / "checkpoints" / LAST
    damage(file)
    assert_refused(script, file, f"{file} {told}")
    assert find_checkpoint(folder).name == FIRST
    said = capfd.readouterr().err
    assert f"warning: {file} {told}" in said
    assert f"warning: {file.with_name(FIRST)} is used instead\n" in said
    with pytest.raises(CheckpointError, match=alone):
        read_checkpoint(shutil.copy(file, folder / "copy.ckpt"))


def compiled(file: Path) -> None:
    torch.jit.script(torch.nn.Linear(1, 1)).save(file)


def safetensors(file: Path) -> None:
    save_file(read_checkpoint(file)["state_dict"], file)


def no_number(average: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**average, WEIGHT: torch.full_like(average[WEIGHT], torch.nan)}


def wrapped(prefix: str) -> Change:
    """The names of weights as a network has them within another one."""

    def renamed(state: dict[str, Any]) -> dict[str, Any]:
        return {name.replace(NETWORK, NETWORK + prefix): value for name, value in state.items()}

    def change(content: Content) -> None:
        content["state_dict"] = renamed(content["state_dict"])
        content["ema"] = {decay: renamed(average) for decay, average in content["ema"].items()}
        content["trainable"] = list(renamed(dict.fromkeys(content["trainable"])))

    return change


def bomb(file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))


def declare(file: Path) -> None:
    """A weight of 300 numbers that is declared to have 300,000."""
    saved({"state_dict": {"w": torch.ones(300)}, "config": {}}, file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert any(b"M\x2c\x01" in data for data in parts.values())
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data.replace(b"M\x2c\x01", b"J\xe0\x93\x04\x00"))


def link(file: Path) -> None:
    file.unlink()
    file.symlink_to("removed.ckpt")


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def shards(file: Path) -> None:
    """As torch.distributed.checkpoint writes them."""
    directory(file)
    (file / "__0_0.distcp").write_bytes(pickle.dumps(Marker()))


def shards_with_metadata(file: Path) -> None:
    shards(file)
    (file / ".metadata").write_bytes(pickle.dumps(Marker()))


WEIGHTS_ALONE = "it contains only weights, without the configuration of their model"
LOADING = {"_target_": "lightning.pytorch.core.saving.pl_load", "path_or_url": "evil.pt", "weights_only": False}
AVERAGE = "ema/0.9"
# name: (what happens to a file, how it is told)
FOREIGN: dict[str, tuple[Damage, str]] = {
    "K4-archive": (lambda file: saved({"state_dict": Marker(), "config": {}}, file), "not an inkdrop checkpoint"),
    "K4-pickle": (lambda file: file.write_bytes(pickle.dumps(Marker())), UNKNOWN),
    "K4-old": (lambda file: torch.save(Marker(), file, _use_new_zipfile_serialization=False), UNKNOWN),
    "K7-instantiator": (changed(put("hyper_parameters", {"_instantiator": "evil.make"})), "in _instantiator"),
    "K7-class": (changed(put("datamodule_hyper_parameters", {"_class_path": "evil.Evil"})), "in _class_path"),
    "K8-system": (changed(put(CODEC, {"_target_": "os.mkdir", "path": "marker"})), "os.mkdir is not allowed"),
    "K8-module": (changed(put(CODEC, {"_target_": "evil.make"})), "evil.make is not allowed"),
    "K8-ours": (changed(put(CODEC, {"_target_": "inkdrop.runs.record.write_json"})), "write_json is not allowed"),
    "K8-sampler": (changed(put("config/pipeline/sampler/time_grid", LOADING)), "pl_load is not allowed"),
    "K8-grid": (changed(put("config/pipeline/sampler/time_grid/num_steps", LOADING)), "pl_load is not allowed"),
    "K8-reference": (changed(put(f"{CODEC}/shift", "${oc.env:HOME}")), "has a reference in pipeline"),
    "K9-weights": (changed(lambda content: content["state_dict"]), WEIGHTS_ALONE),
    "K9-list": (changed(lambda content: [content]), "it lacks the configuration of a model, and is a list"),
    "K9-torchscript": (compiled, "is a TorchScript file: it contains only a network"),
    "K9-safetensors": (safetensors, f"is a safetensors file: {WEIGHTS_ALONE}"),
    "K9-no-model": (changed(put("config", {"seed": 0})), "its configuration has no pipeline"),
    "K10-weight": (changed(at("state_dict", no_number)), f"not finite, in weights.{WEIGHT}"),
    "K10-average": (changed(at(AVERAGE, no_number)), f"not finite, in {AVERAGE.replace('/', '.')}.{WEIGHT}"),
    "K10-wrapped": (changed(at("state_dict", no_number), wrapped("_orig_mod.")), f"not finite, in weights.{WEIGHT}"),
    "K11-shape": (changed(put(f"{AVERAGE}/{WEIGHT}", torch.ones(5, 7))), "input.weight is [5, 7] instead of [16, 2]"),
    "K11-missing": (
        changed(*(at(part, without(WEIGHT)) for part in ("state_dict", AVERAGE)), put("trainable", [])),
        "input.weight is missing",
    ),
    "K11-extra": (changed(put("state_dict/pipeline.more", torch.ones(1))), "more is unknown"),
    "K11-all": (
        changed(*(put(part, {}) for part in ("state_dict", AVERAGE)), put("trainable", [])),
        "is missing\n  and 15 more",
    ),
    "K14-newer": (changed(put("format", FORMAT + 1)), f"version {FORMAT + 1} of the format, but the newest known is"),
    "K14-text": (changed(put("format", "99.0")), "version 99.0 of the format"),
    "K14-negative": (changed(put("format", -1)), "version -1 of the format"),
    "K16-part": (changed(at(AVERAGE, without(WEIGHT))), f"lacks {WEIGHT} in the average of decay 0.9"),
    "K20-link": (link, "does not exist"),
    "K20-pipe": (pipe, "is neither a file nor a folder"),
    "K20-folder": (directory, "is not a run folder with checkpoints: it has no checkpoints/step-*.ckpt"),
    "K23-shards": (shards, "is not a run folder"),
    "K23-metadata": (shards_with_metadata, "is not a run folder"),
    "K24-bomb": (bomb, "it unpacks to more than its size"),
    "K24-declared": (declare, "not an inkdrop checkpoint"),
    "K24-view": (
        changed(put(f"state_dict/{WEIGHT}", torch.ones(1).expand(10**13))),
        "it has tensors that are larger than the file",
    ),
}


@pytest.fixture
def evil(script: Script, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module and a pickle that leave a file if they are loaded, which they must not."""
    Path("evil.py").write_text("from pathlib import Path\nPath('marker').touch()\ndef make(): ...\n")
    Path("evil.pt").write_bytes(pickle.dumps(Marker()))
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    yield
    assert not Path("marker").exists()


@pytest.mark.many
@pytest.mark.usefixtures("evil")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize(("damage", "message"), FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_refused(damage: Damage, message: str, file: Path, script: Script) -> None:
    damage(file)
    assert_refused(script, file, message)


@pytest.mark.parametrize("scheme", ["https", "s3", "file"], ids="K5-{}".format)
def test_an_address_is_refused(scheme: str, script: Script) -> None:
    assert_refused(script, f"{scheme}://example.org/model.ckpt", "is a URL: download the file first")


@pytest.mark.usefixtures("evil")
def test_k8_the_evaluation_of_a_checkpoint_builds_inkdrops_parts_only(file: Path, script: Script) -> None:
    changed(put("config/evaluation/extractor", {"_target_": "evil.make"}))(file)
    assert_refused(script, file, "evil.make is not allowed", "evaluate=true")
    assert len(load(file).state_dict()) > 1  # it is not built unless it is asked for


def test_k8_references_in_a_checkpoint_are_not_followed(
    file: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBER_OF_POINTS", "100")
    changed(put("config/data/num_points", "${oc.decode:${oc.env:NUMBER_OF_POINTS}}"))(file)
    for options in (["evaluate=true"], ["evaluate=true", "extractor=identity", "extractor.dim=2"]):
        assert_refused(script, file, "its configuration has a reference in data", *options)


def test_k8_the_data_of_a_checkpoint_are_inkdrops(file: Path, script: Script) -> None:
    changed(put("config/data", {"_target_": "lightning.pytorch.core.saving.pl_load"}))(file)
    for options in (["evaluate=true"], ["evaluate=true", "extractor=identity", "extractor.dim=2"]):
        assert_refused(script, file, "lightning.pytorch.core.saving.pl_load is not allowed", *options)


UNSAVABLE: dict[str, Any] = {
    "K6-list": OmegaConf.create([1]),
    "K6-partial": functools.partial(print),
    "K6-path": Path("a"),
    "K6-timedelta": timedelta(1),
    "K6-generator": np.random.default_rng(0),
    "K6-state": np.random.RandomState(0).get_state(),
    "K6-number": np.float64(1.0),
    "K6-key": {Path("a"): 1},
}


@pytest.mark.parametrize("node", UNSAVABLE.values(), ids=UNSAVABLE)
def test_what_could_not_be_read_again_is_not_written(node: Any, whole: Path, tmp_path: Path) -> None:
    store = CheckpointFolder(tmp_path / "checkpoints")
    with pytest.raises(CheckpointError, match=r"no checkpoint was written: it contains a \w+ in hyper_parameters\.x"):
        store.save({**read_checkpoint(whole), "hyper_parameters": {"x": node}}, 1)
    assert list(store.path.iterdir()) == []


def test_k6_a_configuration_becomes_plain(whole: Path, tmp_path: Path) -> None:
    store = CheckpointFolder(tmp_path / "checkpoints")
    store.save({**read_checkpoint(whole), "hyper_parameters": OmegaConf.create({"x": {"y": 1}})}, 1)
    store.wait()
    options = read_checkpoint(tmp_path)["hyper_parameters"]
    assert options == {"x": {"y": 1}}
    assert type(options["x"]) is dict


def test_k6_training_ends_with_code_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(EMA, "state_dict", lambda self: {"folder": tmp_path})
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "run", STEPS)
    assert stopped.value.code == 4
    assert "contains a PosixPath in callbacks.EMA.folder" in capsys.readouterr().err


def test_k7_a_model_is_not_built_of_hyperparameters(whole: Path, file: Path) -> None:
    changed(put("hyper_parameters", {"pipeline": {"_target_": "os.getcwd"}, "shape": [7]}))(file)
    assert load(file).shape == load(whole).shape == (2,)


# name: (what happens to the content of the last checkpoint, options, exit code, how it is told)
RESUMED: dict[str, tuple[Change, list[str], int, str]] = {
    "K9-resume": (lambda content: content["state_dict"], [], 4, WEIGHTS_ALONE),
    "K10-resume": (at("state_dict", no_number), [], 4, f"not finite, in weights.{WEIGHT}"),
    "K10-optimizer": (
        at("optimizer_states", lambda states: [*states, {"momentum": torch.tensor(torch.inf)}]),
        [],
        4,
        "not finite, in optimizer",
    ),
    "K11-resume": (
        dict,
        ["network.width=32", "resume_allow=[network.width]"],
        4,
        "blocks.0.layers.3.bias is [16] instead of [32]",
    ),
    "K12-resume": (
        at("state_dict", lambda state: {**state, WEIGHT: state[WEIGHT].half()}),
        [],
        4,
        f"{WEIGHT} is torch.float16 instead of torch.float32",
    ),
    "K14-resume": (put("format", FORMAT + 1), [], 4, f"version {FORMAT + 1} of the format"),
    "K14-lightning": (put("pytorch-lightning_version", "99.0"), [], 4, "written with Lightning 99.0, newer than 2."),
    "K14-older": (
        without("logged"),
        [],
        4,
        "was written by a version from which runs cannot resume: start a new run with init_from=",
    ),
    "K14-state": (put("optimizer_states", [{}]), [], 4, "the run cannot resume from its state: "),
    "K14-optimizers": (put("optimizer_states", []), [], 4, "lacks optimizer_states, and its run cannot resume"),
    "K14-schedulers": (put("lr_schedulers", [{"last_epoch": "x"}]), [], 4, "the run cannot resume from its state: "),
    "K14-callback": (put("callbacks/EMA", {"x": 1}), [], 4, "the run cannot resume from its state: "),
    "K14-facts": (put("facts", 3), [], 4, "facts: input should be a valid dictionary"),
    **{
        f"K14-without-{name}": (without(name), [], 4, f"lacks {name}, and its run cannot resume")
        for name in ("world_size", "global_step", "data_fingerprint", "callbacks", "pytorch-lightning_version")
    },
    "K15": (
        dict,
        ["optimizer._target_=torch.optim.SGD", "~optimizer.betas"],
        2,
        "optimizer._target_: torch.optim.AdamW -> torch.optim.SGD",
    ),
    "K16-lost": (put("ema", {}), [], 4, "has no averages, although its run kept some"),
    "K16-asked": (
        at("config/callbacks", without("ema")),
        [],
        2,
        "callbacks.ema.decays: (nothing) -> [0.9, 0.99]",
    ),
    "K16-left-out": (dict, ["callbacks.ema=null"], 2, "callbacks.ema.decays: [0.9, 0.99] -> (nothing)"),
    "K17-fewer": (dict, ["trainer.max_steps=1"], 2, "trainer.max_steps: 2 -> 1"),
    "K19-batch": (dict, ["data.batch_size=4"], 2, "data.batch_size: 8 -> 4"),
    "K19-data": (dict, ["data.num_points=100", "resume_allow=[data.num_points]"], 3, "their fingerprints differ"),
    "K19-fingerprint": (put("data_fingerprint", "0"), [], 3, "their fingerprints differ"),
}


@pytest.mark.many
@pytest.mark.parametrize(("change", "options", "code", "message"), RESUMED.values(), ids=RESUMED)
def test_a_run_does_not_go_on(
    change: Change,
    options: list[str],
    code: int,
    message: str,
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = interrupted(whole, 1, tmp_path / "run")
    file = folder / "checkpoints" / FIRST
    changed(change)(file)
    registered(file)
    with pytest.raises(SystemExit) as stopped:
        run(folder, STEPS, *options)
    assert stopped.value.code == code
    said = capsys.readouterr().err
    assert message in said
    assert str(file) in said or code != 4
    assert not (folder / "checkpoints" / LAST).exists()


STARTED: dict[str, tuple[Damage, str]] = {
    "K1-init": (cut(lambda size: size // 2), UNKNOWN),
    "K10-init": (changed(at("state_dict", no_number)), "not finite"),
    "K11-init": (changed(put(f"{AVERAGE}/{WEIGHT}", torch.ones(5, 7))), "input.weight is [5, 7] instead of [16, 2]"),
}


@pytest.mark.parametrize(("damage", "message"), STARTED.values(), ids=STARTED)
def test_a_run_does_not_begin_with_a_bad_file(
    damage: Damage, message: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(file)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "run", STEPS, f"init_from={file}")
    assert stopped.value.code == 4
    assert message in capsys.readouterr().err


def test_k12_weights_of_another_type_are_cast_with_a_warning(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = load(file).state_dict()["denoiser.network.input.weight"]
    assert capsys.readouterr().err == ""
    changed(at(AVERAGE, lambda average: {name: value.half() for name, value in average.items()}))(file)
    found = load(file).state_dict()["denoiser.network.input.weight"]
    warning = f"{file}: weights in torch.float16 are cast to torch.float32\n"
    assert capsys.readouterr().err == f"warning: {warning}"
    assert torch.equal(found, own.half().float())
    run(tmp_path / "run", STEPS, f"init_from={file}")
    assert f"warning: init_from={warning}" in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."], ids="K13-{}".format)
def test_names_of_wrapped_networks_are_understood(prefix: str, file: Path) -> None:
    before = {weights: load(file, weights).state_dict() for weights in ("raw", "0.9", "0.99")}
    changed(wrapped(prefix))(file)
    assert f"{NETWORK}{prefix}input.weight" in torch.load(file, weights_only=True)["state_dict"]
    for weights, state in before.items():
        found = load(file, weights).state_dict()
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)


def test_k14_older_files_are_understood(file: Path) -> None:
    before = load(file).state_dict()
    changed(without("format", "world_size", "metrics", "trainable"))(file)
    content = read_checkpoint(file)
    assert (content["format"], content["world_size"], content["metrics"]) == (FORMAT, 1, {})
    assert all(torch.equal(value, before[name]) for name, value in load(file).state_dict().items())


def test_k14_older_evaluations_are_understood(tmp_path: Path) -> None:
    evaluation = {"_target_": "inkdrop.metrics.Evaluation", "extractor": {"metric": "fd_mnist", "dim": 4}, "seed": 1}
    torch.save({"state_dict": {}, "format": 1, "config": {"evaluation": evaluation}}, tmp_path / "old.ckpt")
    found = read_checkpoint(tmp_path / "old.ckpt")["config"]["evaluation"]
    assert found["extractor"] == {"name": "mnist", "dim": 4}
    assert found["metrics"]["frechet"]["_target_"] == "inkdrop.metrics.FrechetDistance"
    assert found["seed"] == 1


def test_k16_weights_are_those_that_are_asked_for(file: Path, script: Script) -> None:
    raw = load(file, "raw").state_dict()
    changed(without("ema"))(file)
    ended = script("sample.py", f"checkpoint={file}", "num_samples=2", "output_dir=samples")
    assert ended.code == 2  # of the option
    assert "weights=ema is not in the checkpoint; available: raw" in ended.err
    assert all(torch.equal(value, raw[name]) for name, value in load(file, "raw").state_dict().items())


@pytest.mark.parametrize(
    "options",
    [[STEPS], ["trainer.max_steps=1", "scheduler.num_steps=2", "resume_allow=[trainer.max_steps]"]],
    ids=["K17-all", "K17-more"],
)
def test_a_run_that_has_all_its_steps_says_so(
    options: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "checkpoints" / LAST).read_bytes()
    run(folder, *options)
    assert (
        "nothing to do: the run has all its 2 steps; raise trainer.max_steps to train further\n"
        in capsys.readouterr().out
    )
    assert (folder / "checkpoints" / LAST).read_bytes() == before


def test_k18_a_run_of_two_devices_goes_on_with_one(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = interrupted(whole, 1, tmp_path / "run")
    file = folder / "checkpoints" / FIRST
    changed(put("world_size", 2))(file)
    registered(file)
    assert run(folder, STEPS)["global_step"] == 2
    assert "warning: the run now uses 1 devices instead of 2: it trains on the same samples" in capsys.readouterr().out


@pytest.mark.slow
def test_k18_a_run_of_one_device_goes_on_with_two(whole: Path, tmp_path: Path) -> None:
    folder = interrupted(whole, 1, tmp_path / "run")
    devices = ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp"]
    done = completed("train.py", *POINTS, STEPS, *devices, f"output_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert "warning: the run now uses 2 devices instead of 1: it trains on the same samples" in done.stdout
    found = read_checkpoint(folder)
    assert (found["global_step"], found["world_size"]) == (2, 2)


IN_FOLDER: dict[str, tuple[Damage, str]] = {
    "K20-removed": (Path.unlink, "No such file or directory"),
    "K20-link-inside": (link, "No such file or directory"),
    "K20-pipe-inside": (pipe, "is not a regular file"),
    "K20-folder-inside": (directory, "is not a regular file"),
    "K23-inside": (shards_with_metadata, "is not a regular file"),
    "K24-longer": (lambda file: file.write_bytes(file.read_bytes() + b"x"), "is damaged: "),
    "K24-index": (lambda file: (bomb(file), registered(file)), "it unpacks to more than its size"),
}


@pytest.mark.timeout(300)  # a pipe would be read for ever
@pytest.mark.usefixtures("evil")
@pytest.mark.parametrize(("damage", "message"), IN_FOLDER.values(), ids=IN_FOLDER)
def test_what_cannot_be_read_in_a_run_is_passed_over(
    damage: Damage, message: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = folder / "checkpoints" / LAST
    damage(file)
    assert find_checkpoint(folder).name == FIRST
    said = capfd.readouterr().err
    assert f"warning: {file} " in said
    assert message in said
    assert "step-00000001.ckpt is used instead" in said


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """The rights of nobody, where root would have all."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize("path", ["file.ckpt", "closed/file.ckpt"], ids=["K20-mode", "K20-closed"])
def test_what_must_not_be_read_is_told(path: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)  # where nobody can come by the whole path
    file.parent.chmod(0o755)
    Path("closed").mkdir()
    shutil.copy(file, "closed")
    file.chmod(0)
    Path("closed").chmod(0)
    with unprivileged(), pytest.raises(CheckpointError, match=f"{path} cannot be read: Permission denied"):
        read_checkpoint(path)
    Path("closed").chmod(0o700)


@pytest.fixture
def readonly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The run is `run` in the present folder, and nobody can write to it."""
    monkeypatch.chdir(folder.parent)
    folder.parent.chmod(0o755)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with unprivileged():
        yield
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)


@pytest.mark.usefixtures("readonly")
def test_k20_a_folder_that_must_not_be_written_can_be_read() -> None:
    assert read_checkpoint("run")["global_step"] == 2


@pytest.mark.usefixtures("readonly")
def test_k20_no_run_begins_in_a_folder_that_must_not_be_written() -> None:
    with pytest.raises(CheckpointError, match="run cannot be written to: Permission denied"), locked(Path("run")):
        pass


@pytest.mark.usefixtures("readonly")
@pytest.mark.parametrize("place", ["run/checkpoints", "run/new"], ids=["K20-write-old", "K20-write-new"])
def test_no_checkpoint_is_written_to_a_folder_that_must_not_be_written(place: str) -> None:
    store, content = CheckpointFolder(place), read_checkpoint("run")
    store.owner = content["config"]["run_id"]

    def save() -> None:
        store.save(content, 3)
        store.wait()

    with pytest.raises(CheckpointError, match=f"could not be written to {place}: .*Permission denied"):
        save()


def test_k21_two_runs_do_not_write_to_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(tmp_path / "run"):
        with pytest.raises(SystemExit) as stopped:
            run(tmp_path / "run", STEPS)
        assert stopped.value.code == 4
    assert "another process writes to" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_k22_odd_files_do_not_matter(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two are what Lightning looks for by itself on SLURM, the third is not in the index."""
    for name in ("hpc_ckpt_.ckpt", "hpc_ckpt_7.ckpt", "step-00000009.ckpt", "notes.txt"):
        (folder / "checkpoints" / name).write_bytes(b"x")
    assert find_checkpoint(folder).name == LAST
    for name in ("NTASKS", "NTASKS_PER_NODE", "JOB_NAME", "LOCALID", "PROCID", "NODEID"):
        monkeypatch.setenv(f"SLURM_{name}", "1" if "TASKS" in name else "0")
    new = tmp_path / "new"
    new.mkdir()
    for name in ("hpc_ckpt_.ckpt", "hpc_ckpt_7.ckpt"):
        (new / name).write_bytes(b"x")
    assert run(new, STEPS)["global_step"] == 2
