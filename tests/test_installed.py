"""A wheel, built from the sdist and installed where the sources are not, does what a clone does, from any folder."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from entry_scripts import ROOT, completed

pytestmark = pytest.mark.slow  # a wheel is built, and another interpreter imports all libraries

SMALL = [
    "experiment=moons",
    "network.width=16",
    "network.num_blocks=1",
    "trainer.max_steps=4",
    "scheduler.num_steps=4",
    "evaluation.num_samples=50",
    "logger=none",
    "~callbacks.pictures",
]


@dataclass
class Installed:
    """An environment with inkdrop of a wheel, and a folder to work in."""

    scripts: Path
    packages: Path
    wheel: Path
    sdist: Path
    folder: Path

    def run(self, *command: str, fresh: bool = False) -> subprocess.CompletedProcess[str]:
        """A command of the environment, `inkdrop` or `python`: as a shell begins it, if afresh."""
        program, *arguments = command
        if not fresh and program != "python":
            program, arguments = "python", [str(self.scripts / program), *arguments]
        return completed(*arguments, fresh=fresh, cwd=self.folder, python=self.scripts / program, PYTHONPATH=None)

    def succeed(self, *command: str, fresh: bool = False) -> str:
        """What a command prints that must not fail."""
        done = self.run(*command, fresh=fresh)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def made(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    base = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build"]
    made(*build, "-t", "sdist", "-d", base / "dist", cwd=ROOT)
    (sdist,) = (base / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(base / "sources", filter="data")
    (sources,) = (base / "sources").iterdir()
    made(*build, "-t", "wheel", "-d", base / "dist", cwd=sources)
    (wheel,) = (base / "dist").glob("*.whl")
    venv.create(base / "environment", with_pip=False)
    scripts = base / "environment" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", scripts / "python", "--disable-pip-version-check"]
    made(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=base)
    (packages,) = (base / "environment" / "lib").glob("python*/site-packages")
    # What inkdrop needs is taken from where the tests run; the .pth files there, one of them inkdrop's, are not read.
    (packages / "others.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    (base / "elsewhere").mkdir()
    return Installed(scripts, packages, wheel, sdist, base / "elsewhere")


@pytest.fixture(scope="module")
def run(installed: Installed) -> Path:
    """A run that the installed inkdrop has trained."""
    printed = installed.succeed("inkdrop", "train", *SMALL, "output_dir=run", fresh=True)
    assert f"now try    inkdrop sample checkpoint={installed.folder / 'run'}" in printed
    return installed.folder / "run"


def test_the_wheel_holds_the_package_and_its_configurations_alone(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    source = ROOT / "src"
    expected = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    expected |= {f"inkdrop/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*") if path.is_file()}
    assert names == {name for name in expected if "__pycache__" not in name}
    assert {"inkdrop/metrics/digits.safetensors", "inkdrop/conf/train.yaml", "inkdrop/py.typed"} <= names


def test_the_sdist_holds_no_tests(installed: Installed) -> None:
    with tarfile.open(installed.sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames()}
    known = {"src", "conf", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "PKG-INFO", ".gitignore"}
    assert tops == known


def test_the_installed_package_is_the_one_that_is_imported(installed: Installed) -> None:
    told = installed.succeed(
        "python", "-c", "import inkdrop.configuration.compose as c; print(c.__file__, c.CONF)", fresh=True
    )
    file, conf = map(Path, told.split())
    assert file.is_relative_to(installed.packages)
    assert conf == installed.packages / "inkdrop" / "conf"


def test_samples_are_those_of_the_clone_to_the_bit(run: Path, installed: Installed, tmp_path: Path) -> None:
    options = ["num_samples=50", "evaluate=true"]
    installed.succeed("inkdrop", "sample", "checkpoint=run", *options, "output_dir=drawn")
    assert completed("train.py", *SMALL, f"output_dir={tmp_path / 'run'}").returncode == 0
    done = completed("sample.py", f"checkpoint={tmp_path / 'run'}", *options, f"output_dir={tmp_path / 'drawn'}")
    assert done.returncode == 0, done.stderr
    ours, theirs = (np.load(folder / "drawn" / "samples.npz") for folder in (installed.folder, tmp_path))
    assert np.array_equal(ours["x"], theirs["x"])
    assert len(ours["x"]) == 50
    results = [json.loads((folder / "drawn" / "result.json").read_text()) for folder in (installed.folder, tmp_path)]
    assert results[0]["metrics"] == results[1]["metrics"]
    configurations = [yaml.safe_load((folder / "config.yaml").read_text()) for folder in (run, tmp_path / "run")]
    for each in configurations:
        each.pop("output_dir")
        each.pop("run_id", None)
    assert configurations[0] == configurations[1]


def test_python_calls_the_installed_package(run: Path, installed: Installed) -> None:
    program = "import inkdrop; print(inkdrop.sample('checkpoint=run', 'num_samples=2', 'output_dir=called')['seed'])"
    (installed.folder / "program.py").write_text(program)
    assert installed.succeed("python", "program.py").splitlines()[-1] == "0"


def test_all_other_verbs_work_from_another_folder(run: Path, installed: Installed) -> None:
    assert installed.succeed("inkdrop", "describe", "experiment=moons", "--no-probe").startswith("# moons\n")
    assert "| fd_raw_50 |" in installed.succeed("python", "-m", "inkdrop", "report", ".")
    assert "Tabulator v6.5.3" in (installed.folder / "report.html").read_text()
    installed.succeed("inkdrop", "check-data", "data=digits")
    assert (installed.folder / "check-data" / "samples.png").is_file()
    printed = installed.succeed("inkdrop", "plot-schedules", "made/schedules.png")
    assert printed.startswith("made/schedules.png: cosine, edm, ")
    assert len(printed.split(", ")) == len(list((ROOT / "conf" / "schedule").glob("*.yaml")))
    swept = installed.succeed("inkdrop", "train", "-m", *SMALL, "seed=0,1", "output_dir=sweep")
    assert "2 finished" in swept
    command = (installed.folder / "sweep" / "seed=1" / "command.txt").read_text()
    assert command.startswith("python -m inkdrop train ")
    assert "finished" in installed.succeed("inkdrop", "sweep", "sweep")


def test_help_is_of_the_command_that_was_typed(installed: Installed) -> None:
    assert "plot-schedules" in installed.succeed("inkdrop", "--help", fresh=True)
    for command in (["inkdrop"], ["python", "-m", "inkdrop"]):
        for verb in ("train", "sample"):
            printed = installed.succeed(*command, verb, "--help")
            assert f"usage: {' '.join(command)} {verb} [option=value ...]" in printed
            assert "-m runs every combination" in printed
    clone = completed("train.py", "--help").stdout
    installation = installed.succeed("inkdrop", "train", "--help")
    assert installation == clone.replace("python train.py", "inkdrop train")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["trian"], "error: unknown verb trian: did you mean train?"),
        (["train", "optimiser.lr=1"], "error: unknown option optimiser: did you mean optimizer?"),
        (["describe", "optimiser.lr=1"], "error: unknown option optimiser: did you mean optimizer?"),
        (["train", "--config-dri=own"], "error: unknown argument --config-dri=own: did you mean --config-dir?"),
        (["train", "--seed=3"], "error: unknown argument --seed=3: type options as in seed=1"),
    ],
)
def test_what_is_mistyped_ends_with_code_2(typed: list[str], message: str, installed: Installed) -> None:
    done = installed.run("inkdrop", *typed, fresh="train" in typed)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


def test_configurations_of_the_users_own_are_found(installed: Installed) -> None:
    files = {
        "network/mine.yaml": "defaults: [mlp]\nwidth: 12  # narrower than usual\n",
        "own.yaml": "defaults: [train, _self_]\nname: mine\n",
    }
    for name, text in files.items():
        (installed.folder / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (installed.folder / "own" / name).write_text(text)
    options = [option for option in SMALL if "width" not in option]
    ways = [["--config-dir", "own"], [f"hydra.searchpath=['file://{installed.folder / 'own'}']"]]
    for number, way in enumerate(ways):
        assert "narrower than usual" in installed.succeed("inkdrop", "train", *way, "network=mine", "--help")
        primary = ["--config-name=own"] if number == 0 else []
        installed.succeed("inkdrop", "train", *way, *primary, *options, "network=mine", f"output_dir=own-{number}")
        config = yaml.safe_load((installed.folder / f"own-{number}" / "config.yaml").read_text())
        assert config["network"]["width"] == 12
        assert config["name"] == ("mine" if number == 0 else "moons")


def test_without_its_configurations_each_command_says_so(installed: Installed, run: Path) -> None:
    conf = installed.packages / "inkdrop" / "conf"
    conf.rename(conf.with_name("elsewhere"))
    try:
        for typed in (
            ["train"],
            ["train", "--help"],
            ["sample", "checkpoint=run"],
            ["describe"],
            ["check-data"],
            ["calibrate", "checkpoint=run"],
            ["make-extractor"],
            ["plot-schedules"],
        ):
            done = installed.run("inkdrop", *typed)
            assert done.returncode == 2, (typed, done.stdout, done.stderr)
            assert done.stderr.startswith(
                f"error: conf/, the folder of inkdrop's configurations, is missing: it is neither {conf}"
            )
            assert done.stderr.endswith(" from its wheel or from a clone with conf/\n")
        assert "train" in installed.succeed("inkdrop", "--help")
        assert "| fd_raw_50 |" in installed.succeed("inkdrop", "report", "run")
    finally:
        conf.with_name("elsewhere").rename(conf)
