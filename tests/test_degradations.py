"""Degradations against independent implementations, and the masks that they draw against their definitions."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import fft, ndimage
from torch import Tensor
from torchvision.transforms import functional

from inkdrop.data import Digits
from inkdrop.data.degradations import (
    JPEG,
    BicubicDownscale,
    Blur,
    BoxMask,
    Chain,
    ColourJitter,
    Copy,
    Downscale,
    Edges,
    Grey,
    HalfMask,
    OutpaintingMask,
    PixelMask,
    StrokeMask,
)
from inkdrop.data.degradations.colours import jittered
from inkdrop.data.degradations.masks import under
from inkdrop.data.loaders import Derive
from inkdrop.metrics import Evaluation, NoFeatures, RootMeanSquareError
from inkdrop.randomness import Generators


def photos(count: int, channels: int = 3, height: int = 32, width: int = 48) -> Tensor:
    """Smooth images of 8 bits with some noise."""
    coarse = torch.rand(count, channels, height // 8, width // 8, generator=torch.Generator().manual_seed(0))
    smooth = 255 * torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noise = 12 * torch.randn(smooth.shape, generator=torch.Generator().manual_seed(1))
    return (smooth + noise).round().clamp(0, 255).to(torch.uint8)


def of(derive: Derive, x: Tensor, **fields: Tensor) -> Tensor:
    """The field of images x, with streams of seeds 0, 1, ..."""
    return derive({"x": x, **fields}, Generators.from_seeds(range(len(x))))


def as_pil(x: Tensor) -> Image.Image:
    return Image.fromarray(x.permute(1, 2, 0).numpy().squeeze())


def from_pil(image: Image.Image) -> Tensor:
    array = np.asarray(image)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1).copy()).permute(2, 0, 1)


def largest(x: Tensor, y: Tensor) -> float:
    return float((x.double() - y.double()).abs().max())


@pytest.mark.parametrize("factor", [2, 4])
def test_bicubic_downscaling_is_that_of_pillow(factor: int) -> None:
    x = (photos(3).float() * 0.6 + 50).to(torch.uint8)  # Pillow cuts to the range between its two passes
    for small, each in zip(of(BicubicDownscale(factor), x), x, strict=True):
        expected = as_pil(each).resize((48 // factor, 32 // factor), Image.Resampling.BICUBIC)
        assert largest(small, from_pil(expected)) <= 1
    assert not torch.equal(of(BicubicDownscale(factor), x), of(Downscale(factor), x))


def test_blur_is_that_of_scipy_and_of_each_sample_by_itself() -> None:
    x = photos(2)
    for blurred, each in zip(of(Blur(1.5, 1.5), x), x, strict=True):
        expected = ndimage.gaussian_filter(each.double().numpy(), (0, 1.5, 1.5), mode="mirror", truncate=4)
        assert largest(blurred, torch.from_numpy(expected)) <= 0.51
    same = x[:1].expand(40, -1, -1, -1)
    rough = of(Blur(0.5, 3.0), same).double().diff(dim=3).abs().mean((1, 2, 3))
    ends = [float(of(Blur(s, s), x[:1]).double().diff(dim=3).abs().mean()) for s in (3.0, 0.5)]
    assert ends[0] < float(rough.min()) < float(rough.max()) < ends[1]
    assert float(rough.max() / rough.min()) > 1.5


def test_jpeg_rounds_the_cosine_transform_of_squares() -> None:
    x = (photos(2, 1).float() * 0.6 + 50).to(torch.uint8)
    for quality in (10, 60):
        for back, each in zip(of(JPEG(quality, quality), x), x, strict=True):
            stream = io.BytesIO()
            as_pil(each).save(stream, "JPEG", quality=quality)
            steps = np.array(Image.open(stream).quantization[0]).reshape(8, 8)  # type: ignore[attr-defined]
            squares = each[0].double().numpy().reshape(4, 8, 6, 8) - 128
            rounded = np.rint(fft.dctn(squares, axes=(1, 3), norm="ortho") / steps[:, None, :]) * steps[:, None, :]
            expected = fft.idctn(rounded, axes=(1, 3), norm="ortho").reshape(1, 32, 48) + 128
            error = np.abs(back.double().numpy() - expected.clip(0, 255))
            assert np.quantile(error, 0.8) < 1  # integers decide some ties of coefficients in another way
            assert error.mean() < 0.7
    x = photos(2)
    errors = [(of(JPEG(q, q), x).double() - x.double()).square().mean().item() for q in (5, 30, 95)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    many = (of(JPEG(5, 95), x[:1].expand(60, -1, -1, -1)).double() - x[:1].double()).square().mean((1, 2, 3))
    assert float(many.min()) < 2 * errors[2]
    assert float(many.max()) > errors[1]


def test_grey_is_that_of_pillow_to_the_bit() -> None:
    x = torch.randint(0, 256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for grey, each in zip(of(Grey(), x), x, strict=True):
        assert torch.equal(grey, from_pil(as_pil(each).convert("L")))
    floats = torch.rand(2, 3, 4, 4)
    assert of(Grey(), floats) == pytest.approx(functional.rgb_to_grayscale(floats), abs=2e-3)


def test_edges_are_where_the_operator_of_sobel_of_scipy_says() -> None:
    x = photos(3, 1)
    levels = x[:, 0].double().numpy()
    slopes = [np.stack([ndimage.sobel(each, axis, mode="nearest") / 8 for each in levels]) for axis in (0, 1)]
    size = np.hypot(*slopes)
    assert np.array_equal(of(Edges(15.0), x)[:, 0].numpy() == 255, size >= 15)
    assert 0.02 < (size >= 15).mean() < 0.9
    colours = photos(2)
    assert float((of(Edges(15.0), colours) != of(Edges(15.0), of(Grey(), colours))).double().mean()) < 0.02
    step = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    step[..., 4:] = 100
    assert (of(Edges(20.0), step)[0, 0] == 255).sum(0).tolist() == [0, 0, 0, 8, 8, 0, 0, 0]


def test_colour_jitter_is_that_of_torchvision() -> None:
    x = photos(5).float() / 255
    factors = [(1.3, 1, 1, 0), (1, 0.6, 1, 0), (1, 1, 1.4, 0), (1, 1, 1, 0.1), (0.7, 1.2, 0.5, -0.3)]
    columns = torch.tensor(factors).float().T[:, :, None, None, None]
    for changed, each, (b, c, s, h) in zip(jittered(x, *columns), x, factors, strict=True):
        expected = functional.adjust_brightness(each, b)
        expected = functional.adjust_contrast(expected, c)
        expected = functional.adjust_hue(functional.adjust_saturation(expected, s), h)
        assert largest(changed, expected) < 5e-3
    same = photos(1).expand(300, -1, -1, -1)
    brightness = of(ColourJitter(0.4, 0, 0, 0), torch.full_like(same, 100))[:, 0, 0, 0].double() / 100
    assert (float(brightness.min()), float(brightness.max())) == pytest.approx((0.6, 1.4), abs=0.02)
    assert float(brightness.mean()) == pytest.approx(1, abs=0.04)
    assert largest(of(ColourJitter(0, 0, 0, 0), same[:2]), same[:2]) == 0


def test_each_sample_hides_one_of_the_halves() -> None:
    x = torch.zeros(400, 3, 6, 10)
    halves = of(HalfMask(["lower"]), x)
    assert halves.shape == (400, 1, 6, 10)
    assert torch.equal(halves[0, 0].long(), torch.arange(6)[:, None].lt(3).expand(6, 10).long())
    sides = {
        "upper": (slice(0, 3), slice(None)),
        "left": (slice(None), slice(0, 5)),
        "right": (slice(None), slice(5, 10)),
    }
    for side, (rows, columns) in sides.items():
        mask = of(HalfMask([side]), x[:1])[0, 0]  # type: ignore[list-item]
        assert mask[rows, columns].sum() == 0
        assert mask.sum() == 30
    chosen = (
        of(HalfMask(["upper", "left"]), x)[:, 0, 5, 9].long() * 2
        + of(HalfMask(["upper", "left"]), x)[:, 0, 0, 9].long()
    )
    assert set(chosen.tolist()) == {2, 3}
    assert float((chosen == 2).double().mean()) == pytest.approx(0.5, abs=0.1)


def test_outpainting_knows_a_rectangle_in_the_middle() -> None:
    mask = of(OutpaintingMask(0.5, 0.5), torch.zeros(1, 1, 8, 12))[0, 0]
    assert mask[2:6, 3:9].sum() == mask.sum() == 24
    masks = of(OutpaintingMask(0.25, 1.0), torch.zeros(500, 1, 8, 8)).long()
    heights, widths = masks.amax(3).sum((1, 2)), masks.amax(2).sum((1, 2))
    assert torch.equal(heights * widths, masks.sum((1, 2, 3)))
    assert (int(heights.min()), int(heights.max()), int(widths.min()), int(widths.max())) == (2, 8, 2, 8)
    assert masks[:, 0, 3:5, 3:5].min() == 1


def test_pixels_are_hidden_independently() -> None:
    masks = of(PixelMask(0.3, 0.3), torch.zeros(200, 1, 16, 16)).double()
    assert float(masks.mean()) == pytest.approx(0.7, abs=0.01)
    beside = (masks[..., 1:] * masks[..., :-1]).mean()
    assert float(beside) == pytest.approx(0.49, abs=0.01)
    shares = of(PixelMask(0.1, 0.9), torch.zeros(200, 1, 16, 16)).double().mean((1, 2, 3))
    assert (float(shares.min()), float(shares.max())) == pytest.approx((0.1, 0.9), abs=0.06)


def test_a_stroke_covers_what_pillow_draws() -> None:
    start, end, radius = torch.tensor([[[6.0, 9.0]]]), torch.tensor([[[40.0, 22.0]]]), torch.tensor([[3.0]])
    hidden = under(start, end, radius, 32, 48)[0]
    fine = 8
    image = Image.new("L", (48 * fine, 32 * fine))
    draw = ImageDraw.Draw(image)
    (a, b), (c, d) = ((fine * each[0, 0]).tolist() for each in (start, end))
    draw.line((a, b, c, d), 255, 6 * fine)
    for x, y in ((a, b), (c, d)):
        draw.ellipse((x - 3 * fine, y - 3 * fine, x + 3 * fine, y + 3 * fine), 255)
    share = torch.from_numpy(np.asarray(image).reshape(32, fine, 48, fine).mean((1, 3)) / 255)
    assert not (hidden & (share < 0.2)).any()
    assert hidden[share > 0.8].all()
    masks = of(StrokeMask(), torch.zeros(300, 1, 32, 32)).double()
    share = 1 - masks.mean((1, 2, 3))
    assert 0.1 < float(share.mean()) < 0.4
    assert float(share.min()) > 0
    assert float((1 - masks).mean(0).min()) > 0.05
    thicker = 1 - of(StrokeMask(low=0.4, high=0.4), torch.zeros(300, 1, 32, 32)).double().mean()
    assert float(thicker) > 1.5 * float(share.mean())


def test_a_chain_applies_its_steps_in_turn_to_any_field() -> None:
    x = photos(3)
    small, worse = Downscale(2), JPEG(20, 20)
    chain = Chain([small, worse], field="other")
    assert torch.equal(of(chain, torch.zeros_like(x), other=x), of(worse, of(small, x)))
    twice = of(Chain([PixelMask(), Copy()]), x)
    generators = Generators.from_seeds(range(3)).at("step", 0)
    assert torch.equal(twice, PixelMask()({"x": x}, generators))
    with pytest.raises(ValueError, match="name at least one"):
        Chain([])


RANDOM = [BoxMask(), HalfMask(["upper", "lower"]), OutpaintingMask(0.1, 0.9), PixelMask(), StrokeMask(), JPEG(5, 95)]
RANDOM += [Blur(0.5, 2.0), ColourJitter(), Chain([Blur(0.5, 2.0), BicubicDownscale(2), JPEG(5, 95)])]


@pytest.mark.parametrize("derive", RANDOM, ids=lambda each: type(each).__name__)
def test_a_random_degradation_depends_on_the_stream_of_its_sample_alone(derive: Derive) -> None:
    x = photos(1).expand(6, -1, -1, -1)
    whole = of(derive, x)
    alone = derive({"x": x[:1]}, Generators.from_seeds([4]))
    assert torch.equal(whole[4:5], alone)
    assert len(whole.flatten(1).unique(dim=0)) > 1


@pytest.mark.parametrize(
    ("derive", "x", "message"),
    [
        (
            Grey(),
            photos(1, 1),
            r"Grey needs images of 3 channels, not data of shape \[1, 32, 48\]: choose",
        ),
        (JPEG(5, 5), photos(1).float(), "JPEG needs images of 8 bits, because others have no known range"),
        (Edges(), photos(1, 1)[:, :, 0], "Edges needs images of 1 or 3 channels"),
        (ColourJitter(), photos(1).float(), "ColourJitter needs images of 8 bits"),
        (StrokeMask(), torch.zeros(1, 2), "StrokeMask needs images, not data of shape"),
        (Blur(1, 9), photos(1), "Blur of 9 pixels needs images of more than 36 pixels"),
        (BicubicDownscale(5), photos(1), "BicubicDownscale of factor 5 needs images whose sides it divides"),
    ],
)
def test_data_that_cannot_be_degraded_are_refused(derive: Derive, x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of(derive, x)


@pytest.mark.parametrize("kind", [Blur, JPEG, OutpaintingMask, PixelMask, StrokeMask])
def test_a_range_that_is_upside_down_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="swap the two values"):
        kind(low=1, high=0.5)


def test_the_protocol_has_what_was_derived() -> None:
    derive = {"image": Chain([Downscale(2), JPEG(20, 20)])}
    data = Digits([1, 8, 8], 10, 32, derive=derive)
    evaluation = Evaluation(NoFeatures(), {"rmse": RootMeanSquareError()})
    evaluation.measure([data.splits["validation"]["x"]], data)
    where = "inkdrop.data.degradations"
    steps = f"[{where}.Downscale [('factor', 2)], {where}.JPEG [('high', 20), ('low', 20)]]"
    expected = f"{where}.Chain [('field', 'x'), ('steps', {steps})]"
    assert evaluation.protocol(data, {})["measurement"]["derive"] == {"image": expected}
    plain = Digits([1, 8, 8], 10, 32)
    evaluation.measure([plain.splits["validation"]["x"]], plain)
    assert "derive" not in evaluation.protocol(plain, {})["measurement"]
    assert (
        data.fingerprint == Digits([1, 8, 8], 10, 32, derive={"image": Chain([Downscale(2), JPEG(20, 20)])}).fingerprint
    )


def test_a_jpeg_of_one_image_is_a_file_that_pillow_reads() -> None:
    stream = io.BytesIO()
    x = photos(1)
    as_pil(x[0]).save(stream, "JPEG", quality=40)
    assert torch.equal(of(JPEG(40, 40), x)[0], from_pil(Image.open(stream)))
