"""The page on the mathematics names what exists, and the plot of the schedules shows all of them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from analytic import ALL_SCHEDULES
from entry_scripts import ROOT, completed
from PIL import Image

from inkdrop.configuration import build, check
from inkdrop.configuration.compose import CONF, composed, resolved
from inkdrop.pictures.plots import schedules

PAGE = (ROOT / "docs" / "mathematics.md").read_text()
CODE = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", PAGE)
FAMILIES = dict(re.findall(r"^\| ([\w ]+) \| `(schedule=[^`]+)` \|$", PAGE, re.MULTILINE))
GROUPS = {each.name for each in CONF.iterdir() if each.is_dir()}
YAMLS = sorted(file.stem for file in (CONF / "schedule").glob("*.yaml"))


def test_every_file_named_in_the_page_exists() -> None:
    paths = [code for code in CODE if "/" in code and " " not in code]
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_every_object_named_in_the_page_exists() -> None:
    names = {name for code in CODE for name in re.findall(r"inkdrop(?:\.\w+)+", code)}
    assert len(names) >= 3
    for name in names:
        build({"_target_": name, "_partial_": True})


def test_every_choice_named_in_the_page_exists() -> None:
    named = {
        pair for code in CODE for pair in re.findall(r"(?<![\w.@])(\w+)=(\w+)(?![\w.])", code) if pair[0] in GROUPS
    }
    assert [pair for pair in named if not (CONF / pair[0] / f"{pair[1]}.yaml").is_file()] == []
    assert len(named) > 60


@pytest.mark.parametrize("options", [pytest.param(options, id=name) for name, options in FAMILIES.items()])
def test_the_command_lines_of_the_families_build(options: str) -> None:
    config = resolved(composed("train", options.split()), "nowhere")
    check(config)
    build(config["task"])


def test_there_are_five_families() -> None:
    assert list(FAMILIES) == ["DDPM", "VP", "VE", "EDM", "flow matching"]


def test_options_named_in_the_page_compose() -> None:
    for line in (
        "likelihood=ode likelihood.ode.num_probes=null",
        "likelihood=variational likelihood.bound.num_steps=100",
        "sampler=ancestral sampler.deviation._target_=inkdrop.deviations.large",
        "loss=variational loss.levels=null",
        "time_sampler=loss_aware time_sampler@time_sampler.law=discrete",
    ):
        assert all(option.split("=")[0] in PAGE for option in line.split())
        check(resolved(composed("train", line.split()), "nowhere"))


def test_the_plot_has_a_curve_of_each_schedule_in_each_panel() -> None:
    figure = schedules(ALL_SCHEDULES)
    for axes, quantity in zip(figure.axes, ("alpha", "sigma", "log_snr"), strict=True):
        curves = {str(line.get_label()): line for line in axes.get_lines()}
        assert set(curves) == set(ALL_SCHEDULES)
        assert len(axes.get_lines()) == len(ALL_SCHEDULES)
        for name, line in curves.items():
            t, values = (torch.tensor(np.asarray(each)) for each in line.get_data())
            assert torch.equal(values, getattr(ALL_SCHEDULES[name], quantity)(t))
    solid = {str(line.get_label()) for line in figure.axes[0].get_lines() if line.get_linestyle() == "-"}
    assert solid == {name for name, each in ALL_SCHEDULES.items() if each.num_timesteps is not None}
    entries = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert sorted(entries) == sorted(ALL_SCHEDULES)


@pytest.mark.slow
def test_curves_that_share_a_line_style_differ_in_colour() -> None:
    named = {name: build(resolved(composed("train", [f"schedule={name}"]), "nowhere")["schedule"]) for name in YAMLS}
    lines = schedules(named).axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(YAMLS)


@pytest.mark.slow
def test_the_command_draws_every_yaml(tmp_path: Path) -> None:
    done = completed("-m", "inkdrop", "plot-schedules", str(tmp_path / "new" / "plot.png"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().split(": ")[1].split(", ") == YAMLS
    with Image.open(tmp_path / "new" / "plot.png") as drawn, Image.open(ROOT / "docs" / "schedules.png") as shown:
        assert drawn.size == shown.size
        assert drawn.getcolors(1) is None  # not one colour alone
