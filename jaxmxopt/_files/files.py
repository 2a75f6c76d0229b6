"""Files that appear whole or not at all, and errors that name the call."""

import contextlib
import os
import secrets
from collections.abc import Generator
from typing import BinaryIO

__all__ = [
    "naming",
    "replacing",
]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Generator[BinaryIO]:
    """Open a new file that takes the place of `path` when the block ends without an error.

    The bytes go to a temporary file in the same folder, are flushed to disk, and the file is
    renamed. Whenever the process dies, `path` is the old file or the new one, whole. A symbolic
    link is followed.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    if os.path.isdir(target):
        raise IsADirectoryError(f"{os.fspath(path)!r} is a folder.")
    temporary = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(8)}.tmp")
    # "x" creates with the permissions that the umask gives, unlike tempfile.
    try:
        opened = open(temporary, "x+b")  # noqa: SIM115
    except OSError as error:
        raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
    with opened as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            file.close()
            os.unlink(temporary)
            raise
    try:
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    _flush_folder(folder)


def _flush_folder(folder: str) -> None:
    """Make a rename last; where folders cannot be opened, the system sees to it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming(call: str) -> Generator[None]:
    """Put the name of a call before the message of a ValueError or TypeError raised in it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{call}: {error}") from None
    except TypeError as error:
        raise TypeError(f"{call}: {error}") from None
