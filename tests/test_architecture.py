"""The order of the parts: a file imports only from what stands above it, and the mathematics stays light."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from cases import every

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
    "pictures",
    "models",
    "losses",
    "constraints",
    "samplers",
    "conditioners",
    "guidance",
    "networks",
    "adapters",
    "averaging",
    "configuration",
    "checkpoints",
    "calibration",
    "pipeline",
    "likelihood",
    "data",
    "metrics",
    "loggers",
    "tasks",
    "callbacks",
    "runs",
    "commands",
]
MATHEMATICS = ORDER[: ORDER.index("data")]
FILES = [file for file in PACKAGE.rglob("*.py") if file.relative_to(PACKAGE).parts[0].removesuffix(".py") in ORDER]


MODULES = {
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for file in PACKAGE.rglob("*.py")
}


@functools.cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@functools.cache
def imports(file: Path) -> set[str]:
    """Modules of inkdrop that a file imports: at its top, within functions, and for type checkers only."""
    names: set[str] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, file
            names |= {f"{node.module}.{each.name}" for each in node.names}
    own = {name for name in names if name.startswith("inkdrop.") and name != "inkdrop.__version__"}
    return {name if name in MODULES else name.rpartition(".")[0] for name in own}


def parts(modules: set[str]) -> set[str]:
    """The parts of inkdrop that modules belong to."""
    return {module.split(".")[1] for module in modules}


@every({str(file.relative_to(PACKAGE)): file for file in FILES})
def test_a_file_imports_only_from_above(file: Path) -> None:
    own, found = file.relative_to(PACKAGE).parts[0].removesuffix(".py"), imports(file)
    assert "inkdrop" not in found, "what lies at the top only hands on what is below"
    assert not parts(found) & set(ORDER[ORDER.index(own) + 1 :])
    if own == "networks":
        assert parts(found) <= {"networks", "files"}


def test_no_imports_go_in_a_circle() -> None:
    TopologicalSorter({module: imports(file) for module, file in MODULES.items()}).prepare()


def test_nothing_is_unpickled_and_no_shell_is_started() -> None:
    for file in [*PACKAGE.rglob("*.py"), *PACKAGE.parents[1].glob("*.py")]:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Call):
                called, told = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
                if called == "torch.load":
                    assert told.get("weights_only") == "True", file
                assert called not in ("eval", "exec", "os.system", "pickle.load", "pickle.loads"), file
                assert told.get("weights_only") in (None, "True"), file
                assert told.get("allow_pickle") in (None, "False"), file
                assert "shell" not in told, file


def functions(file: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """The functions and methods of a file by their names, and whether each is the constructor of a network."""
    in_networks = file.is_relative_to(PACKAGE / "networks")
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{file.relative_to(PACKAGE)}: {node.name}", node, in_networks and node.name == "__init__"


def test_a_file_and_a_function_can_be_read_at_once() -> None:
    lengths = {file: len(file.read_text().splitlines()) for file in PACKAGE.rglob("*.py")}
    assert [f"{file}: {count}" for file, count in lengths.items() if count > 305] == []
    found = [each for file in lengths for each in functions(file)]
    assert len(found) > 1000
    long = [name for name, node, of_a_network in found if node.end_lineno - node.lineno >= 50 and not of_a_network]  # type: ignore[operator]
    assert long == []
    assert len([each for each in PACKAGE.iterdir() if each.name not in ("__pycache__", "py.typed")]) <= 38


def test_functions_have_names_that_say_what_they_give() -> None:
    bare = {"told", "own", "found", "way", "seen", "of", "heard", "held"}
    named = [each for file in PACKAGE.rglob("*.py") for each in functions(file)]
    assert [name for name, node, _ in named if node.name.strip("_") in bare] == []


def test_messages_and_docstrings_are_in_the_words_of_the_field() -> None:
    odd = r"(?<!there )\bis no (?!longer|more)\w|\bis none of\b|\b(?:goes|go) on\b|\bbegun\b|\bbe had\b"
    odd += r"|\bof (?:its|their|your) own\b|\bhears? of\b|\b(?:is|are) told\b|\bsound\b|(?<!\.)\bbeside\b"
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(odd, node.value), f"{file}:{node.lineno}"


def test_no_test_file_imports_another() -> None:
    """What several share stands in a file without tests."""
    names = {file.stem for file in TESTS.glob("test_*.py")} | {"conftest"}
    for file in TESTS.rglob("*.py"):
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Import):
                assert not {each.name for each in node.names} & names, file
            if isinstance(node, ast.ImportFrom):
                assert node.module not in names, file


def test_every_part_has_its_place() -> None:
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert found - {"__init__", "__main__"} == set(ORDER)


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
