"""The judge of scenes is right on real scenes, through noise, and says no to captions of other scenes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from inkdrop.data import Digits, Scenes, drawing
from inkdrop.data.contents import COLOURS, SHAPES, Contents, contents, described
from inkdrop.data.drawing import STYLES
from inkdrop.metrics import Evaluation, NoFeatures, SceneEdit, SceneJudge
from inkdrop.metrics.scene_judge import judge, look

COUNT = 300


def pictures(scenes: Contents, style: str = "bright") -> Tensor:
    return drawing.pictures(scenes, drawing.covered(scenes), STYLES[style])


def right(x: Tensor, scenes: Contents, style: str = "bright") -> float:
    return float(judge(look(x, style), scenes).all.double().mean())


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("unseen", [False, True])
def test_real_scenes_are_read_exactly(unseen: bool, style: str) -> None:
    scenes = contents(11, COUNT, unseen)
    x = pictures(scenes, style)
    assert right(x, scenes, style) == 1
    sight = look(x, style)
    there = scenes.colours >= 0
    colours = scenes.colours.clamp(min=0)
    assert torch.equal(sight.present.sum(1), scenes.number)
    shapes = sight.shapes.gather(1, colours)
    assert torch.equal(shapes[there], scenes.shapes[there])
    centres = sight.centres.gather(1, colours[:, :, None].expand(-1, -1, 2))
    error = (centres - scenes.centres)[there & (shapes != 2)].abs().max()
    assert float(error) < 0.35
    assert bool(sight.centres[~sight.present].isnan().all())


def test_noise_does_not_deceive_and_shuffled_captions_are_wrong() -> None:
    scenes = contents(12, 500, False)
    x = pictures(scenes)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    assert right((x + 20 * noise).round().clamp(0, 255).to(torch.uint8), scenes) >= 0.98
    assert right(x.roll(1, 0), scenes) < 0.02
    assert right((128 + 60 * noise).round().clamp(0, 255).to(torch.uint8), scenes) == 0


def test_each_part_of_a_caption_is_judged_by_itself() -> None:
    wanted = described(["a magenta circle left of a cyan square"])
    centres = torch.tensor([[[4.0, 7.0], [11.0, 9.0]]])
    halves = torch.tensor([[3.0, 2.8]])
    x = pictures(Contents(wanted.colours, wanted.shapes, wanted.relation, centres, halves, torch.tensor([0.5])))

    def verdict(caption: str) -> list[bool]:
        found = judge(look(x), described([caption]))
        return [bool(getattr(found, name)) for name in ("number", "colours", "binding", "relation", "all")]

    assert verdict("a magenta circle left of a cyan square") == [True, True, True, True, True]
    assert verdict("a cyan square right of a magenta circle") == [True, True, True, True, True]
    assert verdict("a magenta circle right of a cyan square") == [True, True, True, False, False]
    assert verdict("a magenta square left of a cyan circle") == [True, True, False, True, False]
    assert verdict("a magenta circle left of a red square") == [True, False, False, False, False]
    assert verdict("a magenta circle") == [False, False, False, False, False]


def test_two_objects_of_a_colour_and_other_shapes_are_not_recognised() -> None:
    x = torch.full((2, 3, 16, 16), 30, dtype=torch.uint8)
    red = torch.tensor(STYLES["bright"].palette["red"], dtype=torch.uint8)[:, None, None]
    x[0, :, 1:6, 1:6], x[0, :, 9:14, 9:14] = red, red
    x[1, :, 3:13, 7:9] = red
    sight = look(x)
    assert sight.present.int().tolist() == [[1, 0, 0, 0, 0, 0]] * 2
    assert sight.shapes[:, 0].tolist() == [-1, -1]
    assert sight.centres[0, 0].tolist() == pytest.approx([7.5, 7.5])


def test_an_evaluation_judges_samples_by_their_captions() -> None:
    data = Scenes({"x": "picture", "caption": "caption"}, [3, 16, 16], 0, 16, num_scenes=50, num_held_out=40)
    evaluation = Evaluation(NoFeatures(), {"judge": SceneJudge()}, held_out="unseen", num_samples=80)
    evaluation.check(data)
    real = data.splits["unseen"]["x"][torch.arange(40)]
    results = evaluation.measure([torch.cat([real, real.roll(1, 0)])], data)
    names = ("number", "colours", "binding", "relation", "all")
    assert [results[f"scene_{name}_80_floor_40"] for name in names] == [1.0] * 5
    assert [results[f"scene_{name}_80_baseline"] for name in ("colours", "binding", "all")] == [0.0] * 3
    assert results["scene_relation_80_baseline"] < 0.4
    assert 0.5 <= results["scene_all_80"] <= 0.55
    record = evaluation.protocol(data, {})["metrics"]["scene_all_80"]
    assert (record["better"], record["field"], record["style"]) == ("higher", "caption", "bright")


def test_the_relation_is_counted_over_two_objects_only() -> None:
    scenes = contents(14, COUNT, False)
    single = scenes.relation < 0
    found = judge(look(pictures(scenes)), scenes)
    assert not found.relation[single].any()
    assert found.relation[~single].all()
    assert found.all.all()


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (lambda: Digits([1, 8, 8], 10, 32), {}, r"the judge of scenes needs pictures of shape \[3, 16, 16\]"),
        (lambda: _scenes(), {"field": "text"}, r"field=text .* \(available: caption, words\)"),
        (lambda: _scenes(), {"field": "words"}, "'make the .*' is not the caption of a scene"),
    ],
)
def test_data_that_cannot_be_judged_are_refused(data: Any, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluation(NoFeatures(), {"judge": SceneJudge(**options)}).check(data())


def _scenes() -> Scenes:
    fields = {"x": "picture", "caption": "caption", "words": "instruction"}
    return Scenes(fields, [3, 16, 16], 0, 16, num_scenes=50, num_held_out=40)


def test_names_are_in_the_order_of_their_numbers() -> None:
    assert described(["a red circle"]).colours.tolist() == [[0, -1]]
    assert (COLOURS[5], SHAPES[3]) == ("cyan", "cross")


def _edits(**options: Any) -> tuple[Scenes, Evaluation]:
    fields = {"x": "edited", "image": "picture", "edited_caption": "edited_caption", "unchanged": "unchanged"}
    data = Scenes(fields, [3, 16, 16], 0, 16, num_scenes=50, num_held_out=60)
    return data, Evaluation(NoFeatures(), {"edit": SceneEdit(**options)})


def test_an_edit_is_judged_by_its_object_the_other_one_and_the_rest() -> None:
    data, evaluation = _edits()
    evaluation.check(data)
    items = {name: column[torch.arange(60)] for name, column in data.splits["validation"].items()}

    def measured(x: Tensor) -> list[float]:
        found = evaluation.measure([x], data)
        return [found[f"edit_{name}_60"] for name in ("target", "others", "kept")]

    assert measured(items["x"]) == [1.0, 1.0, 1.0]
    assert measured(items["image"]) == [0.0, 1.0, 1.0]  # nothing was done
    lighter = (items["x"].int() + 10).clamp(max=255).to(torch.uint8)
    target, others, kept = measured(lighter)
    assert (target, others) == (1.0, 1.0)
    assert kept == pytest.approx(1 - 10 / 127.5, abs=0.003)
    assert measured(items["x"].roll(1, 0))[0] < 0.1
    moved = items["x"].roll(2, 3)
    assert measured(moved)[:2] == [0.0, 0.0]
    half = torch.where(items["unchanged"] > 0, items["x"].flip(3), items["x"])
    assert measured(half)[1] < 0.2


def test_an_edit_needs_its_fields() -> None:
    data, evaluation = _edits(before="picture")
    with pytest.raises(ValueError, match=r"before=picture of the edits .*\(available: x, image, .*\): add it to data"):
        evaluation.check(data)
    with pytest.raises(ValueError, match="edits of scenes are pictures of shape"):
        evaluation.check(Digits([1, 8, 8], 10, 32))
