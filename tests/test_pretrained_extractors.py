"""CLIP and DINOv2 as transformers has them, with random weights in their layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from inkdrop.data import Digits
from inkdrop.metrics import CLIP, DINOv2, Evaluation, FrechetDistance, MaximumMeanDiscrepancy

transformers = pytest.importorskip("transformers")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPVisionConfig(**small, image_size=32, patch_size=8, projection_dim=6)
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


@pytest.fixture
def dinov2(tmp_path: Path) -> Path:
    config = transformers.Dinov2Config(
        hidden_size=16, mlp_ratio=1, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    transformers.Dinov2Model(config).save_pretrained(tmp_path / "dinov2")
    return tmp_path / "dinov2"


def processed(images: Tensor, size: int, mean: Any, deviation: Any) -> Tensor:
    """As transformers prepares PIL images, by Pillow's bicubic filter."""
    processor = transformers.CLIPImageProcessorPil(
        size={"height": size, "width": size}, do_center_crop=False, image_mean=mean, image_std=deviation, resample=3
    )
    arrays = [each.permute(1, 2, 0).numpy() for each in images.expand(-1, 3, -1, -1)]
    return torch.from_numpy(np.stack(processor(arrays)["pixel_values"]))


@pytest.mark.parametrize("side", [20, 50])
def test_images_are_resized_as_by_pillow(clip: Path, side: int) -> None:
    images = torch.randint(96, 160, (3, 3, side, side), dtype=torch.uint8)  # Pillow clips between rows and columns too
    ours, theirs = CLIP(str(clip)).prepared(images), processed(images, 32, CLIP.MEAN, CLIP.DEVIATION)
    levels = (ours - theirs).abs() * 255 * torch.tensor(CLIP.DEVIATION)[:, None, None]
    assert levels.max() <= 2.01
    assert levels.mean() < 0.5


def test_clip_embeddings_are_those_of_transformers(clip: Path) -> None:
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    extractor = CLIP(str(clip))
    assert extractor.dim == 6
    network = transformers.CLIPVisionModelWithProjection.from_pretrained(clip).eval()
    with torch.no_grad():
        theirs = network(pixel_values=processed(images, 32, CLIP.MEAN, CLIP.DEVIATION)).image_embeds
        ours = extractor(images)
    assert torch.allclose(ours, theirs / theirs.norm(dim=1, keepdim=True), atol=1e-6)
    assert torch.allclose(ours.norm(dim=1), torch.ones(3))


def test_dinov2_features_are_those_of_transformers_at_224_pixels(dinov2: Path) -> None:
    images = torch.randint(0, 256, (2, 1, 224, 224), dtype=torch.uint8)
    extractor = DINOv2(str(dinov2))
    network = transformers.Dinov2Model.from_pretrained(dinov2).eval()
    with torch.no_grad():
        theirs = network(pixel_values=processed(images, 224, DINOv2.MEAN, DINOv2.DEVIATION)).pooler_output
        assert torch.allclose(extractor(images), theirs, atol=1e-5)
        assert extractor(images[:, :, :50, :50]).shape == (2, extractor.dim) == (2, 16)


def test_distances_on_them_have_their_published_names(clip: Path, dinov2: Path) -> None:
    data = Digits([1, 8, 8], 10, 128)
    samples = data.splits["validation"]["x"][:40]
    metrics = {
        "cmmd": MaximumMeanDiscrepancy(extractor=CLIP(str(clip)), max_items=100),
        "frechet": FrechetDistance(extractor=DINOv2(str(dinov2))),
    }
    data.splits["train"] = {name: column[:64] for name, column in data.splits["train"].items()}  # type: ignore[index]
    results = Evaluation(CLIP(str(clip)), metrics).measure([samples], data)
    assert {"cmmd_40", "cmmd_40_floor", "fd_dinov2_40", "fd_dinov2_40_baseline"} <= set(results)
    assert results["cmmd_40"] == pytest.approx(results["cmmd_40_floor"], rel=1e-6)


@pytest.mark.parametrize("kind", [CLIP, DINOv2])
def test_absent_weights_say_where_they_go(kind: type, tmp_path: Path) -> None:
    published = kind.PUBLISHED  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=rf"extractor\.path=.* holds no config\.json: put the files of {published}"):
        kind(str(tmp_path)).ready()
    with pytest.raises(ValueError, match=rf"hf download {published}"):
        kind().ready()


def test_floats_are_refused(clip: Path) -> None:
    with pytest.raises(ValueError, match="takes uint8 images"):
        CLIP(str(clip))(torch.rand(1, 3, 32, 32))
