"""The page of the report: what is bundled, that it asks nobody, and what a browser shows of it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from report import FLAGS, make_run, make_sweep, opened

from inkdrop.commands.report.html import LIBRARIES, LICENCES, WEB
from inkdrop.commands.report.page import report
from inkdrop.commands.report.strips import pictures_of, representatives
from inkdrop.files import read_json

METRIC = "fd_digits_350"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
in_browser = pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of six settings with its report."""
    folder = make_sweep(tmp_path_factory.mktemp("sweep"), settings=6, seeds=2, rows=40)
    report(folder).write(folder)
    return folder


def dumped(page: Path, address: str, tmp_path: Path) -> str:
    """The elements of a page in this state of its address, as Chromium has them once its scripts have run."""
    assert BROWSER is not None
    options = [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    command = [BROWSER, *options, f"file://{page}{address}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def shown(text: str) -> list[tuple[str, list[str]]]:
    """The rows of the leaderboard: for a setting its label and for a run its folder, and the texts of the cells."""
    body = text[text.index('class="tabulator-table"') : text.index('id="curves"')]
    rows = []
    for row in re.split(r'<div class="tabulator-row', body)[1:]:
        found = re.search(r'data-(?:setting|run)="([^"]*)"', row)
        assert found is not None
        cells = re.split(r'<div class="tabulator-cell', row)[1:]
        texts = [re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", f"<{cell}")).strip() for cell in cells]
        rows.append((html.unescape(found[1]), [html.unescape(each) for each in texts]))
    return rows


def measured(folder: Path, label: str) -> list[float]:
    """The values of a setting by seed, from the files."""
    files = sorted(folder.glob(f"*{label.replace(', ', ',')},seed=*/result.json"))
    return [read_json(file)["metrics"][METRIC] for file in files]


def test_what_is_bundled_is_what_was_published_and_has_its_licence() -> None:
    for name, digest in LIBRARIES.items():
        assert hashlib.sha256((WEB / name).read_bytes()).hexdigest() == digest
    assert "Tabulator v6.5.3 (c) Oliver Folkerd" in (WEB / "tabulator.min.js").read_text()[:100]
    assert "uPlot (v1.6.32)" in (WEB / "uPlot.iife.min.js").read_text()[:100]
    own = {"report.js", "report.css"}
    assert {file.name for file in WEB.iterdir()} == {*LIBRARIES, *LICENCES, *own}
    for name, owner in zip(LICENCES, ("Oli Folkerd", "Leon Sorokin"), strict=True):
        text = (WEB / name).read_text()
        assert text.startswith("The MIT License (MIT)")
        assert owner in text


@pytest.mark.slow
def test_the_page_names_licences_and_allows_no_request(sweep: Path) -> None:
    page = (sweep / "report.html").read_text()
    assert page.count("Permission is hereby granted, free of charge") == len(LICENCES)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    allowed = dict(each.split(" ", 1) for each in policy.split("; "))
    assert allowed["style-src"] == "'unsafe-inline'"
    assert allowed["img-src"] == "data:"
    assert allowed.keys() == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    scripts = re.findall(r"^<script>(.*?)</script>$", page, re.MULTILINE | re.DOTALL)
    digests = {base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts}
    assert digests == {each.removeprefix("'sha256-").rstrip("'") for each in allowed["script-src"].split()}
    assert not re.search(r"<(link|iframe|object|embed|base|form)\b|\bsrc\s*=\s*[\"']?http", page)
    assert not re.search(r"url\(\s*[\"']?http|@import", page)
    assert "sourceMappingURL" not in page


@pytest.mark.slow
def test_the_page_of_fifty_runs_is_small(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path, settings=17, seeds=3)
    found = report(folder)
    assert len(found.results) == 50
    pictures = pictures_of(representatives(found.rows), {})
    assert len(pictures) == 17
    found.write(folder)
    assert (folder / "report.html").stat().st_size < 2e6


@in_browser
@pytest.mark.slow
def test_a_browser_sorts_filters_and_expands_by_the_address(sweep: Path, tmp_path: Path) -> None:
    page = sweep / "report.html"
    ranked = [row.label for row in report(sweep).rows]
    rows = shown(dumped(page, "", tmp_path))
    assert [label for label, _ in rows] == ranked
    for label, cells in rows:
        values = measured(sweep, label)
        assert f"{np.mean(values):.5g}" in [cell.split(" ")[0] for cell in cells]
        assert str(len(values)) in cells
    descending = shown(dumped(page, f"#sort={quote(METRIC)}:desc", tmp_path))
    assert [label for label, _ in descending] == ranked[::-1]
    by_option = shown(dumped(page, "#sort=schedule:desc", tmp_path))
    schedules = [label.split(",")[0] for label, _ in by_option]
    assert schedules == sorted(schedules, reverse=True)
    chosen = "schedule=linear, prediction=v"
    few = shown(dumped(page, f"#filter={quote('schedule=linear')}&open={quote(chosen)}&sort=n", tmp_path))
    assert {label for label, _ in few if ",seed=" not in label} == {chosen, "schedule=linear, prediction=noise"}
    runs = [(label, cells) for label, cells in few if ",seed=" in label]
    assert [label.rpartition("seed=")[2] for label, _ in runs] == ["0", "1"]
    for (_, cells), value in zip(runs, measured(sweep, chosen), strict=True):
        assert f"{value:.5g}" in cells
    limit = np.mean([np.mean(measured(sweep, label)) for label in ranked[2:4]])
    below = shown(dumped(page, f"#filter={quote(f'{METRIC}<{limit}')}", tmp_path))
    assert [label for label, _ in below] == ranked[:3]
    assert shown(dumped(page, "#filter=nothing+like+this", tmp_path)) == []


@in_browser
@pytest.mark.slow
def test_a_browser_draws_the_page_and_asks_nobody(sweep: Path, tmp_path: Path) -> None:
    assert BROWSER is not None
    ready, requests = opened(sweep / "report.html", BROWSER, tmp_path / "page.png")
    assert requests == []
    assert ready > 0  # benchmarks/report.py measures how long it takes, on an idle machine
    with Image.open(tmp_path / "page.png") as picture:
        colours = {tuple(each) for each in np.asarray(picture.convert("RGB"))[::4, ::4].reshape(-1, 3).tolist()}
    assert len(colours) > 20  # the charts are drawn


EVIL = ["<img src=x onerror=document.title='pwned'>", "</script><script>document.title='pwned'</script>"]
EVIL += ["<!--<script>", "{{constructor}}", "\u2028", "' onmouseover='x", "&lt;b&gt;", "]]>", "__proto__"]


class Elements(HTMLParser):
    """What a page consists of."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds, self.attributes, self.sources = Counter[str](), set[str](), list[str]()
        self.texts, self.title, self._inside = set[str](), "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.kinds[tag] += 1
        self._inside = tag
        self.attributes |= {name for name, _ in attrs}
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.texts.add(data)
        self.title += data if self._inside == "title" else ""


@in_browser
@pytest.mark.slow
def test_texts_of_files_are_only_texts_in_a_browser(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    for number, evil in enumerate(EVIL):
        made = folder / f"{number}{evil.replace('/', '|')}"
        make_run(made, 0.001, "cosine", "v", number, rows=20)
        content = read_json(made / "result.json")
        content["metrics"] |= {evil: 1.0 + number}
        content["protocol"]["metrics"] |= {evil: {"hash": evil, evil: evil}}
        content |= {"git_commit": evil, "versions": {evil: evil}}
        (made / "result.json").write_text(json.dumps(content))
        config = (made / "config.yaml").read_text()
        options = {f"option {evil}": evil, "own": evil}
        lines = [f"{json.dumps(name)}: {json.dumps(value)}\n" for name, value in options.items()]
        (made / "config.yaml").write_text(config + "".join(lines))
    sweep = make_sweep(tmp_path / "other", settings=1, seeds=1, rows=20)
    record = read_json(sweep / "sweep.json")
    changed = [{"name": evil.replace("/", "|"), "message": evil, "overrides": [f"{evil}={evil}"]} for evil in EVIL]
    record["trials"] = [{**record["trials"][-1], "state": "pruned", **each} for each in changed]
    (folder / "sweep.json").write_text(json.dumps(record))
    report(folder).write(folder)
    state = f"#open={quote(EVIL[0])}&filter={quote(EVIL[2])}&sort={quote(EVIL[1])}"
    text = dumped(folder / "report.html", state, tmp_path)
    text += dumped(folder / "report.html", "", tmp_path)
    assert text.count('data-ready="') == 2
    elements = Elements()
    elements.feed(text)
    assert "pwned" not in elements.title
    assert elements.kinds["script"] == 2 * 4
    assert [name for name in elements.attributes if name.startswith("on")] == []
    assert {source[:5] for source in elements.sources} <= {"data:"}
    assert {*EVIL} - {"\u2028"} <= {*elements.texts}  # a separator of lines is shown escaped


def test_a_picture_that_cannot_be_read_leaves_the_page(tmp_path: Path) -> None:
    for seed, content in enumerate((b"", b"\x89PNG\r\n\x1a\n" + bytes(100), b"GIF89a")):
        make_run(tmp_path / str(seed), 0.001 * (seed + 1), "cosine", "v", 0, rows=20)
        (tmp_path / str(seed) / "pictures" / "samples-00002000.png").write_bytes(content)
    make_run(tmp_path / "good", 0.1, "cosine", "v", 0, rows=20)
    found = report(tmp_path)
    assert [*pictures_of(representatives(found.rows), {})] == ["lr=0.1"]
    found.write(tmp_path)
