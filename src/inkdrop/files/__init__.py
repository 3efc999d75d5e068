"""Reads files from untrusted sources, with one reader per format: regular files of limited size, depth and type.

A named pipe, a device or a folder is refused without waiting for it. Errors name the file and the reason.
`files.arrays` and `files.tensors` have the formats of numpy and torch.
"""

from inkdrop.errors import UnreadableError
from inkdrop.files.plain import (
    MAX_DEPTH,
    as_yaml,
    json_of,
    misfit,
    open_regular,
    read_bytes,
    read_json,
    read_json_lines,
    read_yaml,
)

__all__ = [
    "MAX_DEPTH",
    "UnreadableError",
    "as_yaml",
    "json_of",
    "misfit",
    "open_regular",
    "read_bytes",
    "read_json",
    "read_json_lines",
    "read_yaml",
]
