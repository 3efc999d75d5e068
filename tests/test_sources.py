"""DiffuSeq: the source stays clean in training and in sampling, and only the target is noised."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from runs import configuration, differing, interrupted, run, sampled
from tokens import DIM, LENGTH, SCHEDULE, TEXTS, fitted, text_pipeline, texts
from torch import Tensor

from inkdrop.codecs import Standardize
from inkdrop.constraints import Source
from inkdrop.data import CopiedWords
from inkdrop.files.texts import decoded, encoded
from inkdrop.metrics import ExactMatch
from inkdrop.metrics.extractors import NoFeatures
from inkdrop.metrics.metric import Extracted
from inkdrop.noises import Partial
from inkdrop.pipeline import Pipeline
from inkdrop.randomness import Generators

S = 7
SMALL = [
    *("experiment=diffuseq_copy", "logger=none", "network.width=16", "network.num_heads=2", "network.depth=1"),
    *("trainer.max_steps=8", "trainer.log_every_n_steps=1", "callbacks.checkpoint.every.steps=1"),
    *("callbacks.checkpoint.keep=100", "~callbacks.pictures", "~callbacks.evaluate", "time_grid.num_steps=4"),
    *("data.batch_size=8", "data.num_train=64", "data.num_validation=16", "network.dropout=0.2"),
]


def pairs() -> Pipeline:
    """A model of random weights over six tokens that follow a source of seven."""
    pipeline = text_pipeline(noise=Partial(S), source_length=S)
    pipeline.constraint = Source()
    return pipeline


def test_the_source_is_clean_and_the_target_has_the_forward_law() -> None:
    words, law = fitted(source_length=S), Partial(S)
    batch = {"x": texts(2000), "source": texts(2000)}
    generators = Generators.from_seeds(range(2000))
    x_0 = words.encode(batch, generators.at("codec"))
    clean = words.encode(batch)
    assert torch.equal(x_0[..., :S], words.source(batch))
    assert torch.equal(x_0[..., :S], clean[..., :S])
    assert not (x_0 == clean)[..., S:].any()
    now = SCHEDULE.point(torch.full((2000,), 0.6).double())
    x_t, eps = law.corrupt(x_0, now, generators.at("noise"))
    assert torch.equal(x_t[..., :S], clean[..., :S])
    assert not eps[..., :S].any()
    assert torch.allclose(x_t[..., S:], (now.alpha[0] * x_0 + now.sigma[0] * eps)[..., S:].float(), atol=1e-6)  # type: ignore[index]
    z = eps[..., S:]
    assert abs(z.square().mean().item() - 1) < 4 * math.sqrt(2 / z.numel())


def test_the_source_does_not_move_by_a_bit_in_sampling() -> None:
    pipeline, seen = pairs(), []
    batch = {"source": texts(3)}

    def keep(done: int, total: int, x: Tensor) -> None:
        seen.append(x.clone())

    pipeline(batch, [0, 1, 2], progress=keep)
    assert len(seen) == 5
    assert all(torch.equal(x[..., :S], pipeline.codec.source(batch)) for x in seen)
    assert len({x[..., S:].sum().item() for x in seen}) == 5


def test_a_sample_follows_its_source() -> None:
    pipeline, ends = pairs(), []
    for text in ("a red pub", "the blue cafe near"):
        states: list[Tensor] = []
        pipeline({"source": encoded([text])}, [3], progress=lambda done, total, x, kept=states: kept.append(x))
        ends.append(states[-2][..., S:])
    assert not torch.allclose(ends[0], ends[1], atol=1e-3)


def test_a_sample_alone_and_in_a_batch_is_the_same() -> None:
    pipeline = pairs()
    batch = pipeline.request([0, 1, 2, 3], source=TEXTS)
    together = pipeline(batch, [0, 1, 2, 3])
    alone = pipeline(pipeline.request([2], source=TEXTS), [2])
    assert torch.equal(together[2:3], alone)


def test_a_source_is_asked_for() -> None:
    pipeline = pairs()
    pipeline.check()
    assert pipeline.names == ["source"]
    with pytest.raises(ValueError, match=r"condition.source=None must be a text"):
        pipeline.request([0])
    with pytest.raises(ValueError, match="for data with a text `source`, which these lack"):
        pipeline.codec.encode({"x": texts(1)})


def test_a_codec_without_a_source_is_refused() -> None:
    pipeline = text_pipeline()
    pipeline.constraint = Source()
    with pytest.raises(ValueError, match=r"set codec=word_embedding codec.source_length=L"):
        pipeline({"source": texts(1)}, [0])
    pipeline.codec = Standardize()
    with pytest.raises(ValueError, match="which Standardize does not have"):
        Source()(pipeline, {})


def test_fewer_places_than_are_clean_are_refused() -> None:
    with pytest.raises(ValueError, match=r"noise.num_clean=7 is more than the 6 places of x: lower it"):
        Partial(S)([DIM, LENGTH], Generators.from_seeds([0]))


@pytest.mark.parametrize("step", [1, -1])
def test_words_are_copied_or_reversed(step: int) -> None:
    data = CopiedWords([32], 0, 8, 200, 50, 5, [2, 4], step)  # type: ignore[arg-type]
    split = data.splits["train"]
    sources, targets = (decoded(split[name][torch.arange(200)]) for name in ("source", "x"))
    assert [text.split()[::step] for text in sources] == [text.split() for text in targets]
    assert {len(text.split()) for text in sources} == {2, 3, 4}
    assert {word for text in sources for word in text.split()} == set("abcde")
    assert len(data.splits["validation"]["x"]) == 50
    assert not set(sources) >= set(decoded(data.splits["validation"]["source"][torch.arange(50)]))


def test_exact_match_counts_texts_of_their_items() -> None:
    def extracted(made: list[str]) -> Extracted:
        return Extracted(len(made), {"x": encoded(made)})

    items = extracted(["a b", "c d"])
    made = extracted(["a b", "c  d", "a b c", "c d", "c d", "c d"])
    assert ExactMatch()(made, items, items, NoFeatures()) == {"exact_match": 4 / 6}
    with pytest.raises(ValueError, match="compares texts"):
        ExactMatch().check({"x": torch.zeros(2, 3)}, {}, NoFeatures())


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_bit_and_sources_come_from_the_command_line(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", model=SMALL)
    again = interrupted(tmp_path / "whole", 3, tmp_path / "again")
    assert differing(whole, run(again, model=SMALL)) == []
    arrays, _ = sampled(tmp_path / "whole", tmp_path / "samples", "num_samples=2", "condition.source=[a b,c d]")
    assert arrays["source"].tolist() == ["a b", "c d"]


def test_pairs_of_ones_own_compose(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("source\ttarget\n" + "how are you\twell , thanks\n" * 20)
    config = configuration("train", "experiment=diffuseq", f"data.path={path}")
    assert config.noise.num_clean == config.codec.source_length == 48
