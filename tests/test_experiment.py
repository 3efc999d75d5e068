"""A primary configuration of the user's own is checked like those of conf/."""

from __future__ import annotations

from pathlib import Path

import pytest
from entry_scripts import Script

TRAIN = "defaults: [train, _self_]\ntrainer: {max_steps: 0}\n"
SAMPLE = "defaults: [sample, _self_]\ncheckpoint: nowhere\n"
# name: (script, content of the user's own file, overrides, exit code, text of the message)
OWN: dict[str, tuple[str, str, list[str], int, str]] = {
    "misspelt group": ("train.py", TRAIN + "optimzer: {lr: 1e-3}\n", [], 2, "unknown option optimzer: did you mean"),
    "misspelt option": ("train.py", TRAIN + "sed: 3\n", [], 2, "unknown option sed: did you mean seed?"),
    "unlike any": ("train.py", TRAIN + "zzz: 3\n", [], 2, "unknown option zzz: the options here are name, seed"),
    "further down": ("train.py", TRAIN + "optimizer: {lrr: 1e-3}\n", [], 2, "unknown option task.optimizer.lrr"),
    "on the command line": ("train.py", TRAIN, ["+widht=3"], 2, "unknown option widht"),
    "of a sweep": ("train.py", TRAIN + "optimzer: {}\n", ["-m", "seed=0,1"], 2, "did you mean optimizer?"),
    "of the other script": ("train.py", TRAIN + "num_samples: 3\n", [], 2, "unknown option num_samples"),
    "sampling": ("sample.py", SAMPLE + "num_sample: 3\n", [], 2, "option num_sample: did you mean num_samples?"),
    "sampling, training": ("sample.py", SAMPLE + "optimizer: {lr: 1}\n", [], 2, "unknown option optimizer"),
    "taken away": ("train.py", TRAIN, ["~compile"], 2, "compile is missing, but train.yaml has it: add `def"),
    "built on nothing": ("train.py", "optimizer: {lr: 1e-3}\n", [], 2, "add `defaults: [train, _self_]` to mine"),
    "referred to": (
        *("train.py", TRAIN + "width: 16\nnetwork: {base_channels: '${width}'}\n", [], 0, "nothing is trained"),
    ),
    "good": ("train.py", TRAIN + "optimizer: {lr: 1e-3}\n", ["experiment=moons"], 0, "nothing is trained"),
    "good sampling": ("sample.py", SAMPLE + "num_samples: 3\n", [], 4, "checkpoint=nowhere does not exist"),
}  # fmt: skip


@pytest.mark.many
@pytest.mark.parametrize("suffix", ["", ".yaml"])
@pytest.mark.parametrize(("name", "content", "overrides", "code", "text"), OWN.values(), ids=OWN)
def test_a_primary_configuration_of_the_users_own_is_checked(
    name: str, content: str, overrides: list[str], code: int, text: str, suffix: str, script: Script, tmp_path: Path
) -> None:
    if suffix and code == 0:
        pytest.skip("once is enough")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.yaml").write_text(content)
    ended = script(name, "--config-dir", str(tmp_path / "own"), "--config-name", f"mine{suffix}", *overrides)
    assert ended.code == code, ended.err
    assert text in ended.err + ended.out
    assert "Traceback" not in ended.err
    if "train" in content.partition("\n")[0]:  # else nothing says where a run lies, and Hydra makes a folder
        assert not [path for path in Path.cwd().rglob("*") if path.name in ("config.yaml", "metrics.jsonl")]


@pytest.mark.parametrize("name", ["mine", "train"])
def test_a_folder_in_the_place_of_conf_is_told_from_one_beside_it(name: str, script: Script, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(TRAIN)
    ended = script("train.py", "--config-path", str(tmp_path), "--config-name", name)
    assert ended.code == 2
    assert "--config-path replaces the folder conf/ of inkdrop: --config-dir adds a folder to it" in ended.err


@pytest.mark.parametrize("name", ["train", "sample"])
def test_a_job_of_hydra_has_the_name_of_its_command(name: str, script: Script) -> None:
    ended = script(f"{name}.py", "--cfg", "hydra", "--package", "hydra.job.name")
    assert ended.out == f"{name}\n"
