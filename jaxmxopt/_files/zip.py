"""Zip archives of stored members, written in one pass and read without tolerance.

Every byte outside the members follows from their names, sizes and checksums. A reader makes those
bytes again and compares, so that no damage passes, and needs no other parser.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

__all__ = ["FileError", "Member", "Writer", "members", "read"]

# Stand where the number is in the fields of Zip64; and from which numbers on.
_ELSEWHERE, _ELSEWHERE_COUNT = 0xFFFF_FFFF, 0xFFFF
LIMIT, COUNT_LIMIT = _ELSEWHERE, _ELSEWHERE_COUNT

# Version, flags, method, time, the date 1980-01-01, crc, sizes, lengths of name and extra.
_LOCAL = struct.Struct("<I 5H 3I 2H")
_CENTRAL = struct.Struct("<I 6H 3I 5H 2I")
_END64 = struct.Struct("<I Q 2H 2I 4Q")
_LOCATOR = struct.Struct("<I I Q I")
_END = struct.Struct("<I 4H 2I H")
_UNIX, _FILE_MODE, _DATE = 3 << 8, 0o100644 << 16, 0x21


class FileError(ValueError):
    """What is wrong with a file; the caller adds which file it was."""


class Member(NamedTuple):
    """One member; `offset` is where its local header begins."""

    name: str
    size: int
    crc32: int
    offset: int

    @property
    def start(self) -> int:
        """Where its bytes begin."""
        return self.offset + len(_local(self))

    @property
    def stop(self) -> int:
        """Where its bytes end."""
        return self.start + self.size


class Writer:
    """Writes an archive to a file that need not be able to seek."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._members: list[Member] = []

    def add(self, name: str, *parts: bytes | memoryview) -> Member:
        """Writes a member, its bytes in parts; the name is ASCII."""
        crc, size = 0, 0
        for part in parts:
            crc, size = zlib.crc32(part, crc), size + len(part)
        member = Member(name, size, crc, self._members[-1].stop if self._members else 0)
        self._file.write(_local(member))
        for part in parts:
            self._file.write(part)
        self._members.append(member)
        return member

    def close(self) -> None:
        """Writes the directory; the file stays open."""
        self._file.write(_directory(self._members))


def members(file: BinaryIO) -> list[Member]:
    """Reads the directory of an archive; raises FileError where a byte of it is not as written."""
    size = file.seek(0, 2)
    count, start = _end(file, size)
    data = _slice(file, start, size)
    found: list[Member] = []
    position = 0
    for _ in range(count):
        member, position = _entry(data, position)
        found.append(member)
    stops = [0, *(member.stop for member in found)]
    if [member.offset for member in found] != stops[:-1] or stops[-1] != start:
        raise FileError("is damaged, or no state file of jaxmxopt.")
    if data != _directory(found):
        raise FileError("is damaged, or no state file of jaxmxopt.")
    for member in found:
        if _slice(file, member.offset, member.start) != _local(member):
            raise FileError(f"is damaged before {member.name!r}.")
    return found


def read(file: BinaryIO, member: Member) -> bytes:
    """Reads a member; raises FileError where its checksum is wrong."""
    data = _slice(file, member.start, member.stop)
    if zlib.crc32(data) != member.crc32:
        raise FileError(f"is damaged in {member.name!r}: the checksum differs.")
    return data


def _slice(file: BinaryIO, start: int, stop: int) -> bytes:
    file.seek(start)
    data = file.read(stop - start)
    if len(data) != stop - start:
        raise FileError("is truncated.")
    return data


def _local(member: Member) -> bytes:
    large = member.size >= LIMIT
    extra = struct.pack("<2H 2Q", 1, 16, member.size, member.size) if large else b""
    size = _ELSEWHERE if large else member.size
    version = 45 if large else 20
    name = member.name.encode("ascii")
    crc = member.crc32
    head = _LOCAL.pack(
        0x04034B50, version, 0, 0, 0, _DATE, crc, size, size, len(name), len(extra)
    )  # fmt: skip
    return head + name + extra


def _central(member: Member) -> bytes:
    large, far = member.size >= LIMIT, member.offset >= LIMIT
    numbers = [member.size] * 2 * large + [member.offset] * far
    extra = struct.pack(f"<2H {len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""
    size = _ELSEWHERE if large else member.size
    version = 45 if numbers else 20
    name = member.name.encode("ascii")
    head = _CENTRAL.pack(
        0x02014B50, _UNIX | version, version, 0, 0, 0, _DATE, member.crc32, size, size,
        len(name), len(extra), 0, 0, 0, _FILE_MODE, _ELSEWHERE if far else member.offset,
    )  # fmt: skip
    return head + name + extra


def _directory(all_members: Sequence[Member]) -> bytes:
    """All that follows the last member."""
    start = all_members[-1].stop if all_members else 0
    entries = b"".join(_central(member) for member in all_members)
    count, size = len(all_members), len(entries)
    tail = b""
    if count >= COUNT_LIMIT or start >= LIMIT or size >= LIMIT:
        tail = _END64.pack(0x06064B50, 44, _UNIX | 45, 45, 0, 0, count, count, size, start)
        tail += _LOCATOR.pack(0x07064B50, 0, start + size, 1)
        count, size, start = _ELSEWHERE_COUNT, _ELSEWHERE, _ELSEWHERE
    tail += _END.pack(0x06054B50, 0, 0, count, count, size, start, 0)
    return entries + tail


def _end(file: BinaryIO, size: int) -> tuple[int, int]:
    """The number of members and where the directory begins, by the end of the file."""
    if size < _END.size:
        raise FileError("is truncated, or no state file of jaxmxopt.")
    signature, _, _, count, _, _, start, _ = _END.unpack(_slice(file, size - _END.size, size))
    if signature != 0x06054B50:
        raise FileError("is truncated, or no state file of jaxmxopt.")
    if start == _ELSEWHERE and size >= 98:
        far = _END64.unpack(_slice(file, size - 98, size - 42))
        count, start = far[6], far[9]
    if start > size or count * _CENTRAL.size > size:
        raise FileError("is truncated, or damaged at its end.")
    return count, start


def _entry(data: bytes, position: int) -> tuple[Member, int]:
    """One entry of the directory, and where the next begins."""
    stop = position + _CENTRAL.size
    if stop > len(data):
        raise FileError("is damaged, or no state file of jaxmxopt.")
    fields = _CENTRAL.unpack(data[position:stop])
    crc, size, name_length, extra_length, offset = (fields[i] for i in (7, 9, 10, 11, 16))
    name = data[stop : stop + name_length]
    extra = data[stop + name_length : stop + name_length + extra_length]
    aligned = len(extra) in (12, 20, 28)
    numbers = [number for (number,) in struct.iter_unpack("<Q", extra[4:])] if aligned else []
    if size == _ELSEWHERE and len(numbers) >= 2:
        size, numbers = numbers[0], numbers[2:]
    if offset == _ELSEWHERE and numbers:
        offset = numbers[0]
    if not name.isascii():
        raise FileError("is damaged, or no state file of jaxmxopt.")
    return Member(name.decode("ascii"), size, crc, offset), stop + name_length + extra_length
