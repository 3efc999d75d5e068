"""Reads JSON, YAML and JSON lines from untrusted files, with limits of size, depth and number of values."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from inkdrop.errors import UnreadableError
from inkdrop.files.showing import harmless

MAX_BYTES = 2**24  # of a JSON file
MAX_YAML_BYTES = 2**20
MAX_LINE = 2**20  # bytes of one JSON line
MAX_DEPTH = 64  # of nested lists and mappings
MAX_VALUES = 10**6  # including the values that aliases repeat
_END = object()
_LONGEST_NUMBER = 1000  # characters: Python takes quadratic time over long ones
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}

_EXPONENT = ("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789"))


def open_regular(path: str | Path) -> io.BufferedReader:
    """Opens a regular file for reading without ever waiting; raises `OSError` for any other kind of file."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | Path, max_bytes: int = MAX_BYTES, error: type[ValueError] = UnreadableError) -> bytes:
    """Returns the content of a regular file of at most `max_bytes`; raises `error` for anything else."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(min(size, max_bytes) + 1)  # read() allocates the requested size
    except (OSError, ValueError) as reason:  # ValueError for a name with a null in it
        raise _unreadable(path, getattr(reason, "strerror", None) or reason, error) from None
    if max(size, len(content)) > max_bytes:
        raise _unreadable(path, f"it has more than {max_bytes:,} bytes", error)
    return content


def read_json(
    path: str | Path, kind: type = dict, max_bytes: int = MAX_BYTES, error: type[ValueError] = UnreadableError
) -> Any:
    """Returns the content of a JSON file, which must be of this type; raises `error` otherwise."""
    return json_of(read_bytes(path, max_bytes, error), path, kind, error)


def json_of(
    text: bytes,
    path: str | Path,
    kind: type = dict,
    error: type[ValueError] = UnreadableError,
    max_values: int = MAX_VALUES,
) -> Any:
    """Returns the content of a JSON text.

    - `text`: the bytes.
    - `path`: the file that they come from, for messages.
    - `kind`: type that the content must have.
    - `error`: class of the error that is raised otherwise.
    - `max_values`: largest number of values.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise _unreadable(path, f"it is nested more than {MAX_DEPTH} levels deep", error) from None
    except ValueError as reason:
        raise _unreadable(path, f"it is not JSON: {reason}", error) from None
    return _checked(content, path, kind, error, max_values)


def read_json_lines(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yields the objects in a file of JSON lines, without invalid lines, such as those written to a full disk.

    Raises `UnreadableError` for a missing file, or one that is not a regular file.
    """
    try:
        with open_regular(path) as file:
            while line := file.readline(MAX_LINE):
                with contextlib.suppress(ValueError, RecursionError):
                    content = json.loads(line)
                    if isinstance(content, dict) and not misfit(content):
                        yield content
    except OSError as reason:
        raise _unreadable(path, reason.strerror or reason, UnreadableError) from None


def read_yaml(
    path: str | Path, kind: type = dict, max_bytes: int = MAX_YAML_BYTES, error: type[ValueError] = UnreadableError
) -> Any:
    """Returns the plain data of a YAML file, with numbers as Hydra reads them (1e-3); raises `error` otherwise.

    The content must be of type `kind`. Values that aliases repeat are counted too. Tags other than those of plain data
    are refused, and references stay strings.
    """
    content = read_bytes(path, max_bytes, error)
    if misfit := _misfit_of_yaml(content):
        raise _unreadable(path, misfit, error)
    import yaml

    try:
        plain = yaml.load(content, Loader=_loader())
    except Exception as reason:  # the constructors run into anything on a foreign file
        raise _unreadable(path, f"it is not plain YAML: {_short(reason)}", error) from None
    return _checked(plain, path, kind, error)


def as_yaml(content: Mapping[str, Any]) -> str:
    """Returns plain data as YAML that `read_yaml` and Hydra read, as `OmegaConf.to_yaml` writes it."""
    import yaml

    class Plain(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    Plain.add_implicit_resolver(*_EXPONENT)  # a string that reads like a number is put in quotes
    stream = io.StringIO()
    yaml.dump(content, stream, Plain, default_flow_style=False, allow_unicode=True, sort_keys=False)
    return stream.getvalue()


def _misfit_of_yaml(content: bytes) -> str | None:
    """Returns why a YAML text is refused, or None; no value of it is constructed."""
    import yaml

    depth = values = 0
    sizes: dict[str, int] = {}  # values below each anchor
    opened: list[tuple[str | None, int]] = []
    try:
        for event in yaml.parse(content, Loader=_loader()):
            values += 1
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append((event.anchor, values))
                depth = max(depth, len(opened))
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = opened.pop()
                if anchor is not None:
                    sizes[anchor] = values - before
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in sizes:  # of a list that is still open, or undefined
                    return f"its alias {harmless(event.anchor, 40)} refers to its own container, or to nothing"
                values += sizes[event.anchor]
            elif isinstance(event, yaml.ScalarEvent) and event.anchor is not None:
                sizes[event.anchor] = 1
            if depth > MAX_DEPTH:
                return f"it is nested more than {MAX_DEPTH} levels deep"
            if values > MAX_VALUES:
                return f"it contains more than {MAX_VALUES:,} values"
    except (yaml.YAMLError, ValueError) as error:
        return f"it is not YAML: {_short(error)}"
    return None


def _loader() -> Any:
    """Returns PyYAML's safe loader restricted to plain data, for which dates are strings and 1e-3 is a number."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Plain(base):
        def construct_object(self, node: Any, deep: bool = False) -> Any:
            if node.tag not in _PLAIN_TAGS:
                raise ValueError(f"it has the tag {node.tag}")
            if (
                isinstance(node, yaml.ScalarNode)
                and not node.tag.endswith(":str")
                and len(node.value) > _LONGEST_NUMBER
            ):
                raise ValueError(f"a number in it has {len(node.value)} digits")
            return super().construct_object(node, deep)

    Plain.add_implicit_resolver(*_EXPONENT)
    Plain.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
        for first, known in Plain.yaml_implicit_resolvers.items()
    }
    return Plain


def _checked(content: Any, path: str | Path, kind: type, error: type[ValueError], max_values: int = MAX_VALUES) -> Any:
    if not isinstance(content, kind):
        raise _unreadable(path, f"it contains a {type(content).__name__} instead of a {kind.__name__}", error)
    if (wrong := misfit(content, max_values)) is not None:
        raise _unreadable(path, wrong, error)
    return content


def misfit(content: Any, most: int = MAX_VALUES) -> str | None:
    """Returns why plain data are refused, or None: more than `most` values with repetitions, or too deep or cyclic.

    It does not recurse, because the data may be deeper than calls can be.
    """
    values, opened = 1, [_below(content)]
    while opened:
        if (node := next(opened[-1], _END)) is _END:
            opened.pop()
            continue
        values += 1
        if values > most:
            return f"it contains more than {most:,} values"
        if isinstance(node, Mapping | list | tuple):
            if len(opened) == MAX_DEPTH:
                return f"it is nested more than {MAX_DEPTH} levels deep"
            opened.append(_below(node))
    return None


def _below(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        return iter(node.values())
    return iter(node if isinstance(node, list | tuple) else ())


def _short(error: Exception) -> str:
    return harmless(" ".join(str(error).split()))


def _unreadable(path: str | Path, reason: object, error: type[ValueError]) -> ValueError:
    return error(f"{harmless(path)} cannot be read: {reason}")
