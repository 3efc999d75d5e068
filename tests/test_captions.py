"""Captions of images: in a table, in texts next to them, in class names; the one that is drawn, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from image_files import encoded, folder, pixels, write
from runs import sampled, trained

from inkdrop.commands.check_data.inspection import inspect
from inkdrop.conditioners import Words
from inkdrop.data import Digits, ImageFolder, Mixture, WebDataset
from inkdrop.data.captions import Captions
from inkdrop.data.decoding import Decoder
from inkdrop.data.loaders import ShuffledLoader, collect, in_batches
from inkdrop.errors import DataError
from inkdrop.files.texts import decoded

SIDE, COUNT = 8, 12
NAMES = [f"{number:02}" for number in range(COUNT)]
TEXTS = [["a fox", "größer"] if number % 3 == 0 else [f"picture {number}"] for number in range(COUNT)]
IMAGES = {f"{name}.png": encoded(pixels(number, SIDE, SIDE, 3)) for number, name in enumerate(NAMES)}


def jsonl(column: str = "text", texts: Sequence[Any] = TEXTS) -> dict[str, bytes]:
    rows = ({"file_name": f"{name}.png", column: each} for name, each in zip(NAMES, texts, strict=True))
    return {"metadata.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()}


def table() -> dict[str, bytes]:
    """The captions as CSV, with a line for each."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["file_name", "text"])
    writer.writerows([f"{name}.png", text] for name, texts in zip(NAMES, TEXTS, strict=True) for text in texts)
    return {"metadata.csv": out.getvalue().encode()}


def beside(texts: Sequence[Sequence[str]] = TEXTS) -> dict[str, bytes]:
    """The captions as texts next to the images, with a line for each."""
    return {f"{name}.txt": "\r\n".join([*each, " "]).encode() for name, each in zip(NAMES, texts, strict=True)}


def captioned(path: Path | str, captions: str | None, **options: Any) -> ImageFolder:
    return folder(
        path, **{"shape": [3, SIDE, SIDE], "num_classes": 0, "held_out": 0.25, "captions": captions, **options}
    )


def by_image(data: ImageFolder, split: str = "train") -> dict[str, str]:
    """The first caption of each image of a split, by its name."""
    findings = data.examine()
    texts = decoded(collect(findings.splits[split])["caption"])
    return dict(zip([Path(path).stem for path in findings.paths[split]], texts, strict=True))


def test_a_table_and_texts_next_to_images_give_the_same(tmp_path: Path) -> None:
    write(tmp_path / "jsonl", IMAGES | jsonl())
    write(tmp_path / "csv", IMAGES | table())
    write(tmp_path / "txt", IMAGES | beside() | {"readme.txt": b""})
    write(tmp_path / "other", IMAGES | jsonl(texts=[[each[-1]] for each in TEXTS]))
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name, content in {**IMAGES, **jsonl("My Prompt")}.items():
            archive.writestr(name, content)
    kinds = {"jsonl": "text", "csv": "text", "txt": "txt", "in.zip": "My Prompt"}
    found = {name: captioned(tmp_path / name, captions) for name, captions in kinds.items()}
    assert len({data.fingerprint for data in found.values()}) == 1
    assert captioned(tmp_path / "other", "text").fingerprint != found["txt"].fingerprint
    lazy = [captioned(tmp_path / name, kinds[name], memory_limit=0.0) for name in ("jsonl", "txt")]
    assert lazy[0].fingerprint == lazy[1].fingerprint
    expected = {name: texts[0] for name, texts in zip(NAMES, TEXTS, strict=True)}
    for data in found.values():
        assert by_image(data) | by_image(data, "validation") == expected
        assert len(by_image(data, "validation")) == 3
    with pytest.warns(UserWarning, match=r"12 texts next to images of the same name \(data.captions=txt uses them\)"):
        assert set(captioned(tmp_path / "txt", None).splits["train"]) == {"x"}


