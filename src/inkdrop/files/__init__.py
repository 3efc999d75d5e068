"""Files that others may have written, one reader for each format: regular files of bounded size, depth and kind only.

A named pipe, a device or a folder is refused and never waited for. What is refused is told with file and reason.
`reading.arrays` and `reading.tensors` have the formats of numpy and torch.
"""

from inkdrop.errors import UnreadableError
from inkdrop.files.plain import (
    MAX_DEPTH,
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
    "json_of",
    "misfit",
    "open_regular",
    "read_bytes",
    "read_json",
    "read_json_lines",
    "read_yaml",
]
