"""Texts as tokens: what is learned of the training texts, blanks, the way back, the files of the user, the view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from text_models import tokenizer
from torch import Tensor

from inkdrop.codecs import OneHot, Words
from inkdrop.codecs.vocabulary import END, FIRST, OPEN, PADDING, UNKNOWN
from inkdrop.data import E2E, TextFile, TextPairs
from inkdrop.data.degradations import MiddleBlanks
from inkdrop.data.loaders import Column
from inkdrop.errors import DataError
from inkdrop.files.texts import decoded, encoded
from inkdrop.models import ForeignFiles, Tokenizer
from inkdrop.pictures import Text
from inkdrop.randomness import Generators

TEXTS = ["the cat sat .", "the cat is größer , isn't it ?", "the the dog"]
CPU = torch.device("cpu")


def field(column: Column) -> list[str]:
    return decoded(column[torch.arange(len(column))])


def words(*texts: str, **options: Any) -> Words:
    vocabulary = Words(**options)
    vocabulary.fit([encoded(texts or TEXTS)])
    return vocabulary


def test_the_most_frequent_words_are_known_and_come_back() -> None:
    vocabulary = words(num_words=20, least_count=2)
    numbers = vocabulary.numbers(encoded(["the cat sat", "cat the the the the the the the"]), 5)
    assert numbers.tolist() == [
        [FIRST, FIRST + 1, UNKNOWN, END, PADDING],
        [FIRST + 1, FIRST, FIRST, FIRST, FIRST],  # cut off
    ]
    everything = words(num_words=20)
    back = decoded(everything.texts(everything.numbers(encoded(TEXTS), 12), 60))
    assert back == ["the cat sat .", "the cat is größer , isn ' t it ?", "the the dog"]
    again = everything.numbers(encoded(back), 12)
    assert torch.equal(again, everything.numbers(encoded(TEXTS), 12)), "a text of tokens has these tokens"
    with pytest.warns(UserWarning, match="num_words=2 leaves out 11 rare words"):
        words(num_words=2)


def test_a_blank_is_an_open_place_and_at_the_end_all_that_follow() -> None:
    vocabulary = words(num_words=20)
    places = vocabulary.places(encoded(["the _ sat ___ .", "the cat _", "a_b"]), 7)
    the, cat, sat, dot = (vocabulary.tokens(word)[0] for word in ("the", "cat", "sat", "."))
    assert places[0].tolist() == [the, OPEN, sat, OPEN, dot, END, PADDING]
    assert places[1].tolist() == [the, cat, *[OPEN] * 5]
    assert places[2].tolist() == [UNKNOWN, END, *[PADDING] * 5], "a name with an underscore is a word"
    assert decoded(vocabulary.texts(places[:1], 30)) == ["the _ sat _ ."]
    assert (vocabulary.numbers(encoded(["the _"]), 3) != OPEN).all()


def test_decoded_texts_end_at_their_bytes() -> None:
    vocabulary = words(num_words=20)
    numbers = vocabulary.numbers(encoded(["größer größer"]), 4)
    assert decoded(vocabulary.texts(numbers, 3)) == ["gr"], "no half of a letter"


class Once:
    """The texts of a test as training data."""

    def __init__(self, x: Tensor):
        self.x = x

    def __call__(self, size: int, names: Any = None) -> list[dict[str, Tensor]]:
        return [{"x": self.x}]


def test_the_codec_has_the_vocabulary_in_its_state() -> None:
    codec = OneHot(16, 40, Words(30))
    codec.fit(Once(encoded(TEXTS)), CPU)
    fresh = OneHot(16, 40, Words(30))
    fresh.load_state_dict(codec.state_dict())
    x = codec.encode({"x": encoded(TEXTS)})
    assert list(x.shape[1:]) == codec.shape([40]) == [FIRST + 30 + 1, 16]
    assert torch.equal(x.sum(1), torch.ones(3, 16))
    assert not x[:, -1].any()
    assert decoded(fresh.decode(x)) == ["the cat sat .", "the cat is größer , isn ' t it ?", "the the dog"]
    assert codec.known(encoded(["the _ sat"]))[0, 0, :4].tolist() == [True, False, True, True]
    masked = torch.zeros_like(x[:1])
    masked[:, -1] = 1
    assert set(decoded(codec.decode(masked))[0].split()) == {"_"}
    with pytest.warns(UserWarning, match="set it to 11"):
        OneHot(5, 40, Words(30)).fit(Once(encoded(TEXTS)), CPU)


def test_a_tokenizer_of_transformers_is_a_vocabulary() -> None:
    files = {"tokenizer.json": tokenizer(True).to_str().encode(), "config.json": b"{}"}
    foreign = ForeignFiles({name: torch.tensor([*content], dtype=torch.uint8) for name, content in files.items()})
    vocabulary = Tokenizer(foreign)
    count = tokenizer(True).get_vocab_size()
    assert vocabulary.num_tokens == FIRST + count
    first, second = (FIRST + tokenizer(True).token_to_id(word) for word in ("red", "circle"))
    places = vocabulary.places(encoded(["red circle", "red _ circle"]), 5)
    assert places.tolist() == [[first, second, END, PADDING, PADDING], [first, OPEN, second, END, PADDING]]
    assert decoded(vocabulary.texts(places, 20)) == ["red circle", "red _ circle"]
    with pytest.raises(ValueError, match=f"num_words=3: set it to {count}"):
        Tokenizer(foreign, 3)


def test_memory_is_known_beforehand() -> None:
    assert OneHot(64, 512, Words(1000), batch_size=64).memory == pytest.approx(64 * 64 * 1004 * 4 / 2**30)
    with pytest.raises(ValueError, match=r"takes 12\.27 GiB .* set data\.batch_size=2 or less"):
        OneHot(64, 512, Words(50_257), batch_size=1024 // 4 * 4, memory_limit=0.03)
    with pytest.raises(ValueError, match="encodes texts"):
        OneHot(8, 8).check(torch.zeros(1, 3, 4, 4))


def test_texts_of_ones_own_are_split_by_a_fixed_share(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(f"text  number {i}" for i in range(20)) + "\n\n", "utf-8")
    data = TextFile(str(tmp_path / "texts.txt"), [40], 0, 4)
    train, held = (field(data.splits[name]["x"]) for name in ("train", "validation"))
    assert (len(train), len(held)) == (18, 2)
    assert sorted(train + held) == sorted(f"text number {i}" for i in range(20))
    assert data.splits["train"]["x"].shape == (18, 40)
    with pytest.raises(DataError, match=r"has a text of 14 bytes: set data\.shape=\[14\]"):
        _ = TextFile(str(tmp_path / "texts.txt"), [5], 0, 4).splits
    with pytest.raises(DataError, match=r"data\.path to a file of texts"):
        TextFile(str(tmp_path / "nothing.txt"), [5], 0, 4).verify()


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("pairs.csv", 'english,german\n"a, b",x y\nc,z\n', ("english", "german")),
        ("pairs.tsv", "a, b\tx y\nc\tz\n", (0, 1)),
        ("pairs.jsonl", '{"english": "a, b", "german": "x y"}\n{"english": "c", "german": "z"}\n', None),
    ],
)
def test_pairs_are_read_from_tables_and_json_lines(name: str, content: str, columns: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    source, target = columns or ("english", "german")
    data = TextPairs(str(tmp_path / name), [20], 0, 2, source, target, held_out=0.5)
    pairs = {pair for split in data.splits.values() for pair in zip(*map(field, split.values()), strict=True)}
    assert pairs == {("x y", "a, b"), ("z", "c")}
    wrong = TextPairs(str(tmp_path / name), [20], 0, 2, *(("french", "german") if columns != (0, 1) else (0, 2)))
    with pytest.raises(DataError, match=r"has no text (french|2) .*set data\.(source|target)"):
        _ = wrong.splits


def test_a_span_of_the_middle_becomes_blanks() -> None:
    x = encoded(["one two three four five six seven eight nine ten", "a b", "it's fine"])
    known = MiddleBlanks(0.3)({"x": x}, Generators.from_seeds([1, 2, 3]))
    assert known.shape == (3, 2 * x.shape[1])
    first, short, joined = (text.split() for text in decoded(known))
    assert first.count("_") == 3
    assert (first[0], first[-1], len(first)) == ("one", "ten", 10)
    assert "_ _ _" in " ".join(first)
    assert short.count("_") == joined.count("_") == 1
    many = MiddleBlanks(0.3)({"x": x[:1].expand(50, -1)}, Generators.from_seeds(range(50)))
    assert len(set(decoded(many))) == 6, "every place is possible"


def test_restaurants_need_their_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set data\.root or INKDROP_DATA_DIR"):
        E2E([512], 0, 4, root=str(tmp_path)).verify()
    (tmp_path / "e2e").mkdir()
    for name in E2E.FILES.values():
        (tmp_path / name).write_text("name : A | food : B||A serves B . \nname : C||C .\n")
    split = E2E([512], 0, 4, root=str(tmp_path)).splits["train"]
    assert field(split["x"]) == ["A serves B .", "C ."]
    assert field(split["attributes"]) == ["name : A | food : B", "name : C"]


def test_a_text_is_a_line_with_its_seed_and_a_place_on_the_sheet(tmp_path: Path) -> None:
    view, texts = Text(), encoded(["one\ttwo\n three \x1b[0m", "=1+1"])
    view.write(tmp_path, texts, {}, [7, 8])
    assert (tmp_path / "samples.txt").read_text() == "7\tone two three \\x1b[0m\n8\t=1+1\n"
    assert (tmp_path / "samples.csv").read_text().splitlines()[0] == "seed,text"
    assert "8,=1+1" not in (tmp_path / "samples.csv").read_text(), "a spreadsheet computes no text"
    short, long = view.sheet(texts), view.sheet(encoded(["word " * 60, "b"]))
    assert short.shape[1:] == long.shape[1:] == (900, 3)
    assert long.shape[0] > short.shape[0]
    frames = view.frames([encoded(["_ _ _", "_"]), encoded(["word " * 60, "b"])])
    assert frames[0].shape == frames[1].shape
    assert not np.array_equal(frames[0], frames[1])
    with pytest.raises(ValueError, match="view=text shows texts"):
        view.check(torch.zeros(2, 3))
