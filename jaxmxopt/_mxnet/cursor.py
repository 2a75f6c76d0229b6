"""Reading of little-endian binary data that may be truncated or hostile."""

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["MAX_NDIM", "Cursor", "array_of", "check_shape"]

MAX_NDIM = 32
_LARGEST = 2**63 - 1


class Cursor:
    """A position in some bytes; every read is checked against what is left."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self.data = memoryview(data)
        self.position = 0

    @property
    def left(self) -> int:
        """The number of bytes not yet read."""
        return len(self.data) - self.position

    def take(self, size: int, what: str) -> memoryview:
        """Returns the next bytes without copying them."""
        if not 0 <= size <= self.left:
            raise ValueError(
                f"truncated at byte {self.position}: {what} must have {size} bytes, "
                f"got {self.left}."
            )
        start, self.position = self.position, self.position + size
        return self.data[start : self.position]

    def number(self, kind: str, what: str) -> Any:
        """Returns the next number; `kind` is a format of `struct`, such as `"i"` for int32."""
        layout = "<" + kind
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))[0]

    def end(self, what: str) -> None:
        """Refuses bytes after the end."""
        if self.left:
            raise ValueError(
                f"{what} must end at byte {self.position}, got {self.left} bytes more."
            )


def check_shape(shape: Sequence[int], itemsize: int, what: str) -> None:
    """Refuses a shape that no array can have, empty or not."""
    extent = math.prod(max(dim, 1) for dim in shape) * itemsize
    if len(shape) > MAX_NDIM or any(dim < 0 for dim in shape) or extent > _LARGEST:
        raise ValueError(f"{what} must have the shape of an array, got {tuple(shape)}.")


def array_of(data: memoryview, dtype: np.dtype[Any], shape: Sequence[int], what: str) -> Any:
    """Interprets bytes, without copying, as an array in C order that takes all of them."""
    check_shape(shape, dtype.itemsize, what)
    size = math.prod(shape) * dtype.itemsize
    if size != len(data):
        raise ValueError(
            f"{what} of shape {tuple(shape)} and dtype {dtype} must have {size} bytes, "
            f"got {len(data)}."
        )
    if dtype == np.bool_:
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape)
    return np.frombuffer(data, dtype).reshape(shape)
