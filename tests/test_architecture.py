"""The order of the parts: a file imports only from what stands above it, and the mathematics stays light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "src" / "inkdrop"
ORDER = [
    "errors",
    "files",
    "distributed",
    "randomness",
    "schedules",
    "noises",
    "predictions",
    "denoiser",
    "time_samplers",
    "time_grids",
    "weightings",
    "deviations",
    "variational",
    "codecs",
    "classifier",
    "losses",
    "constraints",
    "samplers",
    "conditioners",
    "guidance",
    "networks",
    "averaging",
    "configuration",
    "checkpoints",
    "calibration",
    "pipeline",
    "likelihood",
    "pictures",
    "data",
    "metrics",
    "loggers",
    "tasks",
    "callbacks",
    "runs",
    "commands",
]
MATHEMATICS = ORDER[: ORDER.index("pictures")]
FILES = [file for file in PACKAGE.rglob("*.py") if file.relative_to(PACKAGE).parts[0].removesuffix(".py") in ORDER]


def part(module: str) -> str:
    """The part of inkdrop that a module belongs to."""
    return module.split(".")[1]


def imports(file: Path) -> set[str]:
    """Parts of inkdrop that a file imports, without those for type checkers only."""
    found: set[str] = set()
    tree = ast.parse(file.read_text())
    checked = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in checked and (node.module or "").startswith("inkdrop."):
            found.add(part(node.module or ""))
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_file_imports_only_from_above(file: Path) -> None:
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    below = set(ORDER[ORDER.index(own) + 1 :])
    assert not imports(file) & below
    if own == "networks":
        assert imports(file) <= {"networks", "files"}


def test_nothing_is_unpickled_and_no_shell_is_started() -> None:
    for file in [*PACKAGE.rglob("*.py"), *PACKAGE.parents[1].glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                called, told = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
                if called == "torch.load":
                    assert told.get("weights_only") == "True", file
                assert called not in ("eval", "exec", "os.system", "pickle.load", "pickle.loads"), file
                assert told.get("weights_only") in (None, "True"), file
                assert told.get("allow_pickle") in (None, "False"), file
                assert "shell" not in told, file


def test_no_test_file_imports_another() -> None:
    """What several share stands in a file without tests."""
    names = {file.stem for file in TESTS.glob("test_*.py")} | {"conftest"}
    for file in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert not {each.name for each in node.names} & names, file
            if isinstance(node, ast.ImportFrom):
                assert node.module not in names, file


def test_every_part_has_its_place() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert parts - {"__init__", "__main__"} == set(ORDER)


def test_the_map_of_the_code_shows_the_parts_in_this_order() -> None:
    page = (PACKAGE.parents[1] / "docs" / "map.md").read_text().split("## ")[2]
    named = [name for name in re.findall(r"^(\w+)/? {2,}", page, re.MULTILINE) if name in ORDER]
    assert named == ORDER


def test_the_mathematics_imports_neither_lightning_nor_hydra() -> None:
    code = f"import sys\nfor part in {MATHEMATICS!r}: __import__('inkdrop.' + part)\n" + (
        "print(sorted({'lightning', 'hydra', 'omegaconf', 'wandb', 'torchmetrics'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
