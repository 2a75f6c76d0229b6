"""A bar on the terminal for what takes long."""

import sys
import time
from types import TracebackType
from typing import BinaryIO, TextIO

__all__ = ["Progress", "read_whole"]

# Less than this is done before one has read the bar.
LARGE = 64 * 2**20
_WIDTH = 30
_SECONDS_BETWEEN = 0.1


class Progress:
    """Shows how many bytes of a total are done, on a terminal alone, and only for many.

    Args:
        label: what is being done.
        total: in bytes.
        stream: where to show it; standard error by default.
    """

    def __init__(self, label: str, total: int, stream: TextIO | None = None) -> None:
        self._label, self._total = label, total
        self._stream = sys.stderr if stream is None else stream
        self._shown = total >= LARGE and self._stream.isatty()
        self._done, self._last = 0, 0.0

    def add(self, count: int) -> None:
        """Counts further bytes."""
        self._done += count
        now = time.monotonic()
        if self._shown and now - self._last >= _SECONDS_BETWEEN:
            self._last = now
            share = min(self._done / self._total, 1.0)
            bar = "█" * round(share * _WIDTH)
            text = f"\r{self._label} {bar:·<{_WIDTH}} {share:4.0%} of {self._total / 1e6:,.0f} MB"
            self._stream.write(text)
            self._stream.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._shown and self._last:
            # Clears the line.
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def read_whole(file: BinaryIO, size: int, label: str) -> bytes:
    """Reads a file of a known size under a bar."""
    data = bytearray()
    with Progress(label, size) as progress:
        while part := file.read(16 * 2**20):
            data += part
            progress.add(len(part))
    return bytes(data)