def test_training_draws_one_of_several_captions_by_position(tmp_path: Path) -> None:
    write(tmp_path, IMAGES | beside())
    data = captioned(tmp_path, "txt")
    split = data.splits["train"]
    column = split["caption"]
    assert isinstance(column, Captions)
    order = ShuffledLoader(split, 4, 0).order
    positions = list(range(400))
    items = order(positions)
    one, two = ShuffledLoader(split, 400, 0).batch(0), ShuffledLoader(split, 8, 0, first=8)
    texts = decoded(one["caption"])
    assert decoded(two.batch(3)["caption"]) == texts[32:40]  # another batch size, another start
    shares = Counter(text for text, item in zip(texts, items.tolist(), strict=True) if column.counts(items)[0])
    fox, larger = shares["a fox"], shares["größer"]
    assert fox + larger == int((column.counts(items) == 2).sum()) > 60
    assert 0.3 < fox / (fox + larger) < 0.7
    assert decoded(ShuffledLoader(split, 400, 1).batch(0)["caption"]) != texts
    first = decoded(column[items])
    assert "größer" not in first
    assert all(text == own for text, own in zip(texts, first, strict=True) if own != "a fox")
    held_out = [text for batch in data.val_dataloader() for text in decoded(batch["caption"])]
    assert "größer" not in held_out


def test_the_vocabulary_has_the_words_of_every_caption(tmp_path: Path) -> None:
    write(tmp_path, IMAGES | beside([*TEXTS[:3], ["one", "two", "three"], *TEXTS[4:]]))
    split = captioned(tmp_path, "txt").splits["train"]
    words = Words(8, num_words=50)
    words.fit(lambda size, names=None: in_batches(split, size, names))
    assert {"fox", "größer", "picture"} <= set(decoded(words.vocabulary))
    assert ("three" in decoded(words.vocabulary)) == ("03" in by_image(captioned(tmp_path, "txt")))
    assert sum(len(batch["x"]) for batch in in_batches(split, 5, ["x"])) == len(split["x"])  # one pass


def test_captions_of_different_lengths_are_filled_with_zeros() -> None:
    column = Captions([["ab"], ["größer", "b"], ["b", "ab", ""]])
    assert (tuple(column.shape), column.most, column.counts(torch.arange(3)).tolist()) == ((3, 8), 3, [1, 2, 3])
    rows = column.chosen(torch.tensor([2, 1, 1, 2]), torch.tensor([1, 0, 1, 2]))
    assert rows[:, 1:].tolist() == [[98, *[0] * 6], [*"größer".encode()][1:], [0] * 7, [0] * 7]
    assert decoded(rows) == ["ab", "größer", "b", ""]
    assert column.digest() != Captions([["ab"], ["größer"], ["b", "b", "ab", ""]]).digest()


def test_a_template_is_filled_with_the_names_of_the_classes(tmp_path: Path) -> None:
    files = {f"{'cat' if i % 2 else 'big dog'}/{name}": content for i, (name, content) in enumerate(IMAGES.items())}
    write(tmp_path, files)
    data = captioned(tmp_path, "a {label}, {label}!", num_classes=None)
    assert {**by_image(data), **by_image(data, "validation")} == {
        name: "a cat, cat!" if i % 2 else "a big dog, big dog!" for i, name in enumerate(NAMES)
    }
    for wrong in ("a {class}", "a {label} {", "{}"):
        with pytest.raises(ValueError, match=r"must have {label}, which stands for the name of the class"):
            captioned(tmp_path, wrong, num_classes=None)
    with pytest.raises(ValueError, match=r"needs classes, and .* has none: set data.captions to a column"):
        captioned(tmp_path, "a {label}").verify()
    with pytest.raises(ValueError, match=r"data\.paired\.caption would replace a field"):
        captioned(tmp_path, "a {label}", paired={"caption": None})


def without(name: str) -> dict[str, bytes]:
    return {key: content for key, content in beside().items() if key != name}


def with_row(value: Any) -> dict[str, bytes]:
    return jsonl(texts=[*TEXTS[:-1], value])


