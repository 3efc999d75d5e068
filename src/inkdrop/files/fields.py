"""Checks the fields of file contents against types, which are any annotations."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from inkdrop.files.showing import harmless

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


@functools.cache
def _adapter(name: str, annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=_STRICT)


def wrong_field(content: Mapping[str, Any], fields: Mapping[str, Any], needed: Iterable[str] = ()) -> str | None:
    """Returns a description of the first field that is missing or not of its type, or None if all are valid."""
    for name in needed:
        if name not in content:
            return f"it lacks {name}"
    for name in fields.keys() & content.keys():
        try:
            _adapter(name, fields[name]).validate_python(content[name])
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            path = harmless(".".join(map(str, (name, *first["loc"]))))
            return f"{path}: {first['msg'][0].lower()}{first['msg'][1:]}"
    return None
