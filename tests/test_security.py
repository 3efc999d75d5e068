"""Files of strangers: what they would execute, fetch or overwrite, and that nothing of it happens."""

from __future__ import annotations

import ast
import contextlib
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import CODEC, LAST, Marker, changed, put, registered
from entry_scripts import Script
from runs import IN_PROCESS, POINTS, run

import inkdrop
from inkdrop.__main__ import main
from inkdrop.checkpoints import checked_data, checked_part, read_checkpoint
from inkdrop.configuration import build, check
from inkdrop.configuration.building import KINDS, checkpoint_parts
from inkdrop.configuration.compose import composed
from inkdrop.errors import CheckpointError, ConfigurationError, DataError
from inkdrop.files.locations import outside
from inkdrop.metrics import CLIP, Inception

PACKAGE = Path(inkdrop.__file__).parent
SCHEDULE = "config/pipeline/denoiser/schedule"
EXTRACTOR = "config/evaluation/extractor"
PIPE = {
    "_target_": "inkdrop.data.shards.ShardColumn",
    "store": {
        "_target_": "inkdrop.data.shards.ShardStore",
        "folder": {"_target_": "inkdrop.files.locations.cache_dir"},
        "cache_size": 10,
        "x": ["npy"],
        "label": None,
        "captions": None,
    },
    "shards": [
        {
            "_target_": "inkdrop.data.shards.Shard",
            "url": "pipe:touch marker",
            "offsets": {"_target_": "numpy.zeros", "shape": 1, "dtype": "int64"},
            "sizes": {"_target_": "numpy.ones", "shape": 1, "dtype": "int64"},
            "labels": {"_target_": "numpy.zeros", "shape": 1, "dtype": "int64"},
            "texts": [],
            "broken": [],
        }
    ],
    "shape": [1],
    "decoder": None,
}
PICKLE = {"_target_": "inkdrop.metrics.Inception", "weights": "evil.pt"}
FOLDER = {"_target_": "inkdrop.metrics.DINOv2", "path": "evil_network"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("security") / "whole"
    run(folder, "trainer.max_steps=2")
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, as one gets it from somebody else."""
    return shutil.copytree(whole, tmp_path / "received")


@pytest.fixture
def file(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(folder / "checkpoints" / LAST, tmp_path / "file.ckpt"))


@pytest.fixture
def payloads(script: Script, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What leaves a file named marker if it is executed, and a network that leaves one if it is used."""
    import torch.hub

    def reached(*args: Any, **kwargs: Any) -> None:
        Path("marker").touch()

    Path("evil.pt").write_bytes(pickle.dumps(Marker()))
    Path("evil_network").mkdir()
    Path("evil_network/config.json").write_text('{"model_type": "dinov2", "hidden_size": 8, "num_attention_heads": 1}')
    torch.save(Marker(), "evil_network/pytorch_model.bin")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setenv("INKDROP_DATA_DIR", "no_data")
    monkeypatch.setattr(torch.hub, "download_url_to_file", reached)
    monkeypatch.setattr("socket.create_connection", reached)
    yield
    assert not Path("marker").exists()


# name: (what a checkpoint says, how it is told)
MODELS: dict[str, tuple[str, Any, str]] = {
    "command as codec": (CODEC, PIPE, "inkdrop.data.shards.ShardColumn is not allowed"),
    "command as schedule": (SCHEDULE, PIPE, "inkdrop.data.shards.ShardColumn is not allowed"),
    "pickle as codec": (CODEC, PICKLE, "codec=Inception: input should be an instance of Codec"),
    "network as codec": (CODEC, {"_target_": "inkdrop.networks.layers.Attention"}, "codec"),
    "reader of arrays": (CODEC, {"_target_": "inkdrop.data.arrays.open_arrays", "path": "evil.pt"}, "is not allowed"),
    "maker of folders": (CODEC, {"_target_": "inkdrop.files.writing.make_folder", "path": "marker"}, "is not allowed"),
    "loader of weights": (CODEC, {"_target_": "inkdrop.pipeline.restored", "checkpoint": {}}, "is not allowed"),
    "base of a kind": (CODEC, {"_target_": "inkdrop.codecs.Codec"}, "inkdrop.codecs.Codec is not allowed"),
    "import of a kind": (SCHEDULE, {"_target_": "inkdrop.schedules.tables.torch.load"}, "cannot be imported"),
    "import of a module": (CODEC, {"_target_": "inkdrop.data.shards.tarfile"}, "is not allowed"),
    "below a list": ("config/pipeline/guidance", {"x": [{"_target_": "inkdrop.codecs.Pixels"}]}, "guidance"),
    "within a guide": (
        "config/pipeline/guidance",
        {"x": {"_target_": "inkdrop.guidance.ClassifierFree", "scale": PICKLE}},
        "scale",
    ),
}


@pytest.mark.many
@pytest.mark.usefixtures("payloads")
@pytest.mark.parametrize(("place", "node", "message"), MODELS.values(), ids=MODELS)
def test_a_model_names_parts_of_models_only(place: str, node: Any, message: str, file: Path, script: Script) -> None:
    changed(put(place, node))(file)
    with pytest.raises(CheckpointError, match=message):
        inkdrop.load(file)
    for options in ([], ["evaluate=true"]):
        ended = script("sample.py", f"checkpoint={file}", "num_samples=2", "output_dir=samples", *options)
        assert ended.code == 4, ended.err
        assert message in ended.err
    assert not Path("samples").exists()


DOORS: dict[str, Callable[[Path], list[str]]] = {
    "train.py in a received folder": lambda run: ["train.py", *POINTS, "trainer.max_steps=3", f"output_dir={run}"],
    "a warm start": lambda run: ["train.py", *POINTS, "trainer.max_steps=0", f"init_from={run}", "output_dir=new"],
    "a guide": lambda run: [
        *("sample.py", f"checkpoint={run}", "guidance=autoguidance", f"guidance.checkpoint={run}", "output_dir=new"),
        "num_samples=2",
    ],
    "a reconstruction": lambda run: ["sample.py", f"checkpoint={run}", "origin=reconstruction", "output_dir=new"],
    "calibrate": lambda run: ["calibrate", f"checkpoint={run}", "time_grid.num_steps=2"],
    "report": lambda run: ["report", str(run)],
}


@pytest.mark.usefixtures("payloads")
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_nothing_of_a_received_run_is_executed_by_any_command(
    door: Callable[[Path], list[str]], folder: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (folder / "checkpoints").glob("*.ckpt"):
        changed(put(CODEC, PIPE), put(EXTRACTOR, PICKLE), put("config/data", PIPE), put("config/run_id", "x"))(file)
        registered(file)
    name, *options = door(folder)
    if name.endswith(".py"):
        ended = script(name, *options)
        assert ended.code in (0, 2, 4), ended.err
        assert "Traceback" not in ended.err
    else:
        monkeypatch.setattr("sys.argv", ["inkdrop", name, *options])
        with contextlib.suppress(SystemExit):
            main()


# name: (what a checkpoint says, exit code, how it is told)
EVALUATIONS: dict[str, tuple[str, Any, int, str]] = {
    "pickle": (EXTRACTOR, PICKLE, 2, "evil.pt holds no weights"),
    "folder": (EXTRACTOR, FOLDER, 2, "the weights of extractor dinov2 cannot be read from evil_network"),
    "fetched": (
        "config/data",
        {"_target_": "inkdrop.data.MNIST", "shape": [1, 28, 28], "num_classes": 10, "batch_size": 2, "download": True},
        3,
        "is missing",
    ),
    "folders elsewhere": (
        "config/data",
        {"_target_": "inkdrop.data.MNIST", "shape": [1, 28, 28], "num_classes": 10, "batch_size": 2, "root": "made"},
        3,
        "made/MNIST/raw/train-images-idx3-ubyte is missing",
    ),
    "files elsewhere": (
        "config/data",
        {
            "_target_": "inkdrop.data.ImageFolder",
            "path": "/etc",
            "shape": [3, 8, 8],
            "num_classes": 0,
            "batch_size": 2,
        },
        4,
        "its data are at /etc, outside the data folder",
    ),
    "command": (
        "config/data",
        {
            "_target_": "inkdrop.data.WebDataset",
            "train": "pipe:touch marker",
            "validation": "pipe:touch marker",
            "x": ["npy"],
            "label": None,
            "shape": [2],
            "num_classes": 0,
            "batch_size": 2,
        },
        4,
        "its data are at pipe:touch marker",
    ),
    "mixture": (
        "config/data",
        {
            "_target_": "inkdrop.data.Mixture",
            "sources": {
                "a": {
                    "_target_": "inkdrop.data.Arrays",
                    "path": "/proc",
                    "fields": {"x": "x"},
                    "shape": [2],
                    "num_classes": 0,
                    "batch_size": 2,
                }
            },
            "shape": [2],
            "num_classes": 0,
            "batch_size": 2,
            "class_balanced": False,
        },
        4,
        "its data are at /proc",
    ),
}


@pytest.mark.usefixtures("payloads")
@pytest.mark.parametrize(("place", "node", "code", "message"), EVALUATIONS.values(), ids=EVALUATIONS)
def test_evaluating_with_a_checkpoint_reads_what_is_the_users_only(
    place: str, node: Any, code: int, message: str, file: Path, script: Script
) -> None:
    changed(put(place, node))(file)
    options = ["evaluate=true", "num_samples=4", "output_dir=samples"]
    ended = script("sample.py", f"checkpoint={file}", *options)
    assert (ended.code, message in ended.err) == (code, True), ended.err
    assert not {path.name for path in Path().iterdir()} & {"made", "data", "marker"}


@pytest.mark.slow
def test_the_data_of_ones_own_checkpoint_are_named(file: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path("own")
    own.mkdir()
    np.save(own / "x.npy", np.random.default_rng(0).normal(size=(40, 2)).astype("float32"))
    node = {
        "_target_": "inkdrop.data.Arrays",
        "path": "own/x.npy",
        "fields": {"x": "x"},
        "shape": [2],
        "num_classes": 0,
        "batch_size": 2,
    }
    changed(put("config/data", node))(file)
    options = [f"checkpoint={file}", "evaluate=true", "num_samples=4", "time_grid.num_steps=2"]
    refused = script("sample.py", *options, "output_dir=samples")
    assert refused.code == 4
    assert "add 'data_folders=[own/x.npy]'" in refused.err
    for number, chosen in enumerate((["data_folders=[own/x.npy]"], ["data_folders=[own]"])):
        assert script("sample.py", *options, *chosen, f"output_dir=samples{number}").code == 0
    monkeypatch.setenv("INKDROP_DATA_DIR", str(own.resolve()))
    assert script("sample.py", *options, "output_dir=samples3").code == 0


LOCATIONS: dict[str, tuple[str, list[str], bool]] = {
    "in the data folder": ("images", [], True),
    "by its whole path": ("{data}/images/a.png", [], True),
    "climbing": ("images/../../other", [], False),
    "elsewhere": ("{here}/other", [], False),
    "here": ("other", [], False),
    "a link out of a named folder": ("named/link/passwd", ["named"], False),
    "named": ("named/x", ["named"], True),
    "named alike": ("named_too", ["named"], False),
    "a pattern": ("{data}/shard-{{000..009}}.tar", [], True),
    "a pattern that climbs": ("{data}/{{a,../../other}}/x.tar", [], False),
    "a pattern from the root": ("{{/etc,/usr}}/x", [], False),
    "a second pattern": ("{data}/a.tar::/etc/passwd", [], False),
    "an address": ("https://example.org/a.tar", [], False),
    "a named address": ("https://example.org/sets/a.tar", ["https://example.org/sets"], True),
    "another host": ("https://example.org.evil/a.tar", ["https://example.org"], False),
    "a command": ("pipe:cat /etc/passwd", ["pipe:"], False),
    "a file by address": ("file:/etc/passwd", [], False),
}


@pytest.mark.parametrize(("location", "folders", "inside"), LOCATIONS.values(), ids=LOCATIONS)
def test_which_locations_are_the_users(
    location: str, folders: list[str], inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INKDROP_DATA_DIR", str(tmp_path / "sets"))
    for name in ("sets/images", "other", "named/x", "named_too"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "named" / "link").symlink_to("/etc")
    location = location.format(data=tmp_path / "sets", here=tmp_path)
    assert (outside(location, folders) is None) == inside


def test_every_text_that_data_are_found_by_is_a_location() -> None:
    """A new argument of a data set that is a text is a `Location`, or stands here."""
    from inkdrop.configuration.schema import _annotations
    from inkdrop.data import DataModule
    from inkdrop.files.locations import is_location

    names = {"label", "captions", "sha256", "validation_sha256", "caption", "class_caption", "time", "frequency"}
    texts = {
        (name, key, is_location(annotation))
        for name, part in checkpoint_parts().items()
        if isinstance(part, type) and issubclass(part, DataModule)
        for key, annotation in _annotations(part).items()
        if (key not in names and annotation in (str, str | None)) or is_location(annotation)
    }
    assert {marked for *_, marked in texts} == {True}, texts
    assert {key for _, key, _ in texts} == {"path", "validation", "train", "root", "subject", "base"}


# name: what a user's own configuration names, of which nothing may be executed
IMPORTED = [
    "lightning.pytorch.trainer.connectors.signal_connector.call",
    "lightning.pytorch.core.saving.pl_load",
    "torch.optim.adamw.torch.load",
    "torch.optim.lr_scheduler.warnings.warn",
    "inkdrop.distributed.slurm.subprocess.run",
    "inkdrop.files.writing.os.remove",
    "inkdropping.anything",
]


@pytest.mark.parametrize("target", IMPORTED)
def test_what_a_module_has_imported_is_not_its_own(target: str) -> None:
    for action in (check, build):
        with pytest.raises(ConfigurationError, match=rf"_target_={target} (is not allowed|cannot be imported)"):
            action({"_target_": target})


EXPERIMENT = """# @package _global_
allow_targets: [os.]
optimizer: {_target_: os.mkdir, _partial_: false, path: marker, lr: 1}
"""


@pytest.mark.slow
def test_targets_are_allowed_by_the_user_alone(script: Script, tmp_path: Path) -> None:
    config = tmp_path / "theirs"
    (config / "experiment").mkdir(parents=True)
    (config / "experiment" / "fine.yaml").write_text(EXPERIMENT)
    options = ["output_dir=run", "logger=none", "trainer.max_steps=1"]
    for given in ([f"--config-dir={config}"], [f"hydra.searchpath=[file://{config}]"]):
        for multirun in ([], ["-m"]):
            ended = script("train.py", *multirun, *given, "experiment=fine", *options)
            assert ended.code == 2, ended.err
            assert "allow_targets=['os.'] is set in a file that this configuration includes" in ended.err
    assert not Path("marker").exists()
    assert not Path("run").exists()
    with pytest.raises(ValueError, match="is set in a file that this configuration includes, but is allowed only on"):
        composed("train", [f"hydra.searchpath=[file://{config}]", "experiment=fine"])


def test_a_primary_configuration_of_ones_own_allows_targets(script: Script, tmp_path: Path) -> None:
    config = tmp_path / "mine"
    config.mkdir()
    own = "defaults: [train, _self_]\nallow_targets: [os.]\noptimizer: {_target_: os.nothing}\n"
    (config / "own.yaml").write_text(own)
    ended = script("train.py", f"--config-dir={config}", "--config-name=own", "output_dir=run", "trainer.max_steps=1")
    assert "os.nothing cannot be imported" in ended.err


FILES = ["lock", "metrics.jsonl", "metrics.csv", "config.yaml", "result.json"]
FOLDERS = ["pictures", "checkpoints", "snapshots", "wandb"]


@pytest.mark.many
@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_a_received_run_is_not_written_through_links(name: str, folder: Path, script: Script, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    if name in FILES:
        target.write_text("precious")
        (folder / name).unlink(missing_ok=True)
    else:
        shutil.rmtree(folder / name, ignore_errors=True)
        target.mkdir()
    (folder / name).symlink_to(target)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for program, options in (
        ("train.py", [*POINTS, "trainer.max_steps=3"]),
        ("sample.py", [f"checkpoint={folder}", "num_samples=2"]),
    ):
        ended = script(program, *options, f"output_dir={folder}")
        assert ended.code in (2, 4), ended.err
        assert any(each in ended.err for each in ("symbolic link", "contains other samples", "is not a run folder"))
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert target.read_text() == "precious" if target.is_file() else not any(target.iterdir())


@pytest.mark.parametrize("name", ["report.md", "report.csv"])
def test_a_report_replaces_links(name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    (folder / name).symlink_to(target)
    monkeypatch.setattr("sys.argv", ["inkdrop", "report", str(folder)])
    main()
    assert target.read_text() == "precious"
    assert (folder / name).is_file()
    assert not (folder / name).is_symlink()


def test_a_sweep_is_not_written_through_links(script: Script, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    Path("sweep").mkdir()
    Path("sweep/multirun.yaml").symlink_to(target)
    basic = [*IN_PROCESS, "hydra/sweeper=basic"]
    ended = script("train.py", "-m", *basic, *POINTS, "trainer.max_steps=1", "seed=0,1", "output_dir=sweep")
    assert ended.code == 2
    assert "multirun.yaml is a symbolic link" in ended.err
    assert target.read_text() == "precious"


HYDRA = """# @package _global_
hydra: {callbacks: {evil: {_target_: os.mkdir, path: marker}}}
"""


@pytest.mark.slow
@pytest.mark.parametrize(("options", "executed"), [(["--cfg", "all"], False), (["--cfg", "job"], False), ([], True)])
def test_how_a_configuration_of_a_stranger_is_looked_at(
    options: list[str], executed: bool, script: Script, tmp_path: Path
) -> None:
    """As SECURITY.md says; with no option Hydra itself executes it."""
    (tmp_path / "theirs" / "experiment").mkdir(parents=True)
    (tmp_path / "theirs" / "experiment" / "fine.yaml").write_text(HYDRA)
    ended = script(
        "train.py", f"--config-dir={tmp_path / 'theirs'}", "experiment=fine", "trainer.max_steps=0", *options
    )
    assert ended.code == 0, ended.err
    assert Path("marker").exists() == executed


# Negative controls: the payloads above do what they say where nothing stands in their way.


def test_the_command_would_run(script: Script) -> None:
    with pytest.raises(DataError, match="is not a tar archive"):  # but it has run
        build(PIPE, ("inkdrop.", "numpy."))
    assert Path("marker").exists()


def test_the_pickle_would_run(script: Script) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    Path("evil.pt").write_bytes(pickle.dumps(Marker()))
    with pytest.raises(RuntimeError, match="Invalid magic number"):  # but it has run
        FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path="evil.pt")
    assert Path("marker").exists()


@pytest.mark.parametrize("part", ["_fits", "_defined_as"])
def test_each_check_of_a_target_is_needed(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins: dict[str, Callable[..., Any]] = {
        "_fits": lambda target, entry: True,
        "_defined_as": lambda target: "inkdrop.data.shards.ShardColumn",
    }
    nodes = {
        "_fits": ({"_target_": "inkdrop.data.shards.ShardColumn"}, tuple(KINDS)),
        "_defined_as": ({"_target_": "inkdrop.distributed.slurm.subprocess.run", "args": ["true"]}, ("inkdrop.",)),
    }
    node, allowed = nodes[part]
    with pytest.raises(ConfigurationError, match=r"is not allowed|cannot be imported"):
        check(node, allowed)
    monkeypatch.setattr(f"inkdrop.configuration.building.{part}", stand_ins[part])
    if part == "_fits":
        with pytest.raises(ConfigurationError, match="is missing"):  # it is taken for a part
            check(node, allowed)
    else:
        module = {"_target_": "inkdrop.distributed.slurm.requeue"}
        check(module, allowed)


def test_links_would_be_followed_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inkdrop.files.writing import append_text

    (tmp_path / "precious").write_text("precious")
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "precious")
    monkeypatch.setattr(os, "O_NOFOLLOW", 0)
    append_text(tmp_path / "metrics.jsonl", "!")
    assert (tmp_path / "precious").read_text() == "precious!"


def test_data_would_be_fetched(whole: Path) -> None:
    content = read_checkpoint(whole)
    content["config"]["data"] = {
        "_target_": "inkdrop.data.MNIST",
        "shape": [1, 28, 28],
        "num_classes": 10,
        "batch_size": 2,
        "download": True,
    }
    assert checked_part("file", content, "data")["download"] is True
    assert checked_data("file", content)["download"] is False


UNSAFE = {"pickle.load", "pickle.loads", "os.system", "eval", "exec", "yaml.load", "np.load", "torch.load"}
SAFE = {"torch.load": "weights_only=True", "np.load": "allow_pickle=False", "yaml.load": "Loader=_loader()"}


@pytest.mark.slow
def test_nothing_in_the_package_unpickles_or_starts_a_shell() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                told, options = ast.unparse(node.func), [ast.unparse(each) for each in node.keywords]
                shell = any(each.replace(" ", "") == "shell=True" for each in options)
                if shell or (told in UNSAFE and SAFE.get(told) not in options):
                    found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}")
    assert not found


def test_extractors_are_made_without_their_files() -> None:
    assert Inception("nowhere.pt")
    assert CLIP("nowhere")
