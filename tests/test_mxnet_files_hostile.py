"""Files made to do harm: refused with a ValueError, nothing run, in little time and memory."""

import io
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxmxopt.mxnet_files import load_params, load_states, to_definition

FILES = Path(__file__).parent / "reference" / "files"
REAL = (FILES / "1.9.1" / "protocol_4_dump.states").read_bytes()
RAN: list[Any] = []


def ran(*args: Any, **kwargs: Any) -> None:
    """What a hostile file would call."""
    RAN.append((args, kwargs))


class Reducing:
    """Pickles as a call of anything."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


class Plain:
    """An object of a class that no optimizer is."""

    def __init__(self) -> None:
        self.secret = 1


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


ME = __name__
NDARRAY = named("mxnet.ndarray.ndarray", "NDArray")


def array(handle: bytes) -> bytes:
    """The opcodes of an NDArray with these raw bytes."""
    content = b"B" + struct.pack("<I", len(handle)) + handle
    return NDARRAY + b"N\x85R}" + text("handle") + content + b"sb"


def raw(shape: tuple[int, ...], data: bytes, code: int = 0) -> bytes:
    dims = struct.pack(f"<i{len(shape)}q", len(shape), *shape)
    return struct.pack("<Ii", 0xF993FAC9, 0) + dims + struct.pack("<iii", 1, 0, code) + data


def states(value: bytes) -> bytes:
    """A whole `.states` file with one state."""
    return b"\x80\x04}K\x00" + value + b"s."


# What each file is, and what its message must have: the name of what is refused, if there is one.
NAMED: dict[str, tuple[bytes, str]] = {
    "reduce": (pickle.dumps({0: Reducing(ran, (1,))}), f"{ME}.ran"),
    "reduce os.system": (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
    "reduce eval": (pickle.dumps(Reducing(eval, ("1",))), "builtins.eval"),
    "reduce getattr": (pickle.dumps(Reducing(getattr, (ran, "x"))), "getattr"),
    "reduce with a known name's module": (
        states(named("mxnet.ndarray.ndarray", "waitall") + b")R"),
        "mxnet.ndarray.ndarray.waitall",
    ),
    "reduce numpy": (
        states(named("numpy.testing._private.utils", "runstring") + text("1") + b"}\x86R"),
        "runstring",
    ),
    "reduce bytearray of a size": (
        states(named("builtins", "bytearray") + b"J\xff\xff\xff\x7f\x85R"),
        "builtins.bytearray",
    ),
    "reduce NDArray of a shape": (states(NDARRAY + b"K\x05\x85R"), "NDArray"),
    "reduce a dotted name": (
        b"\x80\x04" + text("builtins") + text("object.__subclasses__") + b"\x93)R.",
        "builtins.object.__subclasses__",
    ),
    "encode to another encoding": (
        states(named("_codecs", "encode") + text("a") + text("rot13") + b"\x86R"),
        "_codecs.encode",
    ),
    "reconstructor of a list": (
        states(
            named("copy_reg", "_reconstructor")
            + named(ME, "Plain")
            + named("__builtin__", "list")
            + b"N\x87R"
        ),
        "__builtin__.list",
    ),
    "build": (pickle.dumps(Plain()), f"{ME}.Plain"),
    "build with a state of slots": (
        b"\x80\x04}" + named("somewhere", "Thing") + b")\x81N}\x86b\x86.",
        "somewhere.Thing",
    ),
    "an unknown object as a state": (pickle.dumps({0: Plain()}), f"{ME}.Plain"),
    "an unknown object as a known attribute": (
        REAL.replace(
            b"\x8c\x02wd\x94G" + REAL.split(b"\x8c\x02wd\x94G")[1][:8],
            b"\x8c\x02wd\x94" + named(ME, "Plain") + b")\x81}b",
        ),
        f"{ME}.Plain",
    ),
    "a global alone": (states(named("somewhere", "thing")), "somewhere.thing"),
    "a global dropped through the memo": (
        b"\x80\x04}K\x00(" + named("somewhere", "thing") + b"1Ns.",
        "somewhere.thing",
    ),
    "inst": (f"(S'x'\ni{ME}\nran\n.".encode(), f"INST of {ME}.ran"),
    "inst of os": (b"(S'true'\nios\nsystem\n.", "os.system"),
    "obj": (b"(" + named(ME, "ran") + b"S'x'\no.", f"OBJ of {ME}.ran"),
    "newobj with arguments": (states(named(ME, "Plain") + b"K\x01\x85\x81"), f"{ME}.Plain"),
    "newobj of a function of the standard library": (
        states(named("posix", "system") + b")\x81"),
        "posix.system",
    ),
    "newobj_ex": (states(named(ME, "Plain") + b")}\x92"), f"NEWOBJ_EX of {ME}.Plain"),
    "persistent id": (b"\x80\x04" + text("x") + b"Q.", "BINPERSID"),
    "persistent id, old": (b"Px\n.", "PERSID"),
    "extension": (b"\x80\x02\x82\x01.", "EXT1"),
    "out-of-band buffer": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "set": (b"\x80\x04\x8f.", "EMPTY_SET"),
    "unknown opcode": (b"\x80\x04\xff.", r"opcode b'\xff' unknown"),
}


def nested(depth: int) -> bytes:
    return b"\x80\x04" + b"(" * depth + b"N" + b"t" * depth + b"."


def doubled(times: int, container: bytes = b"\x86") -> bytes:
    """Tuples of twice the one before: few bytes that stand for 2**times leaves."""
    level = b"h\x00h\x00" + container + b"q\x00"
    return states(b"N\x85q\x00" + level * times)


def repeated_array(times: int, size: int) -> bytes:
    """One array, by the memo in a state many times."""
    return states(b"(" + array(raw((size,), bytes(4 * size))) + b"q\x00" + b"h\x00" * times + b"t")


def repeated_handle(times: int, size: int) -> bytes:
    """The bytes of an array, by the memo in many arrays."""
    content = raw((size,), bytes(4 * size))
    first = b"B" + struct.pack("<I", len(content)) + content + b"q\x00"
    again = NDARRAY + b"N\x85R}" + text("handle") + b"h\x00sb"
    return b"\x80\x04}K\x00(" + first + again * times + b"ts."


def repeated_dict(times: int) -> bytes:
    """An optimizer with one dict of counts for very many devices."""
    items = b"".join(b"J" + struct.pack("<i", i) + b"K\x01" for i in range(times))
    devices = b"".join(b"J" + struct.pack("<i", i) + b"h\x00" for i in range(times))
    attributes = text("rescale_grad") + b"K\x01" + text("num_update") + b"K\x01"
    attributes += text("_index_update_count") + b"}q\x00(" + items + b"u"
    attributes += text("_all_index_update_counts") + b"}(" + devices + b"u"
    return b"\x80\x04}" + named("mxnet.optimizer", "SGD") + b")\x81}(" + attributes + b"ub\x86."


SCALAR = named("numpy.core.multiarray", "scalar")
DTYPE = named("numpy", "dtype") + text("f8") + b"K\x00K\x01\x87R(K\x03" + text("<") + b"NNNtb"

DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "only the protocol": b"\x80\x04",
    "a new protocol": b"\x80\x06N.",
    "no stop": b"\x80\x04}",
    "bytes after the stop": states(b"N") + b"x",
    "nothing on the stack": b"\x80\x04.",
    "two objects": b"\x80\x04}}.",
    "a mark left": b"\x80\x04}(.",
    "not a dict": b"\x80\x04]N.",
    "a list": b"\x80\x04].",
    "pop of nothing": b"\x80\x04R.",
    "pop through a mark": b"\x80\x04}(\x85.",
    "tuple without a mark": b"\x80\x04t.",
    "set items of nothing": b"\x80\x04(u.",
    "set item of a list": b"\x80\x04]NNs.",
    "append to a dict": b"\x80\x04}Na.",
    "odd items": b"\x80\x04}(K\x01u.",
    "memo of nothing": b"\x80\x04h\x05.",
    "put of nothing": b"\x80\x04q\x05.",
    "tuples as keys": b"\x80\x04}))s.",
    "floats as keys": b"\x80\x04}" + b"G" + bytes(8) + b"Ns.",
    "dict as key": b"\x80\x04}}Ns.",
    "build of nothing": b"\x80\x04}b.",
    "build of a dict": b"\x80\x04}}b.",
    "build without an object": b"\x80\x04Nb.",
    "call of a number": b"\x80\x04K\x01)R.",
    "call with a list": states(NDARRAY + b"]R"),
    "instance of a number": b"\x80\x04K\x01)\x81.",
    "stack global of numbers": b"\x80\x04K\x01K\x02\x93.",
    "array without content": states(NDARRAY + b"N\x85R"),
    "array with content twice": states(array(raw((1,), bytes(4))) + b"}" + text("handle") + b"Nsb"),
    "array with a list as content": states(NDARRAY + b"N\x85R]b"),
    "array with another attribute": states(NDARRAY + b"N\x85R}" + text("x") + b"Nsb"),
    "array with text as handle": states(NDARRAY + b"N\x85R}" + text("handle") + text("x") + b"sb"),
    "text as a state": states(text("x")),
    "bytes as a state": states(b"C\x01x"),
    "dict as a state": states(b"}"),
    "dtype as a state": states(DTYPE),
    "a dict beside the states": b"\x80\x04}}\x86.",
    "three in a tuple": b"\x80\x04}}}\x87.",
    "deep": nested(100_000),
    "deep state": states(b"N" + b"\x85" * 50),
    "deep lists": states(b"]" * 60 + b"a" * 59),
    "a list in itself": states(b"]q\x00h\x00a"),
    "a dict in itself": b"\x80\x04}q\x00K\x00h\x00s.",
    "a dict in a list in itself": b"\x80\x04}q\x00K\x00]h\x00as.",
    "doubled": doubled(40),
    "doubled, below the depth": states(b"N\x85q\x00" + (b"(" + b"h\x00" * 200 + b"tq\x00") * 5),
    "an array many times": repeated_array(2000, 1000),
    "a handle many times": repeated_handle(500, 10_000),
    "a dict for many devices": repeated_dict(20_000),
    "many marks": b"\x80\x04" + b"(" * 1_000_000,
    "many lists": b"\x80\x04" + b"]" * 1_000_000 + b".",
    "many in the memo": b"\x80\x04}" + b"\x94" * 1_000_000 + b".",
    "bytes of any size": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "bytes of a huge size": b"\x80\x04B\xff\xff\xff\xffx.",
    "bytearray of any size": b"\x80\x05\x96" + struct.pack("<Q", 2**64 - 1) + b"x.",
    "text of any size": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "string of negative size": b"T\xff\xff\xff\xffx.",
    "integer of negative size": b"\x80\x02\x8b\xff\xff\xff\xffx.",
    "integer of any size": b"\x80\x02\x8b\xff\xff\xff\x7fx.",
    "a large integer": b"\x80\x02\x8b\x00\x00\x10\x00" + bytes(2**20) + b".",
    "a long line of digits": b"L" + b"9" * 100_000 + b"L\n.",
    "a line without end": b"I" + b"9" * 1000,
    "not a number": b"Ix\n.",
    "not a float": b"F" + b"x" * 1000 + b"\n.",
    "frame of any size": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"}.",
    "memo of a large index": b"\x80\x04}r\xff\xff\xff\xffj\xff\xff\xff\xfe.",
    "memo of a negative index": b"}p-1\ng5\n.",
    "text that is not UTF-8": states(b"\x8c\x01\xff"),
    "escaped string": b"S'\\x41'\n.",
    "string without quotes": b"Sabc\n.",
    "bad unicode": b"V\\u12\n.",
    "text beyond latin-1": states(
        named("_codecs", "encode") + text("\u20ac") + text("latin1") + b"\x86R"
    ),
    "scalar without a dtype": states(SCALAR + b"NC\x08" + bytes(8) + b"\x86R"),
    "scalar of too many bytes": states(SCALAR + DTYPE + b"C\x09" + bytes(9) + b"\x86R"),
    "object dtype": states(named("numpy", "dtype") + text("O") + b"K\x00K\x01\x87R"),
    "dtype of any size": states(named("numpy", "dtype") + text("V99999999") + b"K\x00K\x01\x87R"),
    "dtype with fields": states(
        named("numpy", "dtype") + text("f8") + b"K\x00K\x01\x87R(K\x03" + text("<") + b"N}]tb"
    ),
    "numpy array of any shape": states(
        named("numpy.core.multiarray", "_reconstruct")
        + named("numpy", "ndarray")
        + b"K\x00\x85C\x01b\x87R(K\x01J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"
        + DTYPE
        + b"\x89C\x08"
        + bytes(8)
        + b"tb"
    ),
    "numpy array of a negative shape": states(
        named("numpy.core.multiarray", "_reconstruct")
        + named("numpy", "ndarray")
        + b"K\x00\x85C\x01b\x87R(K\x01J\xff\xff\xff\xff\x85"
        + DTYPE
        + b"\x89C\x08"
        + bytes(8)
        + b"tb"
    ),
    "lr as text": REAL.replace(
        b"\x8c\x02wd\x94G" + REAL.split(b"\x8c\x02wd\x94G")[1][:8], b"\x8c\x02wd\x94" + text("x")
    ),
}

V2 = struct.pack("<I", 0xF993FAC9)
V3 = struct.pack("<I", 0xF993FACA)
I64 = 6


def row_sparse(
    indices: list[int],
    rows: int | None = None,
    shape: tuple[int, ...] = (4, 1),
    stored: tuple[int, ...] | None = None,
    code: int = I64,
) -> bytes:
    rows = len(indices) if rows is None else rows
    stored = (rows, *shape[1:]) if stored is None else stored
    parts = [V2, struct.pack("<i", 1)]
    parts += [struct.pack(f"<i{len(s)}q", len(s), *s) for s in (stored, shape)]
    parts.append(struct.pack("<iiiiiq", 1, 0, 0, code, 1, len(indices)))
    parts.append(bytes(4 * int(np.prod(stored))))
    return b"".join([*parts, struct.pack(f"<{len(indices)}q", *indices)])


def csr(
    indptr: list[int], indices: list[int], shape: tuple[int, ...] = (2, 3), count: int | None = None
) -> bytes:
    count = len(indices) if count is None else count
    parts = [V2, struct.pack("<iiq", 2, 1, count)]
    parts.append(struct.pack(f"<i{len(shape)}q", len(shape), *shape))
    parts.append(struct.pack("<iii", 1, 0, 0))
    parts += [struct.pack("<iiq", I64, 1, len(s)) for s in (indptr, indices)]
    parts.append(bytes(4 * count))
    return b"".join([*parts, struct.pack(f"<{len(indptr + indices)}q", *indptr, *indices)])


ARRAYS: dict[str, bytes] = {
    "no array": b"",
    "not a magic number": struct.pack("<I", 0xDEADBEEF),
    "oldest format of many dimensions": struct.pack("<I", 33),
    "oldest format of a large shape": struct.pack("<IIIiii", 2, 2**32 - 1, 2**32 - 1, 1, 0, 0),
    "storage type": V2 + struct.pack("<i", 3),
    "negative ndim": V2 + struct.pack("<ii", 0, -2),
    "unknown ndim": V2 + struct.pack("<ii", 0, -1),
    "huge ndim": V3 + struct.pack("<ii", 0, 2**31 - 1),
    "many dimensions": V2 + struct.pack("<ii33q", 0, 33, *[1] * 33),
    "negative dimension": V2 + struct.pack("<iiq", 0, 1, -5),
    "huge dimension": raw((2**62,), b""),
    "dimensions that overflow": raw((2**32, 2**32), b""),
    "dimensions that overflow to the size": raw((2**62, 4), bytes(16)),
    "empty and huge": raw((0, 2**62, 2**62), b""),
    "no data": raw((3,), b""),
    "short data": raw((3,), bytes(11)),
    "long data": raw((3,), bytes(13)),
    "dtype beyond": raw((1,), bytes(4), 13),
    "negative dtype": raw((1,), bytes(4), -1),
    "no device": V2 + struct.pack("<iiq", 0, 1, 3),
    "row_sparse beyond the end": row_sparse([1, 4]),
    "row_sparse negative": row_sparse([-1, 1]),
    "row_sparse twice": row_sparse([1, 1]),
    "row_sparse unsorted": row_sparse([2, 1]),
    "row_sparse of too few values": row_sparse([1, 2], rows=1),
    "row_sparse of another width": row_sparse([1, 2], stored=(2, 2)),
    "row_sparse of float indices": row_sparse([1, 2], code=1),
    "row_sparse of no dimension": row_sparse([], shape=(), stored=(0,)),
    "row_sparse of a huge shape": row_sparse([], shape=(2**62, 2**62)),
    "csr of a vector": csr([0, 0], [], shape=(3,)),
    "csr of few rows": csr([0, 1], [0]),
    "csr from 1": csr([1, 1, 1], [0]),
    "csr falling": csr([0, 2, 1], [0]),
    "csr beyond its values": csr([0, 9, 1], [0]),
    "csr beyond its columns": csr([0, 1, 1], [3]),
    "csr of few values": csr([0, 1, 2], [0, 1], count=1),
    "csr of huge steps": csr([0, 2**62, 2**63 - 1], [0]),
}


def listed(count: int, arrays: bytes, names: bytes = struct.pack("<Q", 0)) -> bytes:
    return struct.pack("<QQQ", 0x112, 0, count) + arrays + names


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def npy(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def npy_header(header: str, data: bytes = b"", size: int | None = None) -> bytes:
    size = len(header) + 1 if size is None else size
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", size) + header.encode() + b"\n" + data


def npy_of(shape: str, data: bytes = b"", descr: str = "'<f4'") -> bytes:
    return npy_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}", data)


ONE = raw((1,), bytes(4))
PLAIN = zipped({"w.npy": npy(np.ones(3))})
SPARSE = {
    "w/data.npy": npy(np.ones((1, 2))),
    "w/indices.npy": npy(np.array([9])),
    "w/shape.npy": npy(np.array([4, 2])),
    "w/format.npy": b"\x93NUMPYrow_sparse",
}
PARAMS: dict[str, bytes] = {
    "empty": b"",
    "short": b"\x12\x01",
    "another magic number": struct.pack("<QQQQ", 0x113, 0, 0, 0),
    "huge number of arrays": listed(2**63, b""),
    "more arrays than bytes": listed(2**20, ONE),
    "fewer arrays": listed(0, ONE),
    "no names": listed(1, ONE, b""),
    "other number of names": listed(1, ONE, struct.pack("<Q", 2) + bytes(16)),
    "huge number of names": listed(1, ONE, struct.pack("<Q", 2**64 - 1)),
    "huge name": listed(1, ONE, struct.pack("<QQ", 1, 2**63)),
    "name that is not UTF-8": listed(1, ONE, struct.pack("<QQ", 1, 1) + b"\xff"),
    "name twice": listed(
        2, ONE + ONE, struct.pack("<QQ", 2, 1) + b"a" + struct.pack("<Q", 1) + b"a"
    ),
    "bytes after the end": listed(1, ONE) + b"x",
    "zip of nothing": b"PK\x03\x04",
    "truncated zip": PLAIN[:-30],
    "zip with a flipped bit": PLAIN.replace(np.ones(1).tobytes(), bytes(8), 1),
    "zip compressed": zipped({"w.npy": npy(np.zeros(10**6))}, zipfile.ZIP_DEFLATED),
    "zip with pickled objects": zipped({"w.npy": npy(np.array([Reducing(ran, (1,))], object))}),
    "zip with text": zipped({"w.npy": b"text"}),
    "zip with a short header": zipped({"w.npy": npy_header("", size=60000)}),
    "zip with a nested header": zipped({"w.npy": npy_header("(" * 60000)}),
    "zip with code": zipped({"w.npy": npy_of("(__import__('os').getpid(),)")}),
    "zip of any shape": zipped({"w.npy": npy_of("(9999999999999, 9999999999)")}),
    "zip of a negative shape": zipped({"w.npy": npy_of("(-1,)")}),
    "zip of a long shape": zipped({"w.npy": npy_of("(" + "1," * 64 + ")", bytes(4))}),
    "zip of text": zipped({"w.npy": npy(np.array(["abc"]))}),
    "zip of records": zipped({"w.npy": npy(np.zeros(2, "f4,i4"))}),
    "zip of a newer npy": zipped({"w.npy": npy(np.ones(2)).replace(b"Y\x01\x00", b"Y\x03\x00")}),
    "zip with too many bytes": zipped({"w.npy": npy(np.ones(2)) + b"x"}),
    "zip of rows beyond the end": zipped(SPARSE),
    "zip of sparse of another kind": zipped(SPARSE | {"w/format.npy": b"bsr"}),
    "zip of sparse with float indices": zipped(SPARSE | {"w/indices.npy": npy(np.array([0.0]))}),
    "zip of sparse of a float shape": zipped(SPARSE | {"w/shape.npy": npy(np.array([4.0, 2]))}),
    "npy of any size": npy_of("(1000000000000,)"),
    "npy of objects": npy_of("(1,)", bytes(8), "'|O'"),
}


def refused(load: Callable[[bytes], object], data: bytes) -> str:
    """Loads without running anything, in steps bounded by the file; returns the message."""
    RAN.clear()
    steps = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal steps
        steps += 1

    def counted() -> None:
        sys.setprofile(count)
        try:
            load(data)
        finally:
            sys.setprofile(None)

    message = r"^mxnet_files\.load_(states|params)\(bytes\): "
    with pytest.raises(ValueError, match=message) as caught:
        counted()
    # Calls and returns, of Python's functions and C's.
    assert steps < 20_000 + 40 * len(data), steps
    assert not RAN
    assert type(caught.value) is ValueError
    message = str(caught.value)
    assert len(message) < 1000
    return message


@pytest.mark.parametrize("case", NAMED)
def test_globals_are_refused_by_name(case: str) -> None:
    data, name = NAMED[case]
    assert name in refused(load_states, data)


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_pickles_are_refused(case: str) -> None:
    refused(load_states, DAMAGED[case])


@pytest.mark.parametrize("case", ARRAYS)
def test_damaged_arrays_are_refused(case: str) -> None:
    refused(load_params, listed(1, ARRAYS[case]))
    refused(load_states, states(array(ARRAYS[case])))


@pytest.mark.parametrize("case", PARAMS)
def test_damaged_files_of_arrays_are_refused(case: str) -> None:
    refused(load_params, PARAMS[case])


@pytest.mark.parametrize("name", ["protocol_0_dump", "protocol_4_dump", "row_sparse"])
def test_no_pickle_is_whole_when_cut(name: str) -> None:
    data = (FILES / "1.9.1" / f"{name}.states").read_bytes()
    for size in range(len(data)):
        with pytest.raises(ValueError, match="mxnet_files"):
            load_states(data[:size])


@pytest.mark.parametrize(
    "name", ["1.9.1/sparse.params", "1.9.1/dtypes.params", "2.0.0b1/named.npz"]
)
def test_no_file_of_arrays_is_whole_when_cut(name: str) -> None:
    data = (FILES / name).read_bytes()
    for size in range(len(data)):
        with pytest.raises(ValueError, match="mxnet_files"):
            load_params(data[:size])


def test_the_examples_are_harmful_to_pickle() -> None:
    RAN.clear()
    for case in ("reduce", "inst", "obj"):
        pickle.loads(NAMED[case][0])
    assert len(RAN) == 3


# Written so that a process of its own, whose memory is limited, can run all of them.
def main() -> None:
    """Loads every file under a limit of memory."""
    loads: list[tuple[Callable[[bytes], object], bytes]] = []
    loads += [(load_states, data) for data, _ in NAMED.values()]
    loads += [(load_states, data) for data in DAMAGED.values()]
    loads += [(load_params, data) for data in PARAMS.values()]
    loads += [(load_params, listed(1, data)) for data in ARRAYS.values()]
    load_params((FILES / "1.9.1" / "dtypes.params").read_bytes())  # Starts JAX.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, -1))
    for load, data in loads:
        try:
            load(data)
        except ValueError:
            continue
        raise AssertionError(data[:100])
    # Threads of JAX need some memory to end.
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    sys.stdout.write(str(len(loads)))


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_memory_is_bounded() -> None:
    result = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 100


if __name__ == "__main__":
    main()


@pytest.mark.parametrize("data", [b"", b"hello world"])
def test_what_is_no_pickle_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(ValueError, match="is no state file"):
        load_states(data)


def test_states_without_an_optimizer_make_no_definition() -> None:
    with pytest.raises(TypeError, match="record must be the optimizer that load_states found"):
        to_definition(None)  # pyright: ignore[reportArgumentType]
