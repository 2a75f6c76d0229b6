"""MXNet's files, real ones of both versions: read as what MXNet had, written as MXNet writes."""

import io
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmxopt import RowSparse, mxnet_files
from jaxmxopt.mxnet_files import CSR, load_params, load_states, save_params

FILES = Path(__file__).parent / "reference" / "files"
PARAMS = sorted(
    path
    for path in FILES.glob("*/*")
    if path.suffix in (".params", ".npz", ".npy")
    and path.stem != "expected"
    and path.parent.name != "training"
)
STATES = sorted(FILES.glob("*/*.states"))
OWN = sorted(path for path in PARAMS if path.suffix == ".params" and path.read_bytes()[:1] != b"P")


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def expected_in(path: Path) -> dict[str, np.ndarray]:
    with np.load(path.parent / "expected.npz") as file:
        prefix = f"{path.name}/"
        return {key.removeprefix(prefix): file[key] for key in file if key.startswith(prefix)}


def assert_same(found: object, expected: np.ndarray) -> None:
    """Equal in every bit, shape and dtype."""
    found = np.asarray(found)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("path", PARAMS, ids=name_of)
def test_params_are_what_mxnet_had(path: Path) -> None:
    expected = expected_in(path)
    found = load_params(path)
    items = dict(found.items() if isinstance(found, dict) else enumerate(found))
    assert {str(key) for key in items} == {key.split("/")[0] for key in expected}
    for key, array in items.items():
        if isinstance(array, RowSparse):
            assert_same(array.values, expected[f"{key}/data"])
            assert array.indices.dtype == jnp.int32
            np.testing.assert_array_equal(array.indices, expected[f"{key}/indices"])
            assert array.shape == tuple(expected[f"{key}/shape"])
        elif isinstance(array, CSR):
            assert_same(array.data, expected[f"{key}/data"])
            np.testing.assert_array_equal(array.indices, expected[f"{key}/indices"])
            np.testing.assert_array_equal(array.indptr, expected[f"{key}/indptr"])
            assert array.shape == tuple(expected[f"{key}/shape"])
        else:
            assert_same(array, expected[str(key)])


def test_there_are_files_of_both_versions() -> None:
    assert {path.parent.name for path in PARAMS} == {"1.9.1", "2.0.0b1"}
    assert len(PARAMS) > 15
    assert len(STATES) > 20


def test_arrays_are_jax_arrays_where_jax_has_the_dtype() -> None:
    arrays = load_params(FILES / "1.9.1" / "dtypes.params")
    for name, array in arrays.items():
        wide = name.split()[-1] in ("float64", "int64")
        assert isinstance(array, np.ndarray if wide else jax.Array), name
    arrays["float64"][0] = 0  # A copy, not a view of the file.


def test_arrays_of_64_bits_are_jax_arrays_if_jax_has_them(x64: None) -> None:
    arrays = load_params(FILES / "1.9.1" / "dtypes.params")
    assert all(isinstance(array, jax.Array) for array in arrays.values())
    assert_same(arrays["large int64"], np.array([2**53 + 1]))


@pytest.mark.parametrize("path", OWN, ids=name_of)
def test_params_are_written_as_mxnet_writes_them(path: Path, tmp_path: Path) -> None:
    np_shape = b"\xca\xfa\x93\xf9" in path.read_bytes()
    save_params(tmp_path / "again.params", load_params(path), np_shape=np_shape)
    assert (tmp_path / "again.params").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("np_shape", [False, True])
def test_every_dtype_comes_back(tmp_path: Path, np_shape: bool, x64: None) -> None:
    kinds = ["float16", "bfloat16", "float32", "float64", "bool", "uint8", "int8", "int32", "int64"]
    if np_shape:
        kinds += ["int16", "uint16", "uint32", "uint64"]
    arrays = {kind: jnp.arange(6).reshape(2, 3).astype(kind) for kind in kinds}
    save_params(tmp_path / "a.params", arrays, np_shape=np_shape)
    found = load_params(tmp_path / "a.params")
    for kind in kinds:
        assert_same(found[kind], np.asarray(arrays[kind]))


def test_lists_none_and_sparse_come_back(tmp_path: Path) -> None:
    rows = RowSparse(jnp.array([4, 1, 4]), jnp.array([[1.0], [2.0], [3.0]]), (6, 1))
    matrix = CSR(jnp.array([1.0, 2.0]), jnp.array([0, 2]), jnp.array([0, 1, 2]), (2, 3))
    save_params(tmp_path / "a.params", [None, rows, matrix])
    none, found, csr = load_params(tmp_path / "a.params")
    assert none is None
    np.testing.assert_array_equal(found.indices, [1, 4])
    np.testing.assert_array_equal(found.todense(), rows.todense())
    for part, written in zip(csr[:3], matrix[:3], strict=True):
        np.testing.assert_array_equal(part, written)
    save_params(tmp_path / "a.params", [None, np.float32(3)], np_shape=True)
    none, scalar = load_params(tmp_path / "a.params")
    assert none is None
    assert scalar.shape == ()


def listed(*arrays: bytes) -> bytes:
    return struct.pack("<QQQ", 0x112, 0, len(arrays)) + b"".join(arrays) + struct.pack("<Q", 0)


def test_formats_before_1_0_are_read() -> None:
    content = struct.pack("<iii2f", 1, 0, 0, 1.5, -2.5)
    oldest = struct.pack("<III", 2, 1, 2) + content
    first = struct.pack("<Iiqq", 0xF993FAC8, 2, 1, 2) + content
    nothing = struct.pack("<I", 0)
    *arrays, none = load_params(listed(oldest, first, nothing))
    for array in arrays:
        assert_same(array, np.array([[1.5, -2.5]], np.float32))
    assert none is None


