"""What a checkpoint can reach: making any of the parts that it may name opens, fetches, starts and writes nothing."""

from __future__ import annotations

import functools
import re
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from choices import CONF, choices, composed, reads_its_codec
from runs import run

from inkdrop.configuration import build
from inkdrop.configuration.building import CHECKPOINT_TARGETS, checkpoint_parts, locate

# Events of Python's audit hooks by which a program opens, fetches, starts or writes something.
EVENTS = ("open", "os.", "shutil.", "socket.", "subprocess.", "urllib.", "http.", "tempfile.", "ctypes.dlopen", "pty.")
_heard: list[str] | None = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _heard is not None and event.startswith(EVENTS) and not _of_the_interpreter(event, arguments):
        _heard.append(f"{event} {arguments[:2]}")


def _of_the_interpreter(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether a module is imported, or a source line of a warning is looked up."""
    if event == "os.listdir":
        return str(arguments[0]) in sys.path or str(arguments[0]).startswith(sysconfig.get_path("purelib"))
    return event == "open" and str(arguments[0]).endswith((".py", ".pyc", ".so"))


@pytest.fixture(scope="module", autouse=True)
def _hook() -> None:
    """An audit hook stays, and slows everything down: it is added where these tests run."""
    sys.addaudithook(_hear)


@contextmanager
def listening() -> Iterator[list[str]]:
    """What is opened, fetched, started and written within the block."""
    global _heard
    _heard = heard = []
    try:
        yield heard
    finally:
        _heard = None


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """All that has a target in a plain configuration, the innermost first."""
    for each in node if isinstance(node, list) else node.values() if isinstance(node, dict) else ():
        yield from nodes(each)
    if isinstance(node, dict) and "_target_" in node:
        yield node


def is_new(name: str, parts: dict[Any, str], found: dict[str, Any]) -> bool:
    target = locate(name, ("inkdrop.",))
    return target in parts and parts[target] not in found


def named() -> dict[str, dict[str, Any]]:
    """The parts that the YAML files of `conf/` name, by the name under which each is defined, with its arguments."""
    parts = {part: name for name, part in checkpoint_parts().items()}
    found: dict[str, dict[str, Any]] = {}
    for overrides in choices():
        group, _, name = overrides[0].partition("=")
        written = re.findall(r"_target_: (inkdrop\.[\w.]+)", (CONF / group / f"{name}.yaml").read_text())
        if reads_its_codec(overrides) or not any(is_new(each, parts, found) for each in written):
            continue  # composing takes a while
        for node in nodes(composed(overrides)):
            target = locate(node["_target_"], ("inkdrop.", "torch.optim."))
            if target in parts:
                found.setdefault(parts[target], node)
    return found


GRID = {"_target_": "inkdrop.time_grids.Trailing", "num_steps": 2}
NOISE, MIDDLE = ({"_target_": f"inkdrop.samplers.{name}"} for name in ("coordinates.Noise", "quadrature.Middle"))
ATTEND = {"_target_": "inkdrop.networks.layers.scaled_dot_product", "_partial_": True}
PUBLISHED = torch.tensor(
    [
        *b'{"_class_name": "AutoencoderKL", "block_out_channels": [2], "layers_per_block": 1, "latent_channels": 1, ',
        *b'"in_channels": 1, "out_channels": 1, "norm_num_groups": 1}',
    ],
    dtype=torch.uint8,
)
POOLED = {"_target_": "inkdrop.networks.Pooled", "network": {"_target_": "inkdrop.codecs.Pixels"}}
# Arguments of the parts that no YAML file names.
TOKENIZER = (
    b'{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}'
)
OTHERS: dict[str, dict[str, Any]] = {
    "inkdrop.codecs.word_embedding.nearness": {"_partial_": True},
    "inkdrop.networks.pooled.Pooled": {"network": POOLED["network"]},
    "inkdrop.models.attribute_classifier.AttributeClassifier": {
        "network": POOLED,
        "schedule": {"_target_": "inkdrop.schedules.sqrt", "num_timesteps": 4},
        "prediction": {"_target_": "inkdrop.predictions.DataPrediction"},
        "codec": {"_target_": "inkdrop.codecs.Pixels"},
        "shape": [4, 4],
        "num_values": 4,
    },
    "inkdrop.models.codec_of.CodecOf": {"model": {"_target_": "inkdrop.pipeline.loaded", "checkpoint": "RUN"}},
    "inkdrop.conditioners.hint.Hint": {"name": "hint", "door": "hint_a", "shape": [1, 8, 8]},
    "inkdrop.constraints.particles.Residual": {},
    "inkdrop.constraints.prompt_to_prompt.Refine": {},
    "inkdrop.guidance.scales.Ramp": {"start": 0.0, "end": 1.0},
    "inkdrop.guidance.scales.Within": {"scale": 1.0, "interval": None},
    "inkdrop.networks.layers.root_mean_square": {"dim": 4},
    "inkdrop.networks.layers.scaled_dot_product": {"_partial_": True},
    "inkdrop.networks.layers.Attention": {
        "channels": 4,
        "head_dim": None,
        "norm_groups": 1,
        "norm_eps": 1e-6,
        "attend": ATTEND,
    },
    "inkdrop.networks.edm2.MPLayer": {"in_channels": 2, "out_channels": 2},
    "inkdrop.networks.resampling.Downsample": {"taps": [1.0, 1.0], "dims": 2},
    "inkdrop.networks.resampling.Upsample": {"taps": [1.0, 1.0], "dims": 2},
    "inkdrop.networks.resampling.SkipInput": {"in_channels": 2, "out_channels": 2, "taps": [1.0, 1.0], "dims": 2},
    "inkdrop.networks.unet.Waves": {},
    "inkdrop.networks.unet.Downsample": {"channels": 2, "dims": 2},
    "inkdrop.networks.unet.EvenDownsample": {"channels": 2, "dims": 2},
    "inkdrop.networks.unet.Residual": {
        **dict.fromkeys(("in_channels", "out_channels", "embedding_dim", "norm_groups"), 4),
        "dims": 2,
        "dropout": 0.0,
        "scale_shift": False,
        "norm_eps": 1e-6,
    },
    "inkdrop.networks.unet.Upsample": {"channels": 4, "dims": 2},
    "inkdrop.networks.positions.Positions": {},
    "inkdrop.networks.positions.Learned": {"grid": [2, 2], "width": 4, "head_dim": 4},
    **{
        f"inkdrop.data.degradations.{name}": arguments
        for name, arguments in {
            "blanks.MiddleBlanks": {},
            "chains.Chain": {"steps": [{"_target_": "inkdrop.data.degradations.Copy"}]},
            "chains.Copy": {},
            "colours.ColourJitter": {},
            "colours.Edges": {},
            "colours.Grey": {},
            "compression.JPEG": {"low": 10, "high": 50},
            "masks.BoxMask": {},
            "masks.HalfMask": {"hidden": ["lower"]},
            "masks.OutpaintingMask": {},
            "masks.PixelMask": {},
            "masks.StrokeMask": {},
            "resolution.BicubicDownscale": {"factor": 2},
            "resolution.Blur": {"low": 0.5, "high": 1.0},
            "resolution.Downscale": {"factor": 2},
            "steps.FutureMask": {"horizon": 2},
            "steps.GapMask": {},
        }.items()
    },
    "inkdrop.data.paired.Paired": {"path": "nowhere"},
    "inkdrop.models.latent.Latent": {"model": {"_target_": "inkdrop.pipeline.loaded", "checkpoint": "RUN"}},
    "inkdrop.models.foreign.ForeignFiles": {"files": {"config.json": torch.tensor([*b"{}"], dtype=torch.uint8)}},
    "inkdrop.pipeline.published.published_autoencoder": {
        "files": {"_target_": "inkdrop.models.ForeignFiles", "files": {"config.json": PUBLISHED}},
        "shape": [1, 4, 4],
    },
    "inkdrop.models.tokenizer.Tokenizer": {
        "files": {
            "_target_": "inkdrop.models.ForeignFiles",
            "files": {
                "config.json": torch.tensor([*b"{}"], dtype=torch.uint8),
                "tokenizer.json": torch.tensor([*TOKENIZER], dtype=torch.uint8),
            },
        }
    },
    "inkdrop.pictures.automatic.Automatic": {},
    "inkdrop.pipeline.loading.embedded": {"model": {"_target_": "inkdrop.codecs.Pixels"}, "classes": []},
    "inkdrop.samplers.runge_kutta.RungeKutta": {
        "time_grid": GRID,
        "coordinate": NOISE,
        "rule": MIDDLE,
        "stages": [1.0],
    },
    "inkdrop.samplers.calibrated.Calibrated": {"time_grid": GRID, "coefficients": [[1.0, 0.0], [0.5, 0.5]]},
    "inkdrop.schedules.tables.Table": {"betas": [0.1, 0.2]},
    "inkdrop.time_grids.moves.Repeat": {"time_grid": GRID, "corrections": 1},
    **{f"inkdrop.samplers.coordinates.{name}": {} for name in ("Noise", "Data", "Angle")},
    **{f"inkdrop.samplers.quadrature.{name}": {} for name in ("Even", "InShare", "InTau", "Middle", "ToTheEnd")},
}
# The one part whose making reads a file: another checkpoint, by the reader of all checkpoints.
READING = {"inkdrop.pipeline.foreign", "inkdrop.pipeline.loaded"}


def made(node: dict[str, Any]) -> list[str]:
    """What making a part opens, fetches, starts and writes; what it is made of is made before."""
    target = locate(node["_target_"], CHECKPOINT_TARGETS)
    arguments = {name: value for name, value in node.items() if name not in ("_target_", "_partial_")}
    parts = build(arguments, CHECKPOINT_TARGETS)
    with listening() as heard:
        functools.partial(target, **parts) if node.get("_partial_") else target(**parts)
    return heard


@pytest.mark.slow
def test_making_a_part_opens_fetches_starts_and_writes_nothing() -> None:
    parts, by_yaml = checkpoint_parts(), named()
    others = {name: {"_target_": name, **arguments} for name, arguments in OTHERS.items()}
    everything = {**by_yaml, **others}
    assert set(parts) - set(everything) == set(), "a part that no YAML file names has its arguments in OTHERS"
    heard = {name: made(everything[name]) for name in sorted(set(parts) - READING - guided(everything))}
    assert not {name: events for name, events in heard.items() if events}
    assert len(heard) > 140


def guided(everything: dict[str, dict[str, Any]]) -> set[str]:
    """Guides by another checkpoint: that is read before the guide is made."""
    return {name for name, node in everything.items() if any(each["_target_"] in READING for each in nodes(node))}


def test_another_checkpoint_is_read_and_nothing_else(tmp_path: Path) -> None:
    run(tmp_path / "run", "trainer.max_steps=1")
    node = {"_target_": "inkdrop.pipeline.loaded", "checkpoint": str(tmp_path / "run")}
    build(node, CHECKPOINT_TARGETS)  # modules are imported
    listed = re.compile(r"os\.(scandir|listdir)|open \(\d+, ")  # folders, and what has been opened
    heard = [each for each in made(node) if not listed.match(each)]
    assert heard
    for each in heard:
        assert re.match(rf"open \('?{tmp_path}/run/(checkpoints/(step-|index.json)|run.json)", each), each
        assert each.endswith(("'r')", "'rb')", "None)")), each
    everything = {"guide": {"_target_": "inkdrop.guidance.Autoguidance", "weak": node, "scale": 2.0}}
    assert guided(everything) == {"guide"}


@pytest.mark.parametrize(
    ("event", "action"),
    {
        "open": lambda: open("/dev/null").close(),
        "os.mkdir": lambda: Path("made").mkdir(),
        "subprocess.Popen": lambda: subprocess.run(["true"], check=True),
        "socket.": lambda: socket.socket().close(),
        "os.rename": lambda: Path("there").rename("moved"),
    }.items(),
)
def test_what_is_listened_for_is_heard(
    event: str, action: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").touch()
    with listening() as heard:
        action()
    assert any(each.startswith(event) for each in heard), heard


def test_a_part_that_reads_when_it_is_made_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of this file: a codec that opens a file in its constructor."""
    from inkdrop.codecs import Pixels

    class Reading(Pixels):
        def __init__(self) -> None:
            super().__init__()
            Path("/dev/null").read_bytes()

    monkeypatch.setattr("inkdrop.codecs.Pixels", Reading)
    monkeypatch.setattr("inkdrop.configuration.building._defined_as", lambda target: "inkdrop.codecs.pixels.Pixels")
    assert made({"_target_": "inkdrop.codecs.Pixels"})
