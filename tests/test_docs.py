"""The pages' examples work as they stand."""

import math
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from analytic import SCHEDULES, gaussian, source
from choices import reads_its_codec
from documented import PAGES, blocks, commands, commands_in_sentences, file_name, make_files
from entry_scripts import ROOT
from generated import PRIVATE, api, choices, explanation
from hydra.core.override_parser.overrides_parser import OverridesParser

from inkdrop.__main__ import main as inkdrop_main
from inkdrop.commands.sample import Sample
from inkdrop.commands.sweep.space import read
from inkdrop.conditioners import Conditioner
from inkdrop.configuration import check
from inkdrop.configuration.compose import composed, resolved
from inkdrop.data.module import DataModule
from inkdrop.errors import CheckpointError
from inkdrop.pictures import View
from inkdrop.randomness import Generators
from inkdrop.schedules import Schedule
from inkdrop.time_grids import TimeGrid

PAGE = (ROOT / "docs" / "extending.md").read_text()


def example(marker: str) -> dict[str, Any]:
    """The names that the Python block with this comment defines."""
    block = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if marker in block)
    names: dict[str, Any] = {}
    exec(block, names)
    return names


class UniformLogSNR(TimeGrid):
    def __init__(self, num_steps: int):
        self.num_steps = num_steps

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        return schedule.time(torch.linspace(-4, 4, self.num_steps + 1, dtype=torch.float64)).tolist()


def test_the_example_of_a_sampler_has_order_two() -> None:
    method, schedule, variance = example("extrapolation.py")["Extrapolation"], SCHEDULES["vp"], 0.25
    denoiser = gaussian(schedule, torch.zeros(1), variance * torch.eye(1))
    errors = []
    for count in (64, 128, 256):
        first, *_, last = schedule.points(UniformLogSNR(count)(schedule))
        scale = math.sqrt((last.alpha**2 * variance + last.sigma**2) / (first.alpha**2 * variance + first.sigma**2))
        x = method(UniformLogSNR(count))(denoiser, torch.ones(1, 1).double(), {}, source(1, denoiser.noise))
        errors.append(abs(x.item() - first.sigma * scale))
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.15)


def test_the_example_of_a_data_set_loads() -> None:
    stripes: DataModule = example("stripes.py")["Stripes"]([1, 8, 8], 2, 128)
    assert stripes.splits["train"]["x"].shape == (2000, 1, 8, 8)
    assert set(stripes.splits["train"]["x"].flatten(1).sum(1).tolist()) == {8 * 255}


def test_the_example_of_a_condition_makes_tokens_and_its_null_is_what_dropout_gives() -> None:
    conditioner: Conditioner = example("classes.py")["Classes"](3, 4, dropout=1.0)
    batch = conditioner.request([5, 6], classes=[2, 0])
    table = conditioner.embedding.weight  # type: ignore[union-attr]
    assert torch.equal(conditioner(batch)["tokens"], table[[2, 0]].expand(2, 2, 4))  # type: ignore[index, operator]
    null = conditioner.null(batch)["tokens"]
    assert torch.equal(null, table[3].expand(2, 2, 4))  # type: ignore[index, operator]
    assert torch.equal(conditioner(batch, Generators.from_seeds([5, 6]))["tokens"], null)


def test_the_example_of_a_view_draws_and_writes_levels(tmp_path: Path) -> None:
    view: View = example("letters.py")["Letters"]()
    levels = torch.tensor([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])
    view.check(levels)
    assert view.sheet(levels)[::8, ::8, 0].tolist() == [[25, 50], [75, 100], [125, 150], [175, 200]]
    view.write(tmp_path, levels, {}, [4, 9])
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"4.txt": "12\n34\n", "9.txt": "56\n78\n"}
    with pytest.raises(ValueError, match=r"view=letters shows levels \(H, W\)"):
        view.check(levels.float())