NO_LINE = jsonl()["metadata.jsonl"].rpartition(b'{"file_name": "11')[0]
# id: (files, option, the file that is named, words of the reason)
BROKEN: dict[str, tuple[dict[str, bytes], str, str, str]] = {
    "text is missing": (without("11.txt"), "txt", "11.png", "has no caption: 11.txt is missing"),
    "text is empty": (beside() | {"11.txt": b""}, "txt", "11.txt", "it has no caption"),
    "text of spaces": (beside() | {"11.txt": b"\xef\xbb\xbf \r\n\t"}, "txt", "11.txt", "it has no caption"),
    "text is not UTF-8": (beside() | {"11.txt": b"gr\xf6\xdfer"}, "txt", "11.txt", "it is not text in UTF-8"),
    "text with a zero": (beside() | {"11.txt": b"a\0b"}, "txt", "11.txt", "its caption contains the character 0"),
    "text is too long": (beside() | {"11.txt": b"a" * 70_000}, "txt", "11.txt", "its caption has 70,000 bytes, more"),
    "text is too large": (beside() | {"11.txt": b"a\n" * 600_000}, "txt", "11.txt", "it has 1,200,000 bytes, more"),
    "row is missing": ({"metadata.jsonl": NO_LINE}, "text", "11.png", "it has no caption in"),
    "row without a caption": (with_row(None), "text", "11.png", "it has no caption in"),
    "row of an empty caption": (with_row(""), "text", "11.png", "its caption is empty in"),
    "row of a number": (with_row(3), "text", "11.png", "its caption 3 is not a text in"),
    "row of several, one empty": (with_row(["a", " "]), "text", "11.png", "its caption is empty in"),
    "row of half a letter": (with_row("\ud800"), "text", "11.png", "is not valid Unicode in"),
    "row for no image": (jsonl() | {"metadata.csv": b""}, "text", "metadata.jsonl", "both name images"),
    "table is not JSON": ({"metadata.jsonl": b'{"file_name": "00.png"'}, "text", "metadata.jsonl, line 1", "not JSON"),
    "table is not UTF-8": (
        {"metadata.csv": b"file_name,text\n00.png,\xff"},
        "text",
        "metadata.csv",
        "not text in UTF-8",
    ),
    "no such column": (jsonl(), "txet", "", "has no captions txet: .*metadata.jsonl has the columns file_name, text"),
    "texts by another name": (beside(), "text", "", "has no captions text: 12 texts are next to images: .*=txt"),
    "nothing": ({}, "txt", "", "has no captions txt: no table and no texts of the names of images are there"),
    "a table and texts": (jsonl() | {"00.txt": b"a"}, "text", "metadata.jsonl", r"and .*/00\.txt both have captions"),
    "texts and a table": (jsonl("prompt") | beside(), "txt", "metadata.jsonl", r"and .*/00\.txt both have captions"),
}
del BROKEN["row for no image"]  # this is a matter of tables, which test_layout.py has


