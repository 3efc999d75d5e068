"""The pages of the site that nobody writes by hand: all choices of `conf/`, the API, and the pages beside `README.md`.

`make docs` builds the site, in which MkDocs calls `on_config`, `on_files`, `on_page_markdown` and `on_page_content`.
"""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CONF, SOURCES = ROOT / "conf", ROOT / "src" / "inkdrop"
BESIDE_README = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
PRIVATE = ("commands", "distributed", "files", "runs")  # no configuration names what is in them
FORMULA = re.compile(r'<(span|div) class="arithmatex">(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])</\1>', re.DOTALL)


def choices(conf: Path = CONF) -> str:
    """The page of all groups of a configuration folder: a table each, of the choices and what they are."""
    lines = [
        "# Choices",
        "",
        "Each heading is a group, and each row is one of its choices: `python train.py schedule=cosine`.",
        "A choice is a file of `conf/`, and the table shows its first comment.",
        "[Configuration](configuration.md) says how choices combine.",
    ]
    for group in sorted(folder for folder in conf.iterdir() if any(folder.glob("*.yaml"))):
        lines += ["", f"## {group.name}", "", "| choice | what it is |", "|---|---|"]
        for file in sorted(group.glob("*.yaml")):
            shown = f" Example: `{example(file)}`." if example(file) else ""
            lines.append(f"| `{group.name}={file.stem}` | {_cell(explanation(file) + shown)} |")
    return "\n".join(lines) + "\n"


def explanation(file: Path) -> str:
    """What a choice is: the comment that its file begins with; `ValueError` if there is none."""
    for line in file.read_text().splitlines():
        if line.startswith("# @package"):
            continue
        if line.startswith("# "):
            return line.removeprefix("# ")
        break
    raise ValueError(f"{file} has to begin with a comment that says what it is")


def example(file: Path) -> str | None:
    """Options that a choice fits, of which it is the first; None if it says nothing, as it fits the defaults."""
    found = re.search(r"^# Example: (.*)$", file.read_text(), re.MULTILINE)
    if found and found[1].split(" ")[0] != f"{file.parent.name}={file.stem}":
        raise ValueError(f"the example in {file} has to begin with {file.parent.name}={file.stem}")
    return found and found[1]


def _cell(text: str) -> str:
    """A text of one line as the cell of a table: names such as x_0 and signs such as | stay as they are."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([|_*\\<>])", r"\\\1", part) for part in parts)


def api(sources: Path = SOURCES) -> dict[str, str]:
    """One page for each public part of inkdrop, by its file name, which MkDocs fills from the docstrings.

    A package shows what it exports under the path that configurations name, and then what else is in its modules.
    """
    pages = {"api/inkdrop.md": "# inkdrop\n\n::: inkdrop\n"}
    for part in sorted(sources.iterdir()):
        if part.name.startswith("_") or part.stem in PRIVATE or not (part.is_dir() or part.suffix == ".py"):
            continue
        blocks = list(_blocks(part, f"inkdrop.{part.stem}"))
        pages[f"api/{part.stem}.md"] = "\n".join([f"# {part.stem}\n", *blocks])
    return pages


def _blocks(part: Path, path: str) -> Iterator[str]:
    """What mkdocstrings is asked for of one module or package."""
    if part.is_file():
        yield f"::: {path}\n"
        return
    if not (part / "__init__.py").is_file():  # a folder of data, or of what is left of an older version
        return
    yield f"::: {path}\n"
    exported = _exported(part / "__init__.py")
    for file in sorted(part.glob("[!_]*.py")):
        module = f"{path}.{file.stem}"
        if rest := [name for name in _defined(file) if (module, name) not in exported]:
            yield f"::: {module}\n    options:\n      members: [{', '.join(rest)}]\n"


def _exported(file: Path) -> set[tuple[str, str]]:
    """(module, name) of what a package imports from its modules to export it."""
    imports = (node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom))
    return {(node.module or "", alias.name) for node in imports for alias in node.names}


def _defined(file: Path) -> list[str]:
    """The public classes and functions of a module."""
    nodes = ast.parse(file.read_text()).body
    kinds = (ast.ClassDef, ast.FunctionDef)
    return [node.name for node in nodes if isinstance(node, kinds) and not node.name.startswith("_")]


def on_config(config: Any) -> None:
    """Puts a page for each part into the navigation, in the place of `api/`."""
    for entry in config["nav"]:
        if isinstance(entry, dict) and entry.get("API") == "api/":
            entry["API"] = sorted(api())


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are generated to those of `docs/`."""
    from mkdocs.structure.files import File

    written = {"choices.md": choices(), **api(), **{name: (ROOT / name).read_text() for name in BESIDE_README}}
    for name, content in written.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links between the top of the repository and `docs/` are links between pages of the site."""
    if page.file.src_uri in BESIDE_README:
        return markdown.replace("](docs/", "](")
    return re.sub(rf"\]\(\.\./({'|'.join(map(re.escape, BESIDE_README))})", r"](\1", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Formulas become MathML, which browsers draw without a script."""
    from math_core import LatexToMathML

    converter = LatexToMathML()

    def drawn(match: re.Match[str]) -> str:
        formula = html.unescape(match[2]).strip()
        return converter.convert_with_local_state(formula, displaystyle=match[1] == "div")

    return FORMULA.sub(drawn, content)