def test_the_page_of_choices_says_what_every_choice_is(tmp_path: Path) -> None:
    page = choices()
    for file in (ROOT / "conf").glob("*/*.yaml"):
        assert page.count(f"\n| `{file.parent.name}={file.stem}` | ") == 1
    (tmp_path / "sampler").mkdir()
    (tmp_path / "sampler" / "mine.yaml").write_text(
        "# @package _global_\n# Steps of x_0 | mine.\n_target_: mine.Mine\n"
    )
    assert "\n| `sampler=mine` | Steps of x\\_0 \\| mine. |\n" in choices(tmp_path)


def test_a_choice_without_an_explanation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("_target_: mine.Mine  # not at the top\n")
    with pytest.raises(ValueError, match=r"mine\.yaml has to begin with a comment"):
        explanation(tmp_path / "mine.yaml")


def test_the_api_shows_what_a_package_exports_once() -> None:
    pages = api()
    assert "::: inkdrop.predictions\n" in pages["api/predictions.md"]
    assert "::: inkdrop.samplers\n" in pages["api/samplers.md"]
    assert "::: inkdrop.samplers.coordinates\n" in pages["api/samplers.md"]  # which the package does not export
    assert "::: inkdrop.samplers.ddim\n" not in pages["api/samplers.md"]  # whose only class it does export
    assert {f"api/{name}.md" for name in PRIVATE} & set(pages) == set()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text()) <= 6000


def test_files_that_pages_name_exist() -> None:
    for page in PAGES:
        text = page.read_text()
        named = re.findall(r"`((?:src/inkdrop|tests|benchmarks|conf)/[\w/.]+\.(?:py|yaml))`", text)
        named += [f"tests/{name}" for name in re.findall(r"`(test_\w+\.py)`", text)]
        assert [name for name in named if not (ROOT / name).is_file()] == [], page.name
        links = re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)", text)
        assert [link for link in links if not (page.parent / link).exists()] == [], page.name


def test_the_map_names_the_parts_of_the_package() -> None:
    package, text = ROOT / "src" / "inkdrop", (ROOT / "docs" / "map.md").read_text()
    shown, sections = text.split("## Where to look in a package")
    tree = shown.split("## The package")[1]
    packages = {entry.parent.name for entry in package.glob("*/__init__.py")}
    modules = {entry.name.removesuffix(".py") for entry in package.iterdir() if entry.is_file()}
    assert set(re.findall(r"^([\w.]+/?)\s+\S", tree.split("```")[1].removeprefix("text"), re.MULTILINE)) == {
        *(f"{name}/" for name in packages),
        *modules,
    }

    files: dict[str, set[str]] = {}
    for line in sections.split("```")[1].splitlines():
        if heading := re.fullmatch(r"(\w+)/", line):
            part = files.setdefault(heading[1], set())
        elif line.startswith("  "):
            start = re.split(r" {2,}", line.strip())[0]  # the explanation follows after several blanks
            part |= set(re.findall(r"[\w/]+\.py", start))
    for name, listed in files.items():
        existing = {file.relative_to(package / name).as_posix() for file in (package / name).rglob("*.py")}
        existing = {file for file in existing if not file.endswith("__init__.py")}
        assert listed <= existing, name
        assert listed == existing or name not in ("commands", "configuration", "runs"), name
    assert set(files) == packages


def test_pages_agree_on_what_the_set_up_downloads_and_how_long_the_training_takes() -> None:
    texts = {file: file.read_text() for file in (*PAGES, ROOT / "Makefile", ROOT / "conf/experiment/digits.yaml")}
    sizes = {
        file.name: set(re.findall(r"about (\S+) GB (?:of packages|are downloaded)", text))
        for file, text in texts.items()
    }
    minutes = {file.name: set(re.findall(r"about (\S+) minutes on two", text)) for file, text in texts.items()}
    for figures, names in (
        (sizes, {"README.md", "CONTRIBUTING.md", "first-hour.md", "Makefile"}),
        (minutes, {"README.md", "experiments.md", "first-hour.md", "Makefile", "digits.yaml"}),
    ):
        assert {name for name, each in figures.items() if each} >= names
        assert len(set().union(*figures.values())) == 1


