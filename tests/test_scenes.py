"""Scenes: what they contain is what their captions say, their pixels follow from it, and four pairs are kept out."""

from __future__ import annotations

import math

import pytest
import torch

from inkdrop.data import Scenes, drawing, scenes
from inkdrop.data.contents import SEEN_PAIRS, UNSEEN_PAIRS, Contents, contents, described
from inkdrop.data.degradations import Downscale
from inkdrop.data.drawing import STYLES, coverage
from inkdrop.files.texts import decoded
from inkdrop.randomness import Generators


def drawn(**fields: str) -> Scenes:
    names = {"x": "picture", **{name: name for name in fields}, **fields}
    return Scenes(names, [3, 16, 16], 0, 16, num_scenes=200, num_held_out=60)


def pairs(captions: list[str]) -> set[str]:
    """Every colour with its shape, as in "red circle"."""
    words = [caption.split() for caption in captions]
    return {" ".join(each[i + 1 : i + 3]) for each in words for i, word in enumerate(each) if word == "a"}


def test_objects_have_the_areas_and_centres_of_their_shapes() -> None:
    half = torch.tensor([2.6, 3.0, 3.3], dtype=torch.float64)
    shapes = torch.arange(4).repeat_interleave(3)
    centres = torch.tensor([[4.3, 9.1]], dtype=torch.float64).expand(12, 2)
    shares = coverage(shapes, centres, half.repeat(4)).double()
    areas = torch.stack([math.pi * half**2, (1.76 * half) ** 2, 1.9 * half**2, (2 * 1.2 - 0.36) * half**2])
    assert shares.sum((1, 2)).reshape(4, 3) == pytest.approx(areas, rel=0.03)
    middles = torch.arange(16) + 0.5
    x = (shares.sum(1) @ middles.double()) / shares.sum((1, 2))
    y = (shares.sum(2) @ middles.double()) / shares.sum((1, 2))
    assert x == pytest.approx(torch.full((12,), 4.3), abs=0.05)
    low = torch.where(shapes == 2, 9.1 + 1.9 * half.repeat(4) / 6, 9.1)  # a triangle's is a third above its base
    assert y == pytest.approx(low, abs=0.07)
    assert coverage(torch.tensor([-1]), centres[:1], half[:1]).sum() == 0


def test_scenes_obey_their_captions() -> None:
    train = contents(1, 3000, unseen=False)
    captions = train.captions()
    again = described(captions)
    for name in ("colours", "shapes", "relation", "number"):
        assert torch.equal(getattr(again, name), getattr(train, name))
    two = train.relation >= 0
    assert float(two.double().mean()) == pytest.approx(0.75, abs=0.03)
    assert (train.colours[two, 0] != train.colours[two, 1]).all()
    gap = train.centres[:, 1] - train.centres[:, 0]
    for relation, side in enumerate((gap[:, 0], -gap[:, 0], gap[:, 1], -gap[:, 1])):
        assert (train.relation == relation).sum() > 400
        assert (side[train.relation == relation] > train.halves.sum(1)[train.relation == relation]).all()
    shares = drawing.covered(train)
    assert float(shares.sum(1).max()) <= 1
    area = shares.flatten(2).sum(2)[two]
    assert float(area.min()) > 12


def test_four_pairs_are_in_every_scene_of_unseen_and_in_no_other() -> None:
    splits = drawn(caption="caption", edited_caption="edited_caption").splits
    held = {"red triangle", "blue cross", "green circle", "yellow square"}
    for name in ("train", "validation"):
        for field in ("caption", "edited_caption"):
            assert not pairs(decoded(splits[name][field][torch.arange(60)])) & held
    captions = decoded(splits["unseen"]["caption"][torch.arange(60)])
    assert all(pairs([caption]) & held for caption in captions)
    assert pairs(captions) > held
    many = contents(3, 2000, unseen=True)
    first, second = (UNSEEN_PAIRS[4 * many.colours[:, k] + many.shapes[:, k]] for k in (0, 1))
    two = many.relation >= 0
    assert float(first[two].double().mean()) == pytest.approx(0.5, abs=0.05)
    assert (first ^ second)[two].all()
    assert len(pairs(contents(1, 3000, unseen=False).captions())) == int(SEEN_PAIRS.sum()) == 20


def test_a_longer_set_begins_with_a_shorter_one_and_seeds_differ() -> None:
    long, short, other = contents(1, 50, False), contents(1, 20, False), contents(2, 20, False)
    assert long.captions()[:20] == short.captions() != other.captions()
    assert torch.equal(drawing.covered(long)[:20], drawing.covered(short))
    assert drawn().fingerprint == drawn().fingerprint


