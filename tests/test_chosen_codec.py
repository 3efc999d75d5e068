"""Without a choice, the type of the data chooses the codec; a chosen one stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from entry_scripts import Script

from inkdrop.configuration.compose import composed, resolved

PIXELS = {"_target_": "inkdrop.codecs.Pixels"}


def standardize(channels: int | None) -> dict[str, Any]:
    return {"_target_": "inkdrop.codecs.Standardize", "channels": channels}


def arrays(folder: Path, dtype: str, *shape: int) -> list[str]:
    np.savez(folder / "data.npz", x=np.random.default_rng(0).integers(0, 200, (40, *shape)).astype(dtype))
    return ["data=arrays", f"data.path={folder / 'data.npz'}"]


@pytest.mark.parametrize("classifier", [False, True], ids=["diffusion", "classifier"])
@pytest.mark.parametrize(
    ("dtype", "shape", "codec"),
    [
        ("uint8", (3, 8, 8), PIXELS),
        ("float64", (3, 8, 8), standardize(3)),
        ("float32", (3, 20), standardize(3)),
        ("int16", (5,), standardize(5)),
        ("uint8", (5,), standardize(5)),
    ],
)
def test_the_type_of_the_data_chooses_the_codec(
    dtype: str, shape: tuple[int, ...], codec: dict[str, Any], classifier: bool, tmp_path: Path
) -> None:
    task = ["experiment=digits_classifier"] if classifier else []
    plain = resolved(composed("train", [*task, *arrays(tmp_path, dtype, *shape)]))
    assert plain["codec"] == plain["task"]["pipeline"]["codec"] == codec


def test_a_chosen_codec_stays(tmp_path: Path) -> None:
    floats = arrays(tmp_path, "float64", 3, 20)
    for name, codec in {"pixels": PIXELS, "standardize": standardize(None)}.items():
        assert resolved(composed("train", [*floats, f"codec={name}"]))["codec"] == codec
    assert resolved(composed("train", ["experiment=moons"]))["codec"] == standardize(None)
    assert resolved(composed("train", []))["codec"] == PIXELS  # of the digits, as before there was a choice


def test_floats_train_without_a_word_about_a_codec(tmp_path: Path, script: Script) -> None:
    floats = arrays(tmp_path, "float64", 3, 16)
    others = ["conditioner=none", "guidance=none", "metric=none", "extractor=none", "prediction=v"]
    ended = script("train.py", *floats, *others, "trainer.max_steps=0", f"output_dir={tmp_path / 'run'}")
    assert ended.code == 0, ended.err


def test_data_that_are_missing_have_their_own_error(tmp_path: Path, script: Script) -> None:
    options = ["data=arrays", f"data.path={tmp_path}/absent.npz", "data.shape=[3]", "data.num_classes=0"]
    ended = script("train.py", *options, f"output_dir={tmp_path / 'run'}")
    assert ended.code == 3
    assert "absent.npz is missing" in ended.err


def test_what_is_no_data_gets_pixels_and_is_refused_where_it_is_built() -> None:
    assert resolved(composed("train", ["~data._target_"]))["codec"] == PIXELS
