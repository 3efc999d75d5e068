"""Models of checkpoints that are made of themselves, or of more than their weights."""

from __future__ import annotations

import functools
import itertools
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import run

from inkdrop import load
from inkdrop.checkpoints import building
from inkdrop.checkpoints.building import MAX_MODELS
from inkdrop.errors import CheckpointError

NETWORK = "config/pipeline/denoiser/network"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("building")
    run(folder, "trainer.max_steps=1")
    return torch.load(folder / "checkpoints" / "step-00000001.ckpt", weights_only=True)


def saved(content: dict[str, Any], file: Path, path: str, value: Any) -> Path:
    """A file of this content with another value at a path."""
    *names, last = path.split("/")
    changed = {**content}
    node = changed
    for name in names:
        node[name] = {**node[name]}
        node = node[name]
    node[last] = value
    torch.save(changed, file)
    return file


def made_of(file: Path) -> dict[str, str]:
    return {"_target_": "inkdrop.pipeline.loaded", "checkpoint": str(file)}


def test_a_model_of_itself_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in ("a.ckpt", "b.ckpt", "c.ckpt"))
    saved(content, a, "config/pipeline", made_of(a))
    with pytest.raises(CheckpointError, match=r"a\.ckpt contains itself: .*a\.ckpt -> .*a\.ckpt$"):
        load(a)
    for one, other in ((a, b), (b, c), (c, b)):
        saved(content, one, "config/pipeline", made_of(other))
    with pytest.raises(CheckpointError, match=r"b\.ckpt contains itself: .*b\.ckpt -> .*c\.ckpt -> .*b\.ckpt$"):
        load(a)
    (tmp_path / "link.ckpt").symlink_to(a)
    saved(content, a, "config/pipeline", made_of(tmp_path / "link.ckpt"))
    with pytest.raises(CheckpointError, match="contains itself"):
        load(a)


@pytest.mark.slow
def test_a_chain_of_models_has_an_end(content: dict[str, Any], tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.ckpt" for number in range(MAX_MODELS + 2)]
    for one, other in itertools.pairwise(files):
        saved(content, one, "config/pipeline", made_of(other))
    torch.save(content, files[-1])
    with pytest.raises(CheckpointError, match="one of more than 16 models"):
        load(files[0])


@pytest.mark.slow
def test_the_guide_of_a_model_may_be_itself(content: dict[str, Any], tmp_path: Path) -> None:
    guide = {"_target_": "inkdrop.guidance.Autoguidance", "weak": made_of(tmp_path / "a.ckpt"), "scale": 2.0}
    file = saved(content, tmp_path / "a.ckpt", "config/pipeline/guidance", {"auto": guide})
    assert "auto" in load(file).guidance
    many = {f"auto_{number}": guide for number in range(MAX_MODELS + 1)}
    with pytest.raises(CheckpointError, match="one of more than 16 models"):
        load(saved(content, tmp_path / "a.ckpt", "config/pipeline/guidance", many))


@pytest.mark.parametrize(
    ("option", "value"),
    [("width", 10**7), pytest.param("num_blocks", 10**9, marks=pytest.mark.slow), ("vector_dim", 10**11)],
)
def test_a_model_larger_than_its_weights_is_refused(
    option: str, value: int, content: dict[str, Any], tmp_path: Path
) -> None:
    file = saved(content, tmp_path / "a.ckpt", f"{NETWORK}/{option}", value)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        CheckpointError,
        match=r"a\.ckpt is not an inkdrop checkpoint: its configuration describes a model larger than its weights",
    ):
        load(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # kilobytes


def test_a_sample_has_an_end(content: dict[str, Any], tmp_path: Path) -> None:
    for shape in ([10**6, 10**6], [0], [-1, -1]):
        with pytest.raises(ValueError, match="must have 1 to"):
            load(saved(content, tmp_path / "a.ckpt", "config/pipeline/shape", shape))


def test_what_is_built_is_the_same_and_counted_by_what_it_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"_target_": "inkdrop.networks.MLP", "shape": [2], "width": 64, "num_blocks": 2, "dropout": 0.0}
    build = functools.partial(building.built, "a.ckpt", {**node, "vector_dim": 0}, ("inkdrop.networks.",))
    torch.manual_seed(0)
    ours = build()
    torch.manual_seed(0)
    theirs = building.build({**node, "vector_dim": 0})
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name])
    size = sum(value.numel() * value.element_size() for value in theirs.state_dict().values())
    monkeypatch.setattr(building, "ROOM", size)  # tensors that are small count as more
    with pytest.raises(CheckpointError, match="larger than its weights"):
        build()
    monkeypatch.setattr(building, "_LEAST", 1)
    build()
    monkeypatch.setattr(building, "ROOM", size - 1)
    with pytest.raises(CheckpointError, match="larger than its weights"):
        build()


def test_a_model_is_a_part_that_can_be_built(content: dict[str, Any], tmp_path: Path) -> None:
    pipeline = content["config"]["pipeline"]
    for wrong in ({"_partial_": True, **pipeline}, {name: part for name, part in pipeline.items() if name[0] != "_"}):
        with pytest.raises(CheckpointError, match="its pipeline does not name a class to build"):
            load(saved(content, tmp_path / "a.ckpt", "config/pipeline", wrong))
    without = {name: part for name, part in pipeline.items() if name != "guidance"}
    assert load(saved(content, tmp_path / "a.ckpt", "config/pipeline", without)).guidance == {}