def test_files_may_be_paths_opened_or_bytes() -> None:
    path = FILES / "1.9.1" / "list.params"
    data = path.read_bytes()
    with path.open("rb") as opened:
        given = [str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), opened]
        for file in given:
            assert_same(load_params(file)[1], expected_in(path)["1"])
    with pytest.raises(FileNotFoundError):
        load_params(FILES / "missing.params")
    with pytest.raises(TypeError, match="opened for reading bytes"):
        load_params(io.StringIO("text"))


@pytest.mark.parametrize(
    ("params", "np_shape", "error", "message"),
    [
        ({"w": np.float32(1)}, False, ValueError, "'w' must have dimensions"),
        ([np.zeros(2, np.uint16)], False, ValueError, "array 0 must be of a dtype that MXNet 1"),
        ({1: np.zeros(2)}, False, TypeError, "names must be strings"),
        ({"w": "text"}, False, TypeError, "'w' must be an array"),
        ({"w": np.zeros(2, complex)}, False, TypeError, "got dtype complex128"),
        (
            {"w": RowSparse(jnp.array([0]), jnp.ones((1, 2)), (2, 2))},
            True,
            ValueError,
            "'w' must be dense with np_shape=True",
        ),
    ],
)
def test_what_mxnet_does_not_have_is_not_written(
    tmp_path: Path, params: object, np_shape: bool, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        save_params(tmp_path / "a.params", params, np_shape=np_shape)
    assert not list(tmp_path.iterdir())


def flat(state: object) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dump", ["", "_dump"])
def test_states_are_the_same_under_every_protocol(protocol: int, dump: str) -> None:
    first, record = load_states(FILES / "1.9.1" / "protocol_4_dump.states")
    found, other = load_states(FILES / "1.9.1" / f"protocol_{protocol}{dump}.states")
    assert found.keys() == first.keys() == {0, 1}
    for index in found:
        assert isinstance(found[index], tuple)
        for array, expected in zip(flat(found[index]), flat(first[index]), strict=True):
            assert_same(array, expected)
    assert other == (record if dump else None)


def test_the_optimizer_is_data() -> None:
    record = load_states(FILES / "1.9.1" / "protocol_4_dump.states").optimizer
    assert record is not None
    assert (record.module, record.name, record.version) == ("mxnet.optimizer.optimizer", "Adam", 1)
    attributes = record.attributes
    assert attributes["beta1"] == 0.9
    assert attributes["num_update"] == 3
    assert attributes["_index_update_count"] == {0: 3, 1: 3}
    assert attributes["_all_index_update_counts"] == {0: {0: 3, 1: 3}}
    scheduler = attributes["lr_scheduler"]
    assert (scheduler.name, scheduler.version) == ("FactorScheduler", None)
    assert scheduler.attributes["factor"] == 0.5


def test_somebodys_classes_are_names() -> None:
    record = load_states(FILES / "1.9.1" / "own_classes.states").optimizer
    assert record is not None
    assert (record.module, record.name) == ("__main__", "Mine")
    assert record.attributes["momentum"] == 0.9
    assert "mine" not in record.attributes
    assert record.attributes["lr_scheduler"].name == "Slow"


def test_numpy_numbers_are_numbers() -> None:
    record = load_states(FILES / "1.9.1" / "numpy_scalars.states").optimizer
    assert record is not None
    assert record.attributes["momentum"] == float(np.float32(0.9))
    assert record.attributes["wd"] == 1e-4


def test_files_of_gluon_and_module() -> None:
    states, record = load_states(FILES / "1.9.1" / "gluon_trainer.states")
    assert sorted(states) == [0, 1, 4, 5]
    assert record is not None
    assert record.attributes["rescale_grad"] == 0.5
    for devices, keys in ((1, [0, 1]), (2, ["fc_bias", "fc_weight"])):
        states, record = load_states(FILES / "1.9.1" / f"module_{devices}.states")
        assert sorted(states) == keys
        assert record is None
    states, record = load_states(FILES / "2.0.0b1" / "gluon_trainer.states")
    assert record is not None
    assert (record.module, record.version) == ("mxnet.optimizer.adam", 2)
    assert record.attributes["lr_scheduler"].name == "CosineScheduler"


def test_row_sparse_states() -> None:
    states, _ = load_states(FILES / "1.9.1" / "row_sparse.states")
    mean, var = states[0]
    assert isinstance(mean, RowSparse)
    assert isinstance(var, RowSparse)
    assert mean.shape == (4, 2)
    assert not np.asarray(mean.todense())[[0, 2]].any()
    assert np.asarray(mean.todense())[[1, 3]].all()


def test_a_number_in_an_array_is_a_number() -> None:
    record = load_states(FILES / "2.0.0b1" / "adamw.states").optimizer
    assert record is not None
    assert record.attributes["rescale_grad"] == 1.0
    assert isinstance(record.attributes["rescale_grad"], float)


def test_errors_name_the_file() -> None:
    path = FILES / "1.9.1" / "list.params"
    with pytest.raises(ValueError, match=r"^mxnet_files\.load_states\(.*list\.params.*opcode"):
        load_states(path)
    with pytest.raises(ValueError, match=r"^mxnet_files\.load_params\(bytes\): truncated"):
        load_params(path.read_bytes()[:-1])


def test_public_names() -> None:
    assert set(mxnet_files.__all__) <= set(dir(mxnet_files))
