"""The pages' examples work as they stand."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from analytic import SCHEDULES, gaussian, source
from entry_scripts import ROOT
from PIL import Image
from runs import configuration

from inkdrop.conditioners import Conditioner
from inkdrop.configuration import check
from inkdrop.data.module import DataModule
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


def test_the_readme_names_every_choice_of_every_group() -> None:
    readme = (ROOT / "README.md").read_text()
    for group in sorted(each for each in (ROOT / "conf").iterdir() if each.is_dir() and each.name != "experiment"):
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{group.name}` |"))
        assert set(row.split("|")[2].replace(",", " ").split()) == {file.stem for file in group.glob("*.yaml")}


@pytest.mark.parametrize(
    "line", re.findall(r"^python train\.py (?!-m)(.*?)(?:\s+#.*)?$", (ROOT / "README.md").read_text(), re.M)
)
def test_command_lines_of_the_readme_compose(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "PHOTOS").mkdir()  # whose images say the shape
    Image.new("RGB", (96, 64)).save(tmp_path / "PHOTOS" / "0.png")
    config = configuration("train", *line.split())
    from inkdrop.configuration.compose import resolved

    check(resolved(config, "nowhere"))


def test_yaml_of_the_page_is_yaml() -> None:
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        assert "_target_" in yaml.safe_load(block)
