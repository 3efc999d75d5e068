"""Words of captions as tokens: the vocabulary, the tokens, what is dropped, and a model that is asked for texts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import trained
from torch import Tensor

import inkdrop
from inkdrop.conditioners import Words
from inkdrop.conditioners.words import split
from inkdrop.errors import ConfigurationError
from inkdrop.files.texts import decoded, encoded
from inkdrop.randomness import Generators

CAPTIONS = ["a red circle", "a blue square left of a red circle", "A Größe, two"]
SMALL = ["network.base_channels=8", "network.norm_groups=4", "network.channel_multipliers=[1,1]"]
SMALL += ["network.attention_resolutions=[8]", "trainer.max_steps=4", "data.num_scenes=64", "data.num_held_out=8"]
SMALL += ["data.batch_size=16", "time_grid.num_steps=3", "callbacks.pictures.num_samples=4"]


class Given:
    """Training data that have these captions."""

    def __init__(self, captions: list[str]):
        self.captions = captions

    def __call__(self, size: int, names: Collection[str] | None = None, /) -> Iterator[Mapping[str, Tensor]]:
        for first in range(0, len(self.captions), 2):
            yield {"caption": encoded(self.captions[first : first + 2])}


def fitted(captions: list[str] = CAPTIONS, **options: Any) -> Words:
    torch.manual_seed(0)
    words = Words(8, **{"num_words": 20, "length": 5, "num_heads": 2, **options})
    words.fit(Given(captions))
    return words


def batch(*captions: str) -> dict[str, Tensor]:
    return {"caption": encoded(captions)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words") / "run"
    trained(folder, "experiment=scenes", options=SMALL)
    return folder


@pytest.mark.filterwarnings("ignore:conditioner.length")
def test_the_vocabulary_has_the_most_frequent_words_whatever_their_order() -> None:
    def vocabulary(words: Words) -> list[str]:
        return [word for word in decoded(words.vocabulary) if word]

    assert split("A Größe, two (2)!") == ["a", "größe", ",", "two", "(", "2", ")", "!"]
    known = vocabulary(fitted())
    assert known == ["a", "circle", "red", ",", "blue", "größe", "left", "of", "square", "two"]
    assert vocabulary(fitted(CAPTIONS[::-1])) == known
    with pytest.warns(UserWarning, match="num_words=3 leaves out 7 rare words of caption"):
        assert vocabulary(fitted(num_words=3)) == known[:3]
    with pytest.warns(UserWarning, match="length=4 cuts texts of up to 8 words"):
        fitted(length=4)


def test_tokens_depend_on_the_words_of_their_own_text_alone() -> None:
    words = fitted(CAPTIONS[:1])
    cond = words(batch("a red circle", "A  RED circle", "a circle red", "a", ""))
    tokens, mask = cond["tokens"], cond["mask"]
    assert (tokens.shape, mask.sum(1).tolist()) == ((5, 6, 8), [4, 4, 4, 2, 1])
    assert torch.equal(tokens[0], tokens[1])
    assert not torch.allclose(tokens[0], tokens[2], atol=1e-3)
    assert torch.allclose(words(batch("a"))["tokens"], tokens[3:4], atol=1e-6)
    with torch.no_grad():
        words.embedding.weight[0] += 1  # what fills a text up
    assert torch.allclose(words(batch("a"))["tokens"], tokens[3:4], atol=1e-6)
    assert torch.equal(tokens[3, 2:], torch.zeros(4, 8))


def test_the_order_of_words_is_as_loud_as_the_words_themselves() -> None:
    """With quiet positions, "a left of b" and "b left of a" looked alike, and relations stayed at chance."""
    torch.manual_seed(0)
    conditioner = fitted(["a red circle left of a blue square"], depth=0, length=8)
    first, swapped, other = (
        conditioner(batch(text))["tokens"][0] for text in ("red circle left", "left circle red", "blue square of")
    )
    order = (first[1] - swapped[3]).norm()  # of the same word at another place
    assert order > 0.5 * (first[1] - other[1]).norm()  # and of another word at the same place


def test_unknown_words_are_one_token_and_long_texts_are_cut() -> None:
    words = fitted(CAPTIONS[:1])
    tokens = words(batch("a green circle", "a dark circle", "a red circle"))["tokens"]
    assert torch.equal(tokens[0], tokens[1])
    assert not torch.allclose(tokens[0], tokens[2], atol=1e-3)
    tokens = words(batch("a red circle a red circle", "a red circle a red"))["tokens"]
    assert torch.equal(tokens[0], tokens[1])


def test_a_dropped_text_is_one_learned_token() -> None:
    words = fitted(CAPTIONS[:1], dropout=0.3)
    null = words.null(batch("a red circle", ""))
    assert torch.equal(null["tokens"][0], null["tokens"][1])
    assert null["mask"].sum(1).tolist() == [1, 1]
    assert not torch.allclose(null["tokens"][0], words(batch(""))["tokens"][0], atol=1e-3)
    many = words({"caption": encoded(["a"] * 4000)}, Generators.from_seeds(range(4000)))["mask"].sum(1)
    assert (many == 1).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert words.empties(["caption"])


def test_a_vector_is_the_map_of_the_mean_token() -> None:
    words = fitted(CAPTIONS[:1], dim=3)
    cond = words(batch("a red", "circle"))
    assert words.map is not None
    for number, count in ((0, 3), (1, 2)):
        mean = cond["tokens"][number, :count].double().mean(0)
        vector = words.map.weight.double() @ mean + words.map.bias.double()
        assert torch.allclose(cond["vector"][number].double(), vector, atol=1e-6)


def test_the_vocabulary_travels_with_the_weights() -> None:
    words = fitted(CAPTIONS[:1])
    torch.manual_seed(1)
    other = Words(8, num_words=20, length=5, num_heads=2)
    other.load_state_dict(words.state_dict())
    assert torch.equal(other(batch("red a"))["tokens"], words(batch("red a"))["tokens"])


def test_words_that_training_has_never_seen_are_named() -> None:
    words = fitted(CAPTIONS[:1], length=9)
    with pytest.warns(UserWarning, match=r"never seen: circel, x\d, x\d, x\d, x\d, and 3 more \(did you mean circle\?"):
        words.request([0], caption="a circel " + " ".join(f"x{number}" for number in range(7)))
    with pytest.warns(UserWarning, match="a text of 10 words, of which the model reads the first 9"):
        words.request([0], caption="a " * 10)
    assert decoded(words.request([3, 4], caption=["a", "red"])["caption"]) == ["red", "a"]


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="num_heads=3 does not divide"):
        Words(8, num_heads=3)
    with pytest.raises(ValueError, match=r"have no caption.*\+data\.fields\.caption="):
        fitted([])
    with pytest.raises(ValueError, match="caption is not a text"):
        fitted(CAPTIONS[:1])({"caption": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"condition\.caption=None must be a text"):
        fitted(CAPTIONS[:1]).request([0])


@pytest.mark.slow
def test_a_model_of_scenes_is_asked_for_a_text(run: Path, tmp_path: Path) -> None:
    options = [f"checkpoint={run}", "num_samples=3", "condition.caption=[a red circle,a blue cross]"]
    inkdrop.sample(*options, f"output_dir={tmp_path / 'a'}")
    inkdrop.sample(*options, "batch_size=1", f"output_dir={tmp_path / 'b'}")
    with np.load(tmp_path / "a/samples.npz") as together, np.load(tmp_path / "b/samples.npz") as alone:
        assert together["caption"].tolist() == ["a red circle", "a blue cross", "a red circle"]
        assert np.array_equal(together["x"], alone["x"])
    inkdrop.sample(f"checkpoint={run}", "evaluate=true", "held_out=unseen", f"output_dir={tmp_path / 'unseen'}")
    pipeline = inkdrop.load(run)
    assert "circle" in decoded(pipeline.conditioner.vocabulary)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="never seen: purple"):
        inkdrop.sample(*options[:2], "condition.caption=a purple circle", f"output_dir={tmp_path / 'c'}")


@pytest.mark.slow
def test_a_sample_is_edited_by_another_text_from_the_command_line(run: Path, tmp_path: Path) -> None:
    options = [f"checkpoint={run}", "num_samples=2", "guidance.scale=2"]
    edit = [*options, "constraint=prompt_to_prompt", "condition.caption=a red circle"]
    inkdrop.sample(*options, "condition.caption=a red circle", f"output_dir={tmp_path / 'plain'}")
    inkdrop.sample(*edit, "condition.source=a red circle", f"output_dir={tmp_path / 'equal'}")
    with np.load(tmp_path / "plain/samples.npz") as plain, np.load(tmp_path / "equal/samples.npz") as equal:
        assert np.abs(plain["x"].astype(int) - equal["x"]).max() <= 1
        assert equal["source"].tolist() == ["a red circle"] * 2
    with pytest.raises(ConfigurationError, match=r"condition\.source=None must be a text"):
        inkdrop.sample(*edit, f"output_dir={tmp_path / 'none'}")
    with pytest.raises(ConfigurationError, match="which the batch lacks"):
        inkdrop.sample(*edit[:-1], "evaluate=true", f"output_dir={tmp_path / 'none'}")
    assert not (tmp_path / "none").exists()
