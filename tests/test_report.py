"""Results side by side: sweeps at sampling time, tables, curves, and what may not share a column."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from entry_scripts import completed
from PIL import Image
from runs import trained

import inkdrop.__main__
from inkdrop.commands.report.figures import against_calls
from inkdrop.commands.report.page import report
from inkdrop.metrics.protocol import protocol

FILES = {"report.html", "report.md", "report.csv", "report_runs.csv", "report.tex"}  # that are always written


TITLES = ["fd_100", "fd_100 low", "fd_100 high", "fd_100 / floor", "fd_100 protocol"]
COMMANDS = {"usepackage", "begin", "end", "toprule", "midrule", "bottomrule", "pm", *"&%$#_{}\\"}  # of LaTeX
COMMANDS |= {f"text{name}" for name in ("backslash", "asciitilde", "asciicircum", "less", "greater", "bar")}


def result(calls: int, value: float, sampler: str = "DDIM", **measurement: Any) -> dict[str, Any]:
    """A result.json as sample.py writes it, with what the report reads."""
    options = {"eta": 0.0} if sampler == "DDIM" else {}
    sampling = {
        "sampler": {"_target_": f"inkdrop.samplers.{sampler}", "time_grid": {"num_steps": calls}, **options},
        "guidance": {},
        "seed": 0,
        "network_calls": calls,
    }
    facts = {"num_samples": 100, "reference": "train", **measurement}
    metrics = {"fd_100": value, "fd_100_floor": 0.5, "fd_100_baseline": 90.0}
    return {"metrics": metrics, "protocol": protocol(facts, {"fd_100": {"metric": "FrechetDistance"}}, sampling)}


def write(folder: Path, results: list[dict[str, Any]]) -> Path:
    for number, each in enumerate(results):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "result.json").write_text(json.dumps(each))
    return folder


def test_a_table_has_what_differs_and_floor_and_baseline(tmp_path: Path) -> None:
    folder = write(tmp_path, [result(5, 3.0), result(10, 2.0), result(5, 4.0, "Heun")])
    found = report(folder)
    digest = found.protocol("fd_100")["hash"]
    assert found.table() == [
        ["sampler", "num_steps", "n", "fd_100", "fd_100 / floor", "network calls"],
        ["DDIM", "10", "1", "2", "4", "10"],
        ["DDIM", "5", "1", "3", "6", "5"],
        ["Heun", "5", "1", "4", "8", "5"],
        ["floor", "", "", "0.5", "", ""],
        ["baseline", "", "", "90", "", ""],
        ["protocol", "", "", digest, "", ""],
    ]
    assert against_calls(found, "fd_100") == {"sampler DDIM": [(5, 3.0), (10, 2.0)], "sampler Heun": [(5, 4.0)]}
    files = {file.name: file for file in found.write(folder)}
    assert files.keys() == FILES | {"report.png"}
    assert list(csv.reader(files["report.csv"].read_text().splitlines())) == [
        ["sampler", "num_steps", "n", "seeds", "folders", *TITLES, "network calls"],
        ["DDIM", "10", "1", "0", "1", "2.0", "", "", "4.0", digest, "10.0"],
        ["DDIM", "5", "1", "0", "0", "3.0", "", "", "6.0", digest, "5.0"],
        ["Heun", "5", "1", "0", "2", "4.0", "", "", "8.0", digest, "5.0"],
    ]
    text = files["report.md"].read_text()
    assert "| DDIM | 5 | 1 | 3 | 6 | 5 |" in text
    assert f"fd_100: protocol {digest}: metric FrechetDistance" in text
    assert r"DDIM & 5 & 1 & 3 & 6 & 5 \\" in files["report.tex"].read_text()
    with Image.open(files["report.png"]) as image:
        assert image.size[0] > 400


def test_results_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write(tmp_path, [result(calls, 1.0) for calls in range(1, 13)])
    assert [row.cost("network calls") for row in report(tmp_path).rows] == list(range(1, 13))


def test_unlike_protocols_do_not_share_a_column(tmp_path: Path) -> None:
    write(tmp_path, [result(5, 3.0), result(10, 2.0, reference="validation")])
    with pytest.raises(ValueError, match="fd_100 is measured under different protocols") as refused:
        report(tmp_path)
    assert "such as 0: reference train\n" in str(refused.value)
    assert "such as 1: reference validation\n" in str(refused.value)
    chosen = json.loads((tmp_path / "1" / "result.json").read_text())["protocol"]["metrics"]["fd_100"]["hash"]
    assert [each.name for each in report(tmp_path, chosen).results] == ["1"]
    with pytest.raises(ValueError, match="--protocol 0000 does not occur in"):
        report(tmp_path, "0000")


def test_intervals_and_variants_go_by_the_protocol_of_their_metric(tmp_path: Path) -> None:
    results = [result(5, 3.0), result(10, 2.0, reference="validation")]
    for each in results:
        each["metrics"] |= {"fd_100_low": 1.0, "fd_100_min": 1.5, "fd_100@raw": 9.0, "fd_100_low@raw": 8.0}
    hashes = [each["protocol"]["metrics"]["fd_100"]["hash"] for each in results]
    for name in ("fd_100_low", "fd_100_min", "fd_100@raw", "fd_100_low@raw"):
        alone = [{**each, "metrics": {name: each["metrics"][name]}} for each in results]
        folder = write(tmp_path / name, alone)
        with pytest.raises(ValueError, match=f"{name} is measured under different protocols"):
            report(folder)
        assert [each.metrics for each in report(folder, hashes[1]).results] == [alone[1]["metrics"]]


@pytest.mark.slow
def test_the_table_goes_to_wandb(tmp_path: Path) -> None:
    folder = write(tmp_path, [result(5, 3.0), result(10, 2.0)])
    done = completed("-m", "inkdrop", "report", str(folder), "--wandb", "comparisons")
    assert done.returncode == 0, done.stderr
    assert "W&B logging has stopped" not in done.stderr
    (table,) = folder.glob("wandb/offline-run-*/files/media/table/report_*.table.json")
    content = json.loads(table.read_text())
    assert [content["columns"], *content["data"]] == report(folder).table()


def test_bits_per_dimension_under_unlike_options_do_not_share_a_column(tmp_path: Path) -> None:
    bits = []
    for steps in (4, 8):
        facts = {"likelihood": "VariationalBound", "num_steps": steps}
        record = protocol({"num_samples": steps}, {}, {"network_calls": 5}, {"bits_per_dim_bound_9": facts})
        bits.append({"metrics": {"bits_per_dim_bound_9": 1.5}, "protocol": record})
    write(tmp_path / "unlike", bits)
    with pytest.raises(ValueError, match="bits_per_dim_bound_9 is measured under different protocols") as refused:
        report(tmp_path / "unlike")
    assert "such as 1: num_steps 8\n" in str(refused.value)
    bits[1]["protocol"]["likelihoods"] = bits[0]["protocol"]["likelihoods"]  # of other samples, which do not matter
    found = report(write(tmp_path / "alike", bits))
    assert [row.summary("bits_per_dim_bound_9").mean for row in found.rows] == [1.5]
    assert [len(row.runs) for row in found.rows] == [2]  # of unknown seeds


@pytest.mark.parametrize(("first", "shown"), [(0, True), (1, False)], ids=["same seeds", "other seeds"])
def test_strips_show_every_setting_on_the_same_seeds(first: int, shown: bool, tmp_path: Path) -> None:
    folder = write(tmp_path, [result(5, 3.0), result(10, 2.0)])
    for number, start in enumerate((0, first)):
        x = np.full((3, 8, 8, 1), 100 * number, np.uint8)
        np.savez(folder / str(number) / "samples.npz", x=x, seeds=np.arange(start, start + 3))
    files = {file.name for file in report(folder).write(folder)}
    assert ("strips.png" in files) == shown
    if shown:
        with Image.open(folder / "strips.png") as image:
            grey = np.asarray(image.convert("L"))
        rows = grey[:, grey.shape[1] // 2]  # through the second image of each strip
        assert {0, 100} <= set(rows.tolist())
        assert rows.tolist().index(100) < rows.tolist().index(0)  # the better one is above


@pytest.mark.parametrize(
    ("shape", "value", "shown"),
    [((3, 2, 10), 1.0, True), ((3, 2, 10), math.nan, False), ((3, 2), 1.0, False)],
    ids=["series", "series of nan", "points"],
)
def test_strips_show_samples_that_are_shown_one_by_one(
    shape: tuple[int, ...], value: float, shown: bool, tmp_path: Path
) -> None:
    folder = write(tmp_path, [result(5, 3.0), result(10, 2.0)])
    for number in range(2):
        x = np.linspace(0, 1, math.prod(shape)).reshape(shape)
        x[0, 0] = value
        np.savez(folder / str(number) / "samples.npz", x=x, seeds=np.arange(3))
    assert ("strips.png" in {file.name for file in report(folder).write(folder)}) == shown


def test_a_variant_is_a_row_of_its_own(tmp_path: Path) -> None:
    content = result(5, 3.0)
    sampling = content["protocol"]["sampling"]
    content["metrics"] |= {"fd_100@more": 2.0, "train/loss": 0.1}
    content["protocol"]["variants"] = {"more": {"hash": "0", "sampling": {**sampling, "network_calls": 9, "seed": 1}}}
    found = report(write(tmp_path, [content]))
    assert found.table()[:3] == [
        ["variant", "n", "fd_100", "fd_100 / floor", "network calls"],
        ["more", "1", "2", "", "9"],
        ["", "1", "3", "6", "5"],
    ]
    assert [each.name for each in found.results] == ["0", "0@more"]


def test_values_without_a_protocol_are_unlike_those_with_one(tmp_path: Path) -> None:
    write(tmp_path, [result(5, 3.0), {"metrics": {"fd_100": 1.0}}])
    with pytest.raises(ValueError, match="different protocols"):
        report(tmp_path)


def test_a_folder_without_results_and_a_broken_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no result\.json with metrics"):
        report(tmp_path)
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(ValueError, match=r"result\.json cannot be read"):
        report(tmp_path)


@pytest.mark.slow
def test_a_sweep_at_sampling_time_ends_with_its_table(tmp_path: Path) -> None:
    trained(tmp_path / "run")
    options = ["num_samples=20", "evaluate=true", "time_grid.num_steps=2,3", "sampler=ddim,heun", "guidance=none"]
    done = completed("sample.py", "-m", f"checkpoint={tmp_path / 'run'}", *options, f"output_dir={tmp_path / 'sweep'}")
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.index("| sampler") :].split("\n\n")[0]
    assert table.count("| DDIM |") == table.count("| heun |") == 2
    assert "| floor |" in table
    assert (tmp_path / "sweep" / "report.png").exists()
    assert (tmp_path / "sweep" / "strips.png").exists()  # the same seeds under every setting
    results = report(tmp_path / "sweep").results
    found = {(each.settings["sampler"], each.costs["network calls"]) for each in results}
    assert found == {("DDIM", 2), ("DDIM", 3), ("heun", 3), ("heun", 5)}
    alone = completed(
        "sample.py", f"checkpoint={tmp_path / 'run'}", "num_samples=20", "evaluate=true", "time_grid.num_steps=3",
        "sampler=ddim", "guidance=none", f"output_dir={tmp_path / 'alone'}",
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    metrics = json.loads((tmp_path / "alone" / "result.json").read_text())["metrics"]
    (same,) = [each for each in results if each.settings["sampler"] == "DDIM" and each.costs["network calls"] == 3]
    assert metrics == same.metrics
    shown = completed("-m", "inkdrop", "report", str(tmp_path / "sweep"))
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("| sampler | num_steps | n | fd_digits_20 | fd_digits_20 / floor | network calls |")


GOOD = result(5, 3.0)


def altered(path: str, value: Any) -> str:
    """A good result with another value at a path."""
    content = json.loads(json.dumps(GOOD))
    *names, last = path.split("/")
    node = content
    for name in names:
        node = node[name]
    node[last] = value
    return json.dumps(content)


# name: (content of result.json, what is said of it)
MALFORMED: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "it is not JSON"),
    "half": ("{", "it is not JSON"),
    "no text": (b"\xff\xfe\xfa", "it is not JSON"),
    "list": ("[]", "it contains a list"),
    "number": ("3", "it contains a int"),
    "deep": ("[" * 10**6, "more than 64 levels deep"),
    "huge": (" " * 2**23, "more than 4,194,304 bytes"),
    "metrics list": (altered("metrics", [1]), "metrics"),
    "metric text": (altered("metrics/fd_100", "low"), "metrics.fd_100"),
    "metric list": (altered("metrics/fd_100", [1]), "metrics.fd_100"),
    "metric null": (altered("metrics/fd_100", None), "metrics.fd_100"),
    "metric long": (altered("metrics/fd_100", 10**4000), "metrics.fd_100"),
    "metrics many": (altered("metrics", dict.fromkeys(map(str, range(2000)), 1.0)), "at most 1000"),
    "calls text": (altered("protocol/sampling/network_calls", "5"), "network_calls"),
    "calls negative": (altered("protocol/sampling/network_calls", -5), "network_calls"),
    "calls huge": (altered("protocol/sampling/network_calls", 10**30), "network_calls"),
    "calls list": (altered("network_calls", [5]), "network_calls"),
    "protocol list": (altered("protocol", []), "protocol: input should be a valid dictionary"),
    "protocol empty": (altered("protocol", {}), "it lacks measurement"),
    "measurement": (altered("protocol/measurement", 3), "measurement"),
    "protocols": (altered("protocol/metrics", {"fd_100": 3}), "metrics.fd_100"),
    "hash": (altered("protocol/metrics/fd_100/hash", 3), "hash: input should be a valid string"),
    "sampling": (altered("protocol/sampling", []), "sampling"),
    "variants": (altered("protocol/variants", {"a": {}}), "sampling is not a mapping"),
    "likelihoods": (altered("protocol/likelihoods", [3]), "likelihoods"),
}


@pytest.mark.parametrize(("content", "told"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_named_and_hides_no_other(
    content: str | bytes, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, [GOOD, GOOD]) / "1" / "result.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr(sys, "argv", ["inkdrop", "report", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        inkdrop.__main__.main()
    assert ended.value.code == 3
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {file} ")
    assert told in said.err
    assert len(said.err) < 600
    assert "| 0 | 1 | 3 | 6 | 5 |" in said.out
    shutil.rmtree(tmp_path / "0")
    with pytest.raises(SystemExit) as ended:
        inkdrop.__main__.main()
    assert ended.value.code == 3
    assert told in capsys.readouterr().err


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path, [GOOD])
    for name, make in {
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
        "link": lambda path: path.symlink_to("/dev/zero"),
    }.items():
        (tmp_path / name).mkdir()
        make(tmp_path / name / "result.json")
    (tmp_path / "0" / "samples.npz").touch()
    found = report(tmp_path)
    assert [each.name for each in found.results] == ["0"]
    assert len(found.unreadable) == 3
    assert all("it is not a regular file" in told for told in found.unreadable)


def assert_harmless(page: str) -> None:
    """What the page shows is within one script of JSON, which nothing in it ends; no other address is in it."""
    before, _, rest = page.partition('<script type="application/json" id="content">')
    content, _, after = rest.partition("</script>")
    assert set(content).isdisjoint("<>&")
    assert all(each.isprintable() for each in content)
    json.loads(content)
    assert re.sub(r"<title>.*</title>", "", before).count("<script") == 0
    assert re.findall(r"^<script", after, re.MULTILINE) == ["<script"] * 3


EVIL = ["\x1b[2J\x1b]0;title\x07", "# heading\n## another", "| a | b |", "<script>alert(1)</script>", "![](http://a/b)",
        "=HYPERLINK(\"http://a\")", "@SUM(1)", "+1+1", "-1+1", "\t=1", "$\\frac$", "_hidden", "\u202e", "\ud800",
        "a,b\"c", "x" * 10**5, "---", "1. a"]  # fmt: skip


@pytest.mark.many
@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_nothing_in_a_result_does_anything_where_it_is_shown(evil: str, tmp_path: Path) -> None:
    contents = [result(calls, float(calls), evil) for calls in (5, 10, 15)]
    for number, content in enumerate(contents):
        content["metrics"] = {evil: 1.0 + number, f"{evil}_floor": 0.5}
        content["protocol"]["metrics"] = {evil: {"hash": evil, evil: evil, "list": [evil]}}
        content["protocol"]["sampling"][evil] = f"{evil}{number % 2}"
        content["checkpoint"] = evil if number else "other"
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "result.json").write_text(json.dumps(content))
        np.savez(tmp_path / str(number) / "samples.npz", x=np.zeros((2, 8, 8, 1), np.uint8), seeds=np.arange(2))
    found = report(tmp_path)
    text = found.markdown()
    assert all(line.isprintable() for line in text.splitlines())
    assert max(map(len, text.splitlines())) < 4000
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("| ")]
    assert len(tables) >= 1
    for lines in tables:
        for line in lines:
            assert len(re.findall(r"(?<!\\)\|", line)) == lines[1].count("|")
            assert not re.search(r"(?<!\\)[<>`\[]", line)
    assert not re.search(r"^(#|-|\+|=|\d+\.)", text, re.MULTILINE)
    files = {file.name: file for file in found.write(tmp_path)}
    assert files.keys() == FILES | {"report.png", "strips.png"}
    for name in ("report.csv", "report_runs.csv"):
        header, *rows = csv.reader(files[name].read_text().splitlines())
        assert len(rows) == 3
        for line in (header, *rows):
            assert len(line) == len(header)
            for value in line:
                assert value.isprintable()
                assert not re.match(r"\s*[=+@-]", value)
    tex = files["report.tex"].read_text()
    assert all(line.isprintable() for line in tex.splitlines())
    assert set(re.findall(r"\\([A-Za-z]+|.)", tex)) <= COMMANDS
    assert not re.search(r"(?<!\\)[#_~^<>|]|^\s*\[", tex, re.MULTILINE)
    assert_harmless(files["report.html"].read_text())


@pytest.mark.parametrize("evil", [b"", b"PK\x05\x06", b"\x93NUMPY"])
def test_samples_that_cannot_be_read_leave_the_table(evil: bytes, tmp_path: Path) -> None:
    folder = write(tmp_path, [result(5, 3.0), result(10, 2.0)])
    for number in range(2):
        (folder / str(number) / "samples.npz").write_bytes(evil)
    assert {file.name for file in report(folder).write(folder)} == FILES | {"report.png"}


def test_values_that_are_not_finite_stand_in_the_table_alone(tmp_path: Path) -> None:
    write(tmp_path, [result(5, float("nan")), result(10, float("inf")), result(15, 2.0), result(20, 1e308)])
    found = report(tmp_path)
    assert [line[2] for line in found.table()[1:5]] == ["2", "1e+308", "nan", "inf"]
    assert against_calls(found, "fd_100") == {"fd_100": [(15, 2.0)]}
    found.write(tmp_path)
    for number in range(2, 4):
        shutil.rmtree(tmp_path / str(number))
    assert "report.png" not in [file.name for file in report(tmp_path).write(tmp_path)]
