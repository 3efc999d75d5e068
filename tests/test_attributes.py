"""Control of texts by attributes: the classifier, and the updates of its gradient, against closed forms and torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import differing, interrupted, run, sampled
from tokens import BYTES, DIM, LENGTH, SCHEDULE, fitted, text_pipeline, texts
from torch import Tensor, nn

from inkdrop.codecs import Standardize
from inkdrop.files.texts import decoded, encoded
from inkdrop.guidance import AttributeGuidance
from inkdrop.guidance.attribute import _Controlled
from inkdrop.losses import Example, NoisyCrossEntropy
from inkdrop.models import AttributeClassifier, CodecOf
from inkdrop.models.attribute_classifier import UNKNOWN
from inkdrop.networks import DiT, Pooled
from inkdrop.noises.kernels import towards
from inkdrop.predictions import DataPrediction
from inkdrop.randomness import Generators
from inkdrop.time_samplers import DiscreteUniform

ROWS = ["food : Chinese | near : The Bakers", "food : English", "food : Chinese", "near : Clare Hall | Type : pub"]


def classifier(num_values: int = 12, **options: Any) -> AttributeClassifier:
    """A classifier of random weights on the vectors of `text_pipeline`."""
    codec = CodecOf(text_pipeline(**options))
    network = DiT([DIM, LENGTH], 1, 16, 1, 2, out_channels=num_values)
    torch.manual_seed(1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    made = AttributeClassifier(Pooled(network), SCHEDULE, DataPrediction(), codec, [DIM, LENGTH], num_values)

    def batches(*_: Any) -> Iterator[dict[str, Tensor]]:
        yield {"x": texts(4), "attributes": encoded(ROWS)}

    made.fit(batches, torch.device("cpu"))
    return made.eval()


def attributes(*rows: str) -> dict[str, Tensor]:
    return {"attributes": encoded(rows)}


# The classifier ------------------------------------------------------------------------------------------------------


def test_values_are_numbered_by_attribute_and_travel_in_the_state() -> None:
    made = classifier()
    expected = {
        "food": {"": 0, "Chinese": 1, "English": 2},
        "near": {"": 3, "Clare Hall": 4, "The Bakers": 5},
        "type": {"": 6, "pub": 7},
    }
    assert made.values == expected
    other = AttributeClassifier(made.network, SCHEDULE, DataPrediction(), made.codec, [DIM, LENGTH], 12)
    other.load_state_dict(made.state_dict())
    assert other.values == expected
    numbers = made.numbers(attributes("food : English", "Type : cafe | near : Clare Hall"))
    assert numbers.tolist() == [[2, 3, 6], [0, 4, UNKNOWN]]
    assert made.asked(attributes("food : English")).tolist() == [[2, UNKNOWN, UNKNOWN]]


def test_probabilities_are_softmaxes_of_each_attribute_and_values_beyond_the_table_do_not_count() -> None:
    made, logits = classifier(), torch.randn(2, 12)
    numbers = torch.tensor([[2, 3, 7], [0, UNKNOWN, 6]])
    found = made.log_probabilities(logits, numbers)
    for row in range(2):
        for column, (first, last) in enumerate([(0, 3), (3, 6), (6, 8)]):
            number = numbers[row, column]
            exact = 0.0 if number == UNKNOWN else logits[row, first:last].softmax(0)[number - first].log()
            assert torch.allclose(found[row, column], torch.as_tensor(exact), atol=1e-6)
    error, share = made.judged(logits, attributes("food : English | Type : pub", "near : Nowhere"))
    assert torch.allclose(error, -found.sum(1) / torch.tensor([3.0, 2.0]), atol=1e-6)
    most = [logits[:, a:b].argmax(1) + a for a, b in ((0, 3), (3, 6), (6, 8))]
    right = (torch.stack(most, 1) == numbers).sum(1)
    assert torch.allclose(share, right / torch.tensor([3, 2]))


def test_the_loss_is_that_of_noised_vectors() -> None:
    made, batch = classifier(), {"x": texts(4), **attributes(*ROWS)}
    generators = Generators.from_seeds(range(4))
    x_0, t = made.codec.encode(batch), torch.full((4,), 0.5).double()
    terms = NoisyCrossEntropy(DiscreteUniform())(made, Example(x_0, {}, batch, made.codec), generators, t)
    x_t, _ = made.noise.corrupt(x_0, SCHEDULE.point(t), generators.at("noise"))
    error, share = made.judged(made(x_t, SCHEDULE.point(t)), batch)
    assert torch.equal(terms.loss, error)
    assert torch.equal(terms.parts["accuracy"], share)


def test_more_values_than_logits_and_data_without_attributes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"8 values of attributes.*pipeline.num_values=5: set it to 8 or more"):
        classifier(5)
    with pytest.raises(ValueError, match="the data have no text `attributes`"):
        classifier().numbers({"x": texts(1)})


def test_the_mean_over_places_is_the_output() -> None:
    pooled = Pooled(DiT([DIM, LENGTH], 1, 16, 1, 2, out_channels=3))
    nn.init.normal_(pooled.network.out.weight)
    x, level = torch.randn(2, DIM, LENGTH), torch.zeros(2)
    assert torch.allclose(pooled(x, level), pooled.network(x, level).mean(2))


def test_the_codec_of_a_model_stays_as_it_is() -> None:
    pipeline, batch = text_pipeline(), {"x": texts(3)}
    codec = CodecOf(pipeline)
    assert torch.equal(codec.encode(batch), pipeline.codec.encode(batch))
    assert decoded(codec.decode(codec.encode(batch))) == decoded(pipeline.codec.decode(pipeline.codec.encode(batch)))
    assert codec.shape([BYTES]) == [DIM, LENGTH]
    assert not [each for each in codec.parameters() if each.requires_grad]
    with pytest.raises(ValueError, match="choose another codec"):
        codec.check(torch.zeros(2, 3))


# Guidance ------------------------------------------------------------------------------------------------------------


def controlled(**options: Any) -> AttributeGuidance:
    return AttributeGuidance(classifier(), **options)


def denoiser(guide: AttributeGuidance, *rows: str) -> Any:
    found = text_pipeline({"attribute": guide}).guided(attributes(*rows))[0]
    assert isinstance(found, _Controlled)
    return found


@pytest.mark.parametrize("fluency", [0.0, 0.3])
def test_the_updates_are_those_of_adagrad_and_move_the_mean_of_the_next_x(fluency: float) -> None:
    guide = controlled(fluency=fluency, step_size=0.2)
    guided, plain = denoiser(guide, ROWS[0], ROWS[1]), text_pipeline().denoiser
    now, next = SCHEDULE.points([0.6, 0.4])
    x_t = torch.randn(2, DIM, LENGTH)
    mean, std = towards(x_t, plain(x_t, now, {}).x_0, now, next, 1.0)
    x = nn.Parameter(mean.detach().clone())
    optimizer = torch.optim.Adagrad([x], lr=0.2)
    numbers = guide.classifier.asked(attributes(ROWS[0], ROWS[1]))
    for _ in range(3):
        optimizer.zero_grad()
        loss = -guide.classifier.log_probabilities(guide.classifier(x, next), numbers).sum()
        (loss + fluency * ((x - mean.detach()) / std).square().sum()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    moved = towards(x_t, guided(x_t, now, {}).x_0, now, next, 1.0).mean
    assert torch.allclose(moved, x, atol=1e-4)
    assert (moved - mean).abs().max() > 0.1


def test_the_attributes_become_more_probable() -> None:
    guide = controlled(step_size=0.01, fluency=0.0)
    guided, plain = denoiser(guide, *[ROWS[0]] * 16), text_pipeline().denoiser
    now, next = SCHEDULE.points([0.6, 0.4])
    x_t, numbers = torch.randn(16, DIM, LENGTH), guide.classifier.asked(attributes(*[ROWS[0]] * 16))
    before, after = (
        guide.classifier.log_probabilities(
            guide.classifier(towards(x_t, each(x_t, now, {}).x_0, now, next, 1.0).mean, next), numbers
        ).sum(1)
        for each in (plain, guided)
    )
    assert (after > before).all()


def test_nothing_moves_without_an_attribute_outside_of_the_interval_and_in_the_last_move() -> None:
    x_t, plain = torch.randn(1, DIM, LENGTH), text_pipeline().denoiser
    middle, last = SCHEDULE.points([0.6, 0.2])
    for guide, row, now in (
        (controlled(fluency=0.0), "", middle),
        (controlled(interval=[0, 1e-3]), ROWS[0], middle),
        (controlled(), ROWS[0], last),
    ):
        assert torch.equal(denoiser(guide, row)(x_t, now, {}).x_0, plain(x_t, now, {}).x_0)
    assert not torch.equal(denoiser(controlled(), ROWS[0])(x_t, middle, {}).x_0, plain(x_t, middle, {}).x_0)


def test_a_permutation_of_the_batch_takes_the_attributes_along() -> None:
    guided, x_t = denoiser(controlled(), ROWS[0], ROWS[1]), torch.randn(2, DIM, LENGTH)
    (now,) = SCHEDULE.points([0.6])
    first = guided(x_t, now, {}).x_0
    index = torch.tensor([1, 0])
    guided.select(index)
    assert torch.allclose(guided(x_t[index], now, {}).x_0, first[index], atol=1e-5)


def test_a_sample_alone_and_in_a_batch_is_the_same() -> None:
    pipeline = text_pipeline({"attribute": controlled()})
    request = {"food": ["Chinese", "English"]}
    together = pipeline(pipeline.request([0, 1, 2, 3], **request), [0, 1, 2, 3])
    alone = pipeline(pipeline.request([3], **request), [3])
    assert torch.equal(together[3:], alone)


def test_attributes_are_named_and_unknown_ones_are_refused_with_those_that_there_are() -> None:
    pipeline = text_pipeline({"attribute": controlled()})
    pipeline.check()
    asked = pipeline.request([0, 1, 2], food=["chinese", "english"], attributes="near : Clare Hall")
    assert decoded(asked["attributes"])[1] == "near : Clare Hall | food : English"
    assert decoded(asked["attributes"])[2] == "near : Clare Hall | food : Chinese"
    with pytest.raises(ValueError, match=r"condition.colour is unknown: this model takes condition.attributes and"):
        pipeline.request([0], colour="red")
    with pytest.raises(ValueError, match=r"condition.food=Thai is not a value of .*: these are Chinese, English"):
        pipeline.request([0], food="Thai")
    with pytest.raises(ValueError, match=r"condition.price is unknown: the attributes are food, near, type"):
        pipeline.request([0], attributes="price : low")
    with pytest.raises(ValueError, match=r"needs an attribute: set one of condition.food="):
        pipeline.request([0])


def test_a_classifier_of_other_vectors_or_data_is_refused() -> None:
    guide = controlled()
    pipeline = text_pipeline({"attribute": guide})
    with torch.no_grad():
        pipeline.codec.vectors += 5 * torch.randn(pipeline.codec.vectors.shape)  # type: ignore[operator]
    with pytest.raises(ValueError, match="sees other vectors of words than the model"):
        pipeline.check()
    with pytest.raises(ValueError, match="is not a classifier of attributes"):
        AttributeGuidance(text_pipeline())
    guide.classifier.codec = Standardize()
    with pytest.raises(ValueError, match="sees other vectors"):
        pipeline.check()
    assert fitted().vectors.shape == (12, DIM)


# Commands ------------------------------------------------------------------------------------------------------------

SMALL = [
    *("logger=none", "data.batch_size=8", "trainer.max_steps=4", "trainer.val_check_interval=4"),
    *("++trainer.limit_val_batches=1", "callbacks.checkpoint.every.steps=1", "callbacks.checkpoint.keep=100"),
    *("scheduler.warmup_steps=2", "trainer.log_every_n_steps=1"),
]
TEXTS = [
    *("experiment=e2e_diffusion_lm", "network.width=16", "network.num_heads=2", "network.depth=1"),
    *("codec.length=16", "time_grid.num_steps=4", "callbacks.pictures=null", *SMALL),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:codec.length")
def test_a_classifier_is_trained_on_a_run_and_guides_it_and_both_resume_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INKDROP_DATA_DIR", str(tmp_path))
    (tmp_path / "e2e").mkdir()
    for name in ("valid", "test"):
        lines = [f"{row}||{text} ." for row, text in zip(ROWS, ("a b", "c d e", "a c", "d"), strict=True)]
        (tmp_path / "e2e" / f"src1_{name}.txt").write_text("\n".join(lines * 4))
    whole = run(tmp_path / "texts", model=TEXTS)
    again = interrupted(tmp_path / "texts", 2, tmp_path / "again")
    assert differing(whole, run(again, model=TEXTS)) == []
    small = ["network.network.width=16", "network.network.num_heads=2", "network.network.depth=1", *SMALL]
    options = ["experiment=e2e_attributes", f"codec.model.checkpoint={tmp_path / 'texts'}", *small]
    other = run(tmp_path / "classifier", model=options)
    assert differing(other, run(interrupted(tmp_path / "classifier", 2, tmp_path / "again_2"), model=options)) == []
    named = ["guidance=[clamp,attribute]", f"guidance.checkpoint={tmp_path / 'classifier'}", "condition.food=Chinese"]
    arrays, _ = sampled(tmp_path / "texts", tmp_path / "samples", "num_samples=2", *named)
    assert arrays["attributes"].tolist() == ["food : Chinese"] * 2