def lines(page: Path) -> list[list[str]]:
    """The words of each command of a page, in blocks of the shell and within sentences."""
    text = page.read_text()
    written = [line for language, block in blocks(text) if language == "bash" for line in commands(block)]
    return [shlex.split(line) for line in written + commands_in_sentences(text)]


def trials(options: list[str]) -> Iterator[list[str]]:
    """The options of a command that runs once; of a sweep those of its first and of its last trial, and of a search."""
    if "hydra/sweeper=optuna" in options:
        yield from read([each for each in options if each != "-m"]).samples()
        return
    parsed = OverridesParser.create().parse_overrides([each for each in options if each != "-m"])
    for place in (0, -1):
        yield [
            f"{each.get_key_element()}={list(each.sweep_string_iterator())[place]}"
            if each.is_sweep_override()
            else str(each.input_line)
            for each in parsed
        ]
        if "-m" not in options:
            return


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with what pages take for the reader's own, and with the files that they show."""
    make_files(tmp_path, "PHOTOS CAPTIONED .zip .npy", 20)
    (tmp_path / "pictures").symlink_to("CAPTIONED")
    header = ",".join([*(f"c{i}" for i in range(13)), "cultivar"])
    rows = np.c_[np.arange(9 * 13).reshape(9, 13), np.arange(9) % 3]
    np.savetxt(tmp_path / "table.csv", rows, "%g", ",", header=header, comments="")
    np.savez(tmp_path / "series.npz", x=np.arange(600.0).reshape(10, 20, 3))
    for page in PAGES:
        for name, block in ((file_name(block), block) for _, block in blocks(page.read_text())):
            if name.startswith("my_"):
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.many
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_pages_compose(page: Path, reader: Path) -> None:
    written = (Path(file_name(block)) for _, block in blocks(page.read_text()))
    added = {f"{file.parent.name}={file.stem}" for file in written if file.parts[:1] == ("conf",)}
    for program, script, *options in (words for words in lines(page) if words[1:2] in (["train.py"], ["sample.py"])):
        assert program == "python"
        if {"--help", "--cfg", "--config-dir", "--config-name", *added} & {*options} or "NAME" in " ".join(options):
            continue
        for overrides in trials(options):
            spelled = Sample().spelled(overrides) if script == "sample.py" else overrides
            config = composed(script.removesuffix(".py"), spelled)
            if script == "train.py" and reads_its_codec(overrides):
                with pytest.raises(CheckpointError, match="does not exist"):
                    resolved(config, "nowhere")
            elif script == "train.py" and not any(each.startswith("base=") for each in overrides):  # which is read
                check(resolved(config, "nowhere"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_verbs_of_pages_are_known(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in lines(page):
        if words[:3] != ["python", "-m", "inkdrop"]:
            continue
        monkeypatch.setattr(sys, "argv", ["inkdrop", words[3], "--help"])
        with pytest.raises(SystemExit, match=r"^0$"):
            inkdrop_main()
        if words[3] in ("export", "merge"):  # they have no configuration
            continue
        overrides = [
            word for word in words[4:] if "=" in word and word not in ("data=NAME", "network=NAME", "data=stripes")
        ]
        if words[3] == "reproduce":  # it has options beside those of train
            overrides = [word for word in overrides if not word.startswith(("seeds=", "hydra.searchpath="))]
        composed({"calibrate": "calibrate", "make-extractor": "make_extractor"}.get(words[3], "train"), overrides)


def test_yaml_of_the_page_is_yaml() -> None:
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        assert "_target_" in yaml.safe_load(block)
