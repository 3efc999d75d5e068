"""What a running trial has recorded since the last look."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


class Rows:
    """The values of one metric in a `metrics.jsonl` that grows.

    - `file`: the file, which may be missing.
    - `name`: name of the metric.
    """

    def __init__(self, file: Path, name: str):
        self.file, self.name = file, name
        self._position, self._last = 0, -1

    def _is_continued(self, stream: BinaryIO) -> bool:
        """Returns whether a line ends where the last look has stopped."""
        if stream.seek(0, 2) < self._position:
            return False
        stream.seek(self._position - 1)
        return stream.read(1) == b"\n"

    def new(self) -> Iterator[tuple[int, float]]:
        """Yields step and value of each complete line that was added; steps that are repeated are left out."""
        try:
            with open(self.file, "rb") as stream:
                if self._position and not self._is_continued(stream):  # a resumed run has cut it
                    self._position = 0
                stream.seek(self._position)
                added = stream.read()
        except OSError:
            return
        complete = added[: added.rfind(b"\n") + 1]
        self._position += len(complete)
        for line in complete.splitlines():
            try:
                row = json.loads(line)
                step, value = row.get("step"), row.get(self.name)
            except (ValueError, AttributeError):
                continue
            if isinstance(step, int) and isinstance(value, int | float) and step > self._last:
                self._last = step
                yield step, float(value)