@pytest.mark.parametrize("name", STYLES)
def test_a_picture_is_ground_and_colours_in_the_shares_of_its_pixels(name: str) -> None:
    square = Contents(
        torch.tensor([[2, -1]]),
        torch.tensor([[1, -1]]),
        torch.tensor([-1]),
        torch.tensor([[[8.0, 8.0], [0.0, 0.0]]]),
        torch.tensor([[2.84, 3.0]]),  # 2.5 pixels to each side
        torch.tensor([0.25]),
    )
    style = STYLES[name]
    picture = drawing.pictures(square, drawing.covered(square), style)[0].double()
    ground = (style.low + 0.25 * (style.high - style.low)) * torch.tensor(style.tint).double()
    blue = torch.tensor(style.palette["blue"]).double()
    for row, column, share in ((0, 0, 0), (8, 8, 1), (6, 9, 1), (8, 5, 0.5), (5, 8, 0.5), (5, 10, 0.25)):
        assert picture[:, row, column] == pytest.approx(ground + share * (blue - ground), abs=0.51), (row, column)


def test_further_fields_follow_from_the_same_objects() -> None:
    fields = {kind: kind for kind in scenes._FIELDS}
    items = {name: column[torch.arange(60)] for name, column in drawn(**fields).splits["validation"].items()}
    generators = Generators.from_seeds(range(60))
    assert torch.equal(items["small"], Downscale(2)({"x": items["picture"]}, generators))
    assert torch.equal(items["tiny"], Downscale(4)({"x": items["picture"]}, generators))
    inside = items["mask"] > 0
    assert ((items["outline"] > 0) & ~inside).sum() == 0
    assert ((items["outline"] > 0).sum((1, 2, 3)) < inside.sum((1, 2, 3))).all()
    narrow, wide = items["annotators"][:, :1] > 0, items["annotators"][:, 1:] > 0
    assert torch.equal(narrow, inside)
    assert (wide & ~narrow).flatten(1).any(1).all()
    assert not (narrow & ~wide).any()
    chosen = (items["annotated"] > 0).flatten(1)
    first, second = ((chosen == each.flatten(1)).all(1) for each in (narrow, wide))
    assert (first ^ second).all()
    assert 15 < int(first.sum()) < 45
    grey = items["textured"].double()
    assert float(grey[inside].mean()) == pytest.approx(165, abs=6)
    assert float(grey[~wide].mean()) == pytest.approx(90, abs=3)


def test_an_edit_changes_the_colour_of_one_object_and_nothing_else() -> None:
    names = ("picture", "edited", "unchanged", "caption", "edited_caption", "instruction")
    items = {
        name: column[torch.arange(60)]
        for name, column in drawn(**dict(zip(names, names, strict=True))).splits["unseen"].items()
    }
    untouched = (items["unchanged"] > 0).expand(-1, 3, -1, -1)
    assert torch.equal(items["picture"][untouched], items["edited"][untouched])
    assert (
        ((items["picture"] != items["edited"]).any(1, keepdim=True) & (items["unchanged"] == 0)).flatten(1).any(1).all()
    )
    for before, after, words in zip(*(decoded(items[name]) for name in names[3:]), strict=True):
        _, _, old, shape, new = words.split()
        assert before.replace(f"{old} {shape}", f"{new} {shape}") == after, (before, after, words)
        assert new not in before


def test_the_other_style_shows_the_same_scenes() -> None:
    first = drawn(other_style="other_style").splits["train"]
    other = Scenes({"x": "picture"}, [3, 16, 16], 0, 16, num_scenes=200, num_held_out=60, style="pastel").splits[
        "train"
    ]
    assert torch.equal(first["other_style"][torch.arange(200)], other["x"][torch.arange(200)])


def test_what_is_not_asked_for_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "textured", lambda *_: pytest.fail("drawn"))
    monkeypatch.setattr(scenes, "edits", lambda *_: pytest.fail("drawn"))
    assert set(drawn(caption="caption").splits["train"]) == {"x", "caption"}


def test_fields_and_shapes_that_are_not_available_are_named() -> None:
    with pytest.raises(ValueError, match=r"data\.fields\.image=blurred is not available: choose one of picture, cap"):
        drawn(image="blurred")
    with pytest.raises(ValueError, match=r"data\.fields\.x=caption is not available: choose one of picture, mask"):
        drawn(x="caption")
    with pytest.raises(ValueError, match=r"data\.shape=\[3, 16, 16\] must be \[1, 16, 16\] where data\.fields\.x=mask"):
        drawn(x="mask").verify()
    assert Scenes({"x": "mask"}, None, 0, 16).shape == [1, 16, 16]
    with pytest.raises(ValueError, match=r"does not say what x is: data\.fields\.x=picture"):
        Scenes({"image": "picture"}, [3, 16, 16], 0, 16)
    for wrong in ("a red", "a red circle left of", "a red circle near a blue square", "a pink circle"):
        with pytest.raises(ValueError, match="is not the caption of a scene"):
            described([wrong])