@pytest.mark.parametrize(("files", "option", "named", "reason"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_ends_with_code_3_and_a_path(
    files: dict[str, bytes], option: str, named: str, reason: str, tmp_path: Path
) -> None:
    write(tmp_path, IMAGES | files)
    with pytest.raises(DataError, match=f"(?s){tmp_path}/?{named}.*{reason}") as error:
        _ = captioned(tmp_path, option).splits
    assert error.value.exit_code == 3


@pytest.mark.filterwarnings("ignore:of 12 files")
def test_images_without_a_valid_caption_are_counted_and_may_be_left_out(tmp_path: Path) -> None:
    write(tmp_path, IMAGES | without("11.txt") | {"10.txt": b"\xff", "09.txt": b" ", "08.png": b"broken"})
    with pytest.raises(DataError, match=r"4 of 12 files in .* are not valid images with captions"):
        _ = captioned(tmp_path, "txt").splits
    data = captioned(tmp_path, "txt", max_broken=0.4)
    assert {Path(path).name for path in data.examine().broken} == {"08.png", "09.txt", "10.txt", "11.png"}
    expected = {name: texts[0] for name, texts in zip(NAMES[:8], TEXTS, strict=False)}
    assert by_image(data) | by_image(data, "validation") == expected
    lazy = captioned(tmp_path, "txt", max_broken=0.4, memory_limit=0.0)
    assert torch.equal(collect(lazy.splits["train"])["x"], collect(data.splits["train"])["x"])


@pytest.mark.slow
def test_a_folder_with_captions_is_trained_on_and_asked_for_texts(tmp_path: Path) -> None:
    write(tmp_path / "in", IMAGES | jsonl())
    small = ["experiment=text_to_image", "network.base_channels=8", "data.batch_size=4", "data.held_out=0.25"]
    small += ["~callbacks.evaluate", "callbacks.pictures.num_samples=2", "time_grid.num_steps=2", "trainer.max_steps=2"]
    trained(tmp_path / "run", f"data.path={tmp_path / 'in'}", options=small)
    arrays, _ = sampled(tmp_path / "run", tmp_path / "out", "num_samples=2", "condition.caption=[a fox,'größer']")
    assert arrays["caption"].tolist() == ["a fox", "größer"]
    with pytest.raises(SystemExit) as end:
        trained(tmp_path / "none", f"data.path={tmp_path / 'in'}", "data.captions=txet", options=small)
    assert end.value.code == 3


def test_check_data_reports_captions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in", IMAGES | beside())
    (tmp_path / "in" / "11.txt").write_text("a b c d")
    data = captioned(tmp_path / "in", "txt", validation=str(tmp_path / "in"))
    assert inspect(data, tmp_path / "out", None, Words(8, num_heads=2, length=3))
    printed = capsys.readouterr().out
    assert "  caption            16 texts of 12 items of 1 to 4 words, 5 to 10 bytes\n" in printed
    assert "  vocabulary         14 words (picture, a, fox, größer, 1, ...), 10 of which occur once\n" in printed
    assert "skipped" not in printed
    assert "  repeated texts     6: a fox 4 times\n" in printed
    assert "  cut texts          1, which are longer than what the conditioner reads\n" in printed
    write(tmp_path / "in", {"10.txt": b""})
    assert not inspect(captioned(tmp_path / "in", "txt"), tmp_path / "out")
    assert "10.txt: it has no caption" in capsys.readouterr().out


def test_a_mixture_makes_captions_of_the_classes_of_its_sources(tmp_path: Path) -> None:
    write(tmp_path, {f"{i % 2}/{name}": content for i, (name, content) in enumerate({**IMAGES, **beside()}.items())})
    shape = [1, 8, 8]
    digits = Digits(shape, 10, 8)
    mine = captioned(tmp_path, "txt", shape=shape, num_classes=None)

    def mixture(captions: dict[str, str] | None, **options: Any) -> Mixture:
        return Mixture({"digits": digits, "mine": mine}, shape, 10, 8, True, captions=captions, **options)

    data = mixture({"digits": "the digit {label}"}, weights={"digits": 1.0, "mine": 1.0})
    train = data.splits["train"]
    count = len(digits.splits["train"]["x"])
    labels, texts = train["label"][torch.arange(count)], decoded(train["caption"][torch.arange(len(train["x"]))])
    assert texts[:count] == [f"the digit {label}" for label in labels.tolist()]
    assert texts[count:] == decoded(collect(mine.splits["train"])["caption"])
    drawn = Counter(decoded(ShuffledLoader(train, 300, 0, order=data.order()).batch(0)["caption"]))
    assert min(drawn["a fox"], drawn["größer"]) > 10
    assert len(data.fingerprint) == 64
    with pytest.raises(DataError, match=r"data\.captions\.mine is a template, but the source has captions already"):
        _ = mixture({"digits": "{label}", "mine": "{label}"}).splits
    with pytest.raises(DataError, match="all sources must have the same fields"):
        _ = mixture(None).splits
    with pytest.raises(ValueError, match=r"data\.captions names other, but the sources are digits, mine"):
        mixture({"other": "{label}"})
    with pytest.raises(ValueError, match=r"data\.captions\.digits=text must have {label}"):
        mixture({"digits": "text"})


def shard(path: Path, change: Callable[[str, int], dict[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for number, (name, image) in enumerate(IMAGES.items()):
            members = {"png": image, "cls": str(3 + number % 2).encode(), **change(name, number)}
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{name[:2]}.{extension}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def sharded(path: Path, captions: str, **options: Any) -> WebDataset:
    shape = [3, SIDE, SIDE]
    given: dict[str, Any] = {"label": "cls", "num_classes": None, "batch_size": 4, **options}
    return WebDataset(str(path), str(path), ["png"], shape=shape, decoder=Decoder(shape), captions=captions, **given)


def test_shards_have_captions_in_texts_in_json_or_of_classes(tmp_path: Path) -> None:
    path = shard(
        tmp_path / "a.tar",
        lambda _, i: {"txt": "\n".join(TEXTS[i]).encode(), "json": json.dumps({"caption": TEXTS[i], "n": 1}).encode()},
    )
    expected = [texts[0] for texts in TEXTS]
    for captions in ("txt", "json.caption"):
        for _ in range(2):  # the second time from the stored positions
            data = sharded(path, captions)
            column = data.splits["train"]["caption"]
            assert decoded(collect(data.splits["train"])["caption"]) == expected
        drawn = Counter(decoded(ShuffledLoader(data.splits["train"], 100, 0).batch(0)["caption"]))
        assert min(drawn["a fox"], drawn["größer"]) > 5
        assert tuple(column.shape) == (COUNT, 10)
    texts = decoded(collect(sharded(path, "class {label}").splits["train"])["caption"])
    assert texts == [f"class {3 + number % 2}" for number in range(COUNT)]
    assert len({sharded(path, each).fingerprint for each in ("txt", "json.caption", "class {label}")}) == 3
    with pytest.raises(ValueError, match=r"needs classes: set data\.label"):
        sharded(path, "{label}", label=None)


@pytest.mark.parametrize(
    ("captions", "content", "words"),
    [
        ("txt", {}, r"05\.png: has no caption: its \.txt is missing"),
        ("txt", {"txt": b""}, r"05\.txt: it has no caption"),
        ("txt", {"txt": b" \n\t"}, r"05\.txt: it has no caption"),
        ("txt", {"txt": b"\xff"}, r"05\.txt: it is not text in UTF-8"),
        ("txt", {"txt": b"a\0b"}, r"05\.txt: its caption contains the character 0"),
        ("txt", {"txt": b"a" * 70_000}, r"05\.txt: its caption has 70,000 bytes, more"),
        ("json.text", {}, r"05\.png: has no caption: its \.json is missing"),
        ("json.text", {"json": b"{"}, r"05\.json: .* not JSON"),
        ("json.text", {"json": b"[]"}, r"05\.json: "),
        ("json.text", {"json": b"{}"}, r"05\.json: it has no caption"),
        ("json.text", {"json": b'{"text": 7}'}, r"05\.json: its caption 7 is not a text"),
        ("json.text", {"json": b'{"text": ["a", ""]}'}, r"05\.json: its caption is empty"),
        ("json.text", {"json": b'{"text": "\\ud800"}'}, r"05\.json: its caption .* is not valid Unicode"),
    ],
)
def test_a_sample_without_a_valid_caption_is_named(
    captions: str, content: dict[str, bytes], words: str, tmp_path: Path
) -> None:
    fine = {"txt": b"a", "json": b'{"text": ["b"]}'}
    path = shard(tmp_path / "a.tar", lambda _, number: content if number == 5 else fine)
    for _ in range(2):  # the second time from the stored positions
        with pytest.raises(DataError, match=f"1 of 12 samples have no valid caption:\n  {path}: {words}") as error:
            _ = sharded(path, captions).splits
        assert error.value.exit_code == 3


@pytest.mark.filterwarnings("ignore:3 of 12 samples have no valid caption and are left out")
def test_samples_without_a_valid_caption_are_counted_and_may_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {2: {}, 5: {"txt": b"\xff"}, 7: {"txt": b""}}
    path = shard(tmp_path / "a.tar", lambda _, number: broken.get(number, {"txt": f"text {number}".encode()}))
    with pytest.raises(DataError, match=r"(?s)3 of 12 .*02\.png.*05\.txt.*07\.txt.*raise data\.max_broken=0\.0"):
        _ = sharded(path, "txt").splits
    left = collect(sharded(path, "txt", max_broken=0.25).splits["train"])
    assert decoded(left["caption"]) == [f"text {number}" for number in range(COUNT) if number not in broken]
    assert left["label"].tolist() == [number % 2 for number in range(COUNT) if number not in broken]
    assert not inspect(sharded(path, "txt"), tmp_path / "report")
    printed = capsys.readouterr().out
    assert f"{path}: 05.txt: it is not text in UTF-8" in printed
    assert (tmp_path / "report" / "items.txt").read_text().count("broken\t") == 3
    every = shard(tmp_path / "b.tar", lambda *_: {"txt": b""})
    with pytest.raises(DataError, match=r"(?s)12 of 12 samples .*and 7 more"):
        _ = sharded(every, "txt").splits
