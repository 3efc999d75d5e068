"""Conditions, their dropout and what users may ask for."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from analytic import SCHEDULES
from choices import composed
from torch import Tensor, nn

from inkdrop.callbacks.pictures import conditions
from inkdrop.conditioners import Attributes, Combined, Conditioner, Image, Label, Masked, Unconditional
from inkdrop.configuration import build
from inkdrop.denoiser import Condition, Denoiser, Estimate
from inkdrop.denoiser.self_conditioned import SelfConditioned
from inkdrop.guidance import ClassifierFree
from inkdrop.networks import UNet
from inkdrop.noises import Gaussian
from inkdrop.predictions import DataPrediction
from inkdrop.randomness import Generators
from inkdrop.schedules import Point


def test_labels_become_vectors_and_some_are_dropped_in_training() -> None:
    conditioner = Label(3, 4, dropout=0.3)
    batch = {"label": torch.arange(3).repeat(2000)}
    table = conditioner.embedding.weight
    assert torch.equal(conditioner(batch)["vector"], table[batch["label"]])
    dropped = (conditioner(batch, Generators.from_seeds(range(6000)))["vector"] == table[3]).all(1)
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.02)
    again = conditioner({"label": batch["label"][[7, 3]]}, Generators.from_seeds([7, 3]))["vector"]
    assert torch.equal((again == table[3]).all(1), dropped[[7, 3]])


def test_null_is_what_dropout_gives() -> None:
    conditioner = Label(3, 4, dropout=1.0)
    batch = {"label": torch.tensor([0, 2])}
    null = conditioner.null(batch)
    assert torch.equal(null["vector"], conditioner(batch, Generators.from_seeds([0, 1]))["vector"])
    assert not torch.equal(null["vector"], conditioner(batch)["vector"])


@pytest.mark.parametrize(("label", "expected"), [(None, [0, 1, 2, 0]), (2, [2, 2, 2, 2]), ([1, 0], [1, 0, 1, 0])])
def test_requests_follow_the_seeds(label: Any, expected: list[int]) -> None:
    assert Label(3, 4).request(range(4), label=label)["label"].tolist() == expected


@pytest.mark.parametrize("label", [3, -1, "a", [0, 3], [], True, 1.5])
def test_unknown_classes_are_refused(label: Any) -> None:
    with pytest.raises(ValueError, match="0 to 2"):
        Label(3, 4).request([0], label=label)


def test_unknown_conditions_are_refused() -> None:
    with pytest.raises(ValueError, match="text"):
        Label(3, 4).request([0], text="a cat")
    with pytest.raises(ValueError, match="label"):
        Unconditional().request([0], label=1)
    assert Unconditional().request([0, 1]) == {}


class Words(Conditioner):
    """Tokens, some without a mask."""

    def __init__(self, name: str, masked: bool):
        super().__init__()
        self.names, self.masked = (name,), masked

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        tokens = batch[self.names[0]]
        return {"tokens": tokens} | ({"mask": tokens[:, :, 0] > 0} if self.masked else {})

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        return {}


def one_hot(name: str, dropout: float = 0.1) -> Label:
    """Class k of 2 is the k-th unit vector of 6 for one name and the third from it for the other; none is the next."""
    label = Label(2, 6, dropout, name)
    with torch.no_grad():
        label.embedding.weight.copy_(torch.eye(6)[:3] if name == "label" else torch.eye(6)[3:])
    return label


def two(dropout: float = 0.0, each: float = 0.1) -> Combined:
    return Combined({"a": one_hot("label", each), "b": one_hot("colour", each)}, dim=6, dropout=dropout)


BOTH = {"label": torch.tensor([0, 1]), "colour": torch.tensor([1, 0])}


def test_attributes_are_mapped_dropped_and_null() -> None:
    conditioner = Attributes(3, 4, dropout=0.3)
    first, last = conditioner.map[0], conditioner.map[2]
    numbers = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.0, 1.0]], dtype=torch.float64)
    h = numbers @ first.weight.T.double() + first.bias.double()  # type: ignore[operator, union-attr]
    expected = (h / (1 + torch.exp(-h))) @ last.weight.T.double() + last.bias.double()  # type: ignore[operator, union-attr]
    assert torch.allclose(conditioner({"attributes": numbers})["vector"].double(), expected, atol=1e-6)
    null = conditioner.null({"attributes": numbers})["vector"]
    assert torch.equal(null, conditioner.absent.expand(2, 4))
    many = conditioner({"attributes": torch.ones(6000, 3)}, Generators.from_seeds(range(6000)))["vector"]
    dropped = (many == conditioner.absent).all(1)
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(many[~dropped][:1], conditioner({"attributes": torch.ones(1, 3)})["vector"])


def test_several_labels_are_attributes_of_whole_numbers_and_one_number_needs_no_axis() -> None:
    conditioner = Attributes(2, 4)
    labels = torch.tensor([[1, 0], [1, 1]], dtype=torch.uint8)
    assert torch.equal(
        conditioner({"attributes": labels})["vector"], conditioner({"attributes": labels.float()})["vector"]
    )
    age = torch.tensor([0.5, 2.0])
    single = Attributes(1, 4, name="age")
    assert torch.equal(single({"age": age})["vector"], single({"age": age[:, None]})["vector"])


def test_every_weight_of_attributes_has_a_gradient_without_dropout() -> None:
    conditioner = Attributes(2, 4, dropout=0.0)
    conditioner({"attributes": torch.ones(3, 2)}, Generators.from_seeds(range(3)))["vector"].sum().backward()
    assert all(weight.grad is not None for weight in conditioner.parameters())


def test_attributes_of_requests_are_taken_in_turn() -> None:
    conditioner = Attributes(2, 4, name="size")
    assert conditioner.request([0, 1], size=[1, 0.5])["size"].tolist() == [[1.0, 0.5]] * 2
    rows = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert conditioner.request([4, 0, 2], size=rows)["size"].tolist() == [rows[1], rows[0], rows[2]]


def kelvin() -> Attributes:
    """Fitted to temperatures of 200 to 400 K, and to a number that is always 7."""
    conditioner = Attributes(2, 6, name="state")
    batches = torch.stack([torch.linspace(200, 400, 101), torch.full((101,), 7.0)], dim=1).split(40)
    Combined({"a": conditioner, "b": one_hot("label", 0.0)}, dim=6).fit(
        lambda size, names=None: [{"state": each} for each in batches if "state" in (names or [])]
    )
    return conditioner


def test_attributes_in_their_own_unit_are_standardised_by_the_training_data() -> None:
    conditioner = kelvin()
    scale = 200 * math.sqrt(102 / (12 * 100))  # standard deviation of 101 even steps
    assert conditioner.mean.tolist() == pytest.approx([300, 7])
    assert conditioner.std.tolist() == pytest.approx([scale, 1])
    plain = Attributes(2, 6, name="state")
    plain.map, plain.absent = conditioner.map, conditioner.absent
    seen = conditioner({"state": torch.tensor([[300 + scale, 7.0], [200.0, 8.0]])})["vector"]
    assert torch.allclose(seen, plain({"state": torch.tensor([[1.0, 0.0], [-100 / scale, 1.0]])})["vector"], atol=1e-6)
    assert {"mean", "std", "lowest", "highest"} < set(conditioner.state_dict())


def test_attributes_that_the_data_do_not_hold_stay_as_they_are() -> None:
    conditioner = Attributes(1, 4)
    conditioner.fit(lambda size, names=None: [])
    assert (conditioner.mean.item(), conditioner.std.item()) == (0, 1)
    conditioner.request([0], attributes=[1e30])  # no warning: no range is known


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ([400.5, 7], r"number 1 of condition.state=\[400.5, 7\] .* the training data, 200 to 400"),
        ([200, 6], r"number 2 of condition.state=\[200, 6\] .* the training data, 7 to 7"),
        ([[300, 7], [100, 7], [500, 7]], r"=\[100, 7\] .*, and 1 more"),
        ([400, 7], None),
    ],
)
def test_requests_outside_of_the_training_data_are_named(state: Any, words: str | None) -> None:
    with pytest.warns(UserWarning, match=words) if words else contextlib.nullcontext():
        kelvin().request(range(3), state=state)


@pytest.mark.parametrize("size", [None, 1.0, [1.0], [1.0, 2.0, 3.0], [[1.0, 2.0], [3.0]], ["a", "b"], [], [[]], "ab"])
def test_attributes_that_do_not_fit_are_refused(size: Any) -> None:
    with pytest.raises(ValueError, match=r"condition.size=.* must be 2 numbers"):
        Attributes(2, 4, name="size").request([0], **({} if size is None else {"size": size}))
    with pytest.raises(ValueError, match="num_attributes=2"):
        Attributes(2, 4)({"attributes": torch.ones(3, 5)})


def test_data_without_the_condition_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="the data have no size"):
        Attributes(2, 4, name="size")({"x": torch.ones(1)})


@pytest.mark.slow
def test_parts_drop_out_independently_of_each_other_and_together() -> None:
    n = 20000
    batch = {"label": torch.zeros(n, dtype=torch.long), "colour": torch.zeros(n, dtype=torch.long)}
    vector = two(each=0.3)(batch, Generators.from_seeds(range(n)))["vector"]
    no_label, no_colour = vector[:, 2] == 1, vector[:, 5] == 1
    assert no_label.double().mean().item() == pytest.approx(0.3, abs=0.015)
    assert no_colour.double().mean().item() == pytest.approx(0.3, abs=0.015)
    assert (no_label & no_colour).double().mean().item() == pytest.approx(0.09, abs=0.01)

    conditioner = two(dropout=0.2, each=0.1)
    vector = conditioner(batch, Generators.from_seeds(range(n)))["vector"]
    no_label, no_colour = vector[:, 2] == 1, vector[:, 5] == 1
    assert conditioner.dropouts == pytest.approx({"label": 0.28, "colour": 0.28})
    assert conditioner.empties(["label"])
    assert two(dropout=0.2, each=0.0).empties(["label", "colour"])
    assert not two(dropout=0.2, each=0.0).empties(["label"])  # never alone
    assert no_label.double().mean().item() == pytest.approx(0.28, abs=0.015)
    assert (no_label & no_colour).double().mean().item() == pytest.approx(0.2 + 0.8 * 0.01, abs=0.015)


def test_a_combined_vector_is_the_sum_and_a_partial_null_changes_its_part_alone() -> None:
    label, colour = torch.eye(6)[[0, 1]], torch.eye(6)[[4, 3]]
    no_label, no_colour = torch.eye(6)[[2, 2]], torch.eye(6)[[5, 5]]
    conditioner = two(dropout=1.0)
    assert torch.equal(conditioner(BOTH)["vector"], label + colour)
    assert torch.equal(conditioner.null(BOTH)["vector"], no_label + no_colour)
    assert torch.equal(conditioner(BOTH, Generators.from_seeds([0, 1]))["vector"], no_label + no_colour)
    assert torch.equal(conditioner.null(BOTH, ["colour"])["vector"], label + no_colour)
    with pytest.raises(ValueError, match="shape is not a condition"):
        conditioner.null(BOTH, ["shape"])


def test_tokens_follow_each_other_with_their_masks() -> None:
    batch = {"a": torch.randn(2, 3, 4), "b": torch.randn(2, 2, 4)}
    cond = Combined({"a": Words("a", masked=True), "b": Words("b", masked=False)}, dim=0)(batch)
    assert torch.equal(cond["tokens"], torch.cat([batch["a"], batch["b"]], dim=1))
    assert torch.equal(cond["mask"], torch.cat([batch["a"][:, :, 0] > 0, torch.ones(2, 2, dtype=torch.bool)], dim=1))
    assert set(Combined({"b": Words("b", masked=False)}, dim=0)(batch)) == {"tokens"}


def test_parts_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"conditioner.parts.b.dim=5 differs from conditioner.dim=6: vectors are"):
        Combined({"a": Label(2, 6), "b": Label(2, 5, name="colour")}, dim=6)
    with pytest.raises(ValueError, match="two parts of the conditioner read label"):
        Combined({"a": Label(2, 6), "b": Label(2, 6)}, dim=6)


def test_requests_of_combined_conditions_reach_their_parts() -> None:
    batch = two().request([0, 1, 2], colour=1)
    assert batch["label"].tolist() == [0, 1, 0]
    assert batch["colour"].tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"condition.text is unknown: .* condition.label and condition.colour"):
        two().request([0], text="a")


def test_classifier_free_guidance_may_empty_one_of_two_conditions() -> None:
    """With D = vector, D_u + w (D_c - D_u) leaves the label as it is and weighs the colour."""

    class Told(Denoiser):
        schedule, noise = SCHEDULES["vp"], Gaussian()

        def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
            return Estimate(cond["vector"].to(x_t.dtype), {})

    pipeline: Any = SimpleNamespace(conditioner=two())
    guided = ClassifierFree(scale=3.0, names=["colour"])(Told(), pipeline, BOTH)
    x_0 = guided(torch.randn(2, 6), Told.schedule.points([0.5])[0], two()(BOTH)).x_0
    expected = torch.eye(6)[[0, 1]] + 3 * torch.eye(6)[[4, 3]] - 2 * torch.eye(6)[[5, 5]]
    assert torch.allclose(x_0, expected, atol=1e-6)
    with pytest.raises(ValueError, match="never trained without colour alone"):
        ClassifierFree(scale=3.0, names=["colour"])(Told(), SimpleNamespace(conditioner=two(each=0.0)), BOTH)  # type: ignore[arg-type]


def test_an_image_lies_beside_x_with_a_channel_that_says_so() -> None:
    conditioner = Image([1, 4, 4], 3, dropout=0.3)
    image = torch.tensor([[0, 255], [51, 102]], dtype=torch.uint8).expand(1, 2, 2, 2)
    concat = conditioner({"image": image})["concat"]
    corners = torch.tensor([[-1.0, 1.0], [-0.6, -0.2]])
    expected = corners.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.allclose(concat[0, 0], expected, atol=1e-6)
    assert torch.equal(concat[0, 1], concat[0, 0])
    assert torch.equal(concat[0, 2], torch.ones(4, 4))
    assert torch.equal(conditioner.null({"image": image})["concat"], torch.zeros(1, 3, 4, 4))
    floats = torch.full((1, 2, 4, 4), 7.0)
    assert torch.equal(conditioner({"image": floats})["concat"][:, :2], floats)

    grey = torch.zeros(6000, 2, 4, 4)
    dropped = conditioner({"image": grey}, Generators.from_seeds(range(6000)))["concat"][:, 2] == 0
    assert torch.equal(dropped.flatten(1).all(1), dropped.flatten(1).any(1))
    assert dropped[:, 0, 0].float().mean().item() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("sizes", [[8], [4, 4, 4]])
def test_series_and_volumes_are_images(sizes: list[int]) -> None:
    small = torch.randn(2, 1, *[size // 2 for size in sizes])
    expected = small
    for axis in range(2, small.ndim):
        expected = expected.repeat_interleave(2, axis)
    assert torch.equal(Image([3, *sizes], 2)({"image": small})["concat"][:, :1], expected)


def test_images_of_requests_are_files_taken_in_turn(tmp_path: Path) -> None:
    levels = np.array([[0, 255], [51, 102]], np.uint8)
    PIL.Image.fromarray(levels).save(tmp_path / "a.png")
    series = np.random.default_rng(0).normal(size=(2, 1, 4, 4))
    np.save(tmp_path / "two.npy", series)
    np.savez(tmp_path / "one.npz", anything=series[1])
    conditioner = Image([1, 4, 4], 2)
    names = [str(tmp_path / name) for name in ("a.png", "two.npy", "one.npz")]
    image = conditioner.request([0, 1, 2, 3, 4], image=names)["image"]
    first = torch.from_numpy(levels).float().repeat_interleave(2, 0).repeat_interleave(2, 1) / 127.5 - 1
    assert torch.equal(image[0, 0], first)
    assert torch.equal(image[1:4], torch.from_numpy(series[[0, 1, 1]]).float())
    assert torch.equal(image[4], image[0])
    assert torch.equal(conditioner.request([5], image=names[0])["image"], image[:1])
    colours = np.stack([levels, levels.T, 255 - levels], axis=2)
    PIL.Image.fromarray(colours).save(tmp_path / "colours.png")
    image = Image([1, 2, 2], 4).request([0], image=str(tmp_path / "colours.png"))["image"]
    assert torch.equal(image[0], torch.from_numpy(colours).permute(2, 0, 1).float() / 127.5 - 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"no image", "cannot be read"),
        (np.zeros((1, 16, 16), np.float32), r"of size \[16, 16\] is larger than the samples, \[4, 4\]"),
        (np.zeros((3, 4, 4), np.float32), r"shape \[3, 4, 4\], but must have 1 channels in 2 dimensions"),
        (np.zeros((4, 4), np.float32), "must have 1 channels"),
        (np.zeros((1, 4, 4), np.int64), "holds int64"),
        (np.full((1, 4, 4), np.nan), "not finite"),
        (np.array([{}]), "cannot be read"),
    ],
)
def test_files_that_hold_no_such_image_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / ("x.png" if isinstance(content, bytes) else "x.npy")
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        np.save(file, content)
    with pytest.raises(ValueError, match=f"condition.image=.*{file.name}.*{message}"):
        Image([1, 4, 4], 2).request([0], image=str(file))


def test_pictures_of_more_than_8_bits_and_words_that_are_no_file_are_refused(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="more than 8 bits"):
        Image([1, 4, 4], 2).request([0], image=str(tmp_path / "deep.png"))
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(ValueError, match="holds 2 arrays, a, b"):
        Image([1, 4, 4], 2).request([0], image=str(tmp_path / "two.npz"))
    for words in (None, 3, [], [1]):
        with pytest.raises(ValueError, match="must be a file, or a list of files"):
            Image([1, 4, 4], 2).request([0], image=words)
    with pytest.raises(ValueError, match=r"conditioner.concat_channels=0, but its parts have 2"):
        Combined({"image": Image([1, 4, 4], 2)}, dim=0)


def test_training_adds_noise_to_an_image_and_tells_its_level() -> None:
    conditioner = Image([1, 4, 4], 3, dropout=0.25, noise=0.6)
    assert conditioner.names == ("image", "image_noise")
    image = torch.full((4000, 1, 2, 2), 255, dtype=torch.uint8)
    concat = conditioner({"image": image}, Generators.from_seeds(range(4000)))["concat"]
    there = concat[:, 1, 0, 0] == 1
    assert there.float().mean() == pytest.approx(0.75, abs=0.03)
    assert (concat[~there] == 0).all()
    level, pixels = concat[there, 2, 0, 0], concat[there, 0, ::2, ::2].flatten(1)
    assert (level.min(), level.max(), level.mean()) == pytest.approx((0, 0.6, 0.3), abs=0.02)
    assert torch.equal(concat[:, 0, ::2, ::2], concat[:, 0, 1::2, 1::2])  # noise is in the small image
    eps = (pixels - (1 - level[:, None] ** 2).sqrt()) / level[:, None].clamp(min=1e-3)
    assert (eps.mean(), eps.std()) == pytest.approx((0, 1), abs=0.04)
    plain = conditioner({"image": image[:1]})["concat"]
    assert torch.equal(plain[0, :, 0, 0], torch.tensor([1.0, 1.0, 0.0]))
    assert torch.equal(conditioner.null({"image": image[:1]})["concat"], torch.zeros(1, 3, 4, 4))


def test_sampling_chooses_the_noise_of_an_image() -> None:
    conditioner = Image([1, 4, 4], 3, noise=0.6)
    image = torch.rand(3, 1, 2, 2)
    together = conditioner.request([5, 6, 7], image=image, image_noise=0.3)
    alone = conditioner.request([6], image=image[1:2], image_noise=0.3)
    assert torch.equal(together["image"][1:2], alone["image"])
    assert not torch.allclose(together["image"], image)
    assert torch.equal(conditioner.request([5, 6, 7], image=image)["image"], image)
    for wrong in (0.7, -0.1, "much"):
        with pytest.raises(ValueError, match=r"condition.image_noise=.* must be from 0 to 0.6, the largest level"):
            conditioner.request([5], image=image[:1], image_noise=wrong)
    with pytest.raises(ValueError, match=r"condition.image has 3 rows for 2 samples"):
        conditioner.request([1, 2], image=image)
    with pytest.raises(ValueError, match="concat_channels=2 must be the channels of the image plus 2"):
        Image([1, 4, 4], 2, noise=0.5)


@pytest.mark.parametrize(("enlargement", "mode"), [("linear", "bilinear"), ("cubic", "bicubic")])
def test_images_are_enlarged_as_chosen(enlargement: Any, mode: str) -> None:
    image = torch.rand(2, 1, 3, 3)
    concat = Image([1, 6, 6], 2, enlargement=enlargement)({"image": image})["concat"][:, :1]
    assert torch.equal(concat, torch.nn.functional.interpolate(image, [6, 6], mode=mode))


def test_known_elements_and_their_mask_are_one_condition() -> None:
    conditioner = Masked([1, 2, 2], 2, dropout=0.5)
    known = torch.tensor([[0, 255], [51, 102]], dtype=torch.uint8).expand(1000, 1, 2, 2)
    mask = torch.tensor([[1, 0], [0, 255]], dtype=torch.uint8).expand(1000, 1, 2, 2)
    batch = {"known": known, "mask": mask}
    expected = torch.tensor([[[-1.0, 0.0], [0.0, -0.2]], [[1.0, 0.0], [0.0, 1.0]]])
    assert torch.allclose(conditioner(batch)["concat"][0], expected)
    assert (conditioner.null(batch)["concat"] == 0).all()
    dropped = conditioner(batch, Generators.from_seeds(range(1000)))["concat"].flatten(1).abs().sum(1) == 0
    assert dropped.float().mean() == pytest.approx(0.5, abs=0.05)
    with pytest.raises(ValueError, match=r"mask has the shape \[1, 4, 4\], and this model needs \[1, 2, 2\]"):
        conditioner({"known": known[:1], "mask": torch.ones(1, 1, 4, 4)})
    with pytest.raises(ValueError, match="concat_channels=3 must be 2"):
        Masked([1, 2, 2], 3)


def test_a_unet_takes_an_image_beside_its_own_last_estimate() -> None:
    """Both are read: the estimate changes with the image, and with what the denoiser remembers."""
    torch.manual_seed(0)
    network = UNet([1, 4, 4], 8, [1], 1, [], norm_groups=4, concat_channels=2, shown_channels=1)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.3)
    denoiser = SelfConditioned(network, SCHEDULES["vp"], DataPrediction(), shown_channels=1)
    conditioner, x_t, now = Image([1, 4, 4], 2), torch.randn(1, 1, 4, 4), denoiser.schedule.points([0.5])[0]
    cond = conditioner({"image": torch.ones(1, 1, 2, 2)})
    other = conditioner({"image": -torch.ones(1, 1, 2, 2)})
    run = denoiser.begin()
    first = run(x_t, now, cond).x_0
    assert not torch.allclose(run(x_t, now, cond).x_0, first)
    assert not torch.allclose(denoiser(x_t, now, other).x_0, first)
    assert torch.equal(denoiser(x_t, now, cond).x_0, first)


def test_pictures_in_training_show_held_out_conditions_where_only_a_user_could_say_them() -> None:
    rows = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    held_out = {"x": torch.zeros(3, 1), "label": torch.tensor([1, 1, 1]), "size": rows}

    def shown(conditioner: Conditioner) -> dict[str, Tensor]:
        pipeline = SimpleNamespace(request=conditioner.request, names=conditioner.names)
        return conditions(pipeline, range(5), held_out)  # type: ignore[arg-type]

    assert torch.equal(shown(Attributes(2, 4, name="size"))["size"], rows[[0, 1, 2, 0, 1]])
    assert shown(Label(2, 4))["label"].tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("network", ["unet", "ddpmpp", "ncsnpp", "edm2", "dit"])
def test_networks_are_built_for_an_image_beside_the_last_estimate(network: str) -> None:
    plain = composed([f"network={network}", "conditioner=image", "denoiser=self_conditioned"])
    pipeline = build(plain["pipeline"])
    cond = pipeline.conditioner({"image": torch.zeros(1, 1, 4, 4)})
    pipeline.denoiser(torch.zeros(1, 1, 8, 8), pipeline.denoiser.schedule.points([0.5])[0], cond)
    assert pipeline.network.doors["concat"] == 2 + 1


class Hinted(Conditioner):
    """A door of another name, and noise that training adds to what it reads."""

    def __init__(self, name: str, door: str = "hint"):
        super().__init__()
        self.names, self.door = (name,), door

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        return {self.door: batch[self.names[0]]}

    def vary(self, batch: Mapping[str, Tensor], generators: Generators) -> Mapping[str, Tensor]:
        (name,) = self.names
        return {**batch, name: batch[name] + generators.at("vary").uniform((1,)).float()}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        raise ValueError("only a user can name it")

    def example(self, count: int) -> dict[str, Tensor]:
        return {self.names[0]: torch.zeros(count, 1)}


def test_training_varies_what_a_conditioner_reads_and_sampling_does_not() -> None:
    batch, generators = {"a": torch.zeros(3, 1), "b": torch.zeros(3, 1)}, Generators.from_seeds(range(3))
    both = Combined({"first": Hinted("a"), "second": Hinted("b", "other")}, dim=0)
    assert torch.equal(both(batch)["hint"], torch.zeros(3, 1))
    varied = both(batch, generators)
    assert varied["hint"].min() > 0
    assert not torch.isclose(varied["hint"], varied["other"]).any()
    assert torch.equal(batch["a"], torch.zeros(3, 1))
    alone = both({name: value[1:2] for name, value in batch.items()}, Generators.from_seeds([1]))
    assert torch.equal(alone["hint"], varied["hint"][1:2])


def test_doors_of_other_names_are_passed_on_and_two_of_one_name_are_refused() -> None:
    batch = {"a": torch.ones(2, 1), "b": torch.ones(2, 1), "label": torch.tensor([0, 1])}
    mixed = Combined({"first": Hinted("a"), "label": one_hot("label", 0.0)}, dim=6)
    assert set(mixed(batch)) == {"hint", "vector"}
    twice = Combined({"first": Hinted("a"), "second": Hinted("b")}, dim=0)
    with pytest.raises(ValueError, match="two parts of the conditioner make hint, which cannot be joined"):
        twice(batch)


def test_examples_need_no_words_of_a_user() -> None:
    parts = {"a": Attributes(2, 6, name="size"), "b": one_hot("label", 0.0), "c": Hinted("a")}
    batch = Combined(parts, dim=6).example(3)
    assert {name: tuple(value.shape) for name, value in batch.items()} == {"size": (3, 2), "label": (3,), "a": (3, 1)}
    assert Image([3, 8, 8], 2).example(2)["image"].shape == (2, 1, 8, 8)


def test_tokens_of_another_width_are_refused() -> None:
    part = Hinted("a")
    part.token_dim = 32
    with pytest.raises(ValueError, match=r"parts\.a\.token_dim=32 differs from conditioner\.token_dim=64"):
        Combined({"a": part}, dim=0, token_dim=64)
    assert Combined({"a": part}, dim=0, token_dim=32).token_dim == 32
