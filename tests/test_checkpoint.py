"""Files of our own: what is saved comes back, to the bit and to its place."""

import json
import os
import pathlib
import re
import stat
import zipfile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from samples import assert_same, make, run, tree

import jaxmxopt as mxopt
from jaxmxopt import checkpoint, lr_scheduler


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "state.npz"


def through(path: Any, tree: Any, like: Any = None, **both: Any) -> Any:
    """Saves and loads."""
    checkpoint.save(path, tree, **both)
    return checkpoint.load(path, tree if like is None else like, **both)


def filled(tree: Any) -> Any:
    """The tree with other values everywhere, all different."""
    numbers = iter(range(1, 1000))

    def other(leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.fold_in(leaf, next(numbers)) if leaf.ndim == 0 else leaf[::-1]
        return jnp.asarray(np.arange(leaf.size).reshape(leaf.shape) + next(numbers), leaf.dtype)

    return jax.tree.map(other, tree)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_algorithm(cls: type[mxopt.OptimizerDef], dtype: str, path: pathlib.Path) -> None:
    opt = make(cls, multi_precision=dtype != "float32")
    params = tree(0, jnp.dtype(dtype))
    blank = {"params": params, "state": opt.init(params)}
    whole = filled(blank)
    assert_same(through(path, whole, blank, opt=opt, params=params), whole)


def test_one_weight(cls: type[mxopt.OptimizerDef], path: pathlib.Path) -> None:
    opt, weight = make(cls), tree()["a"]
    blank = opt.create_state("a", weight)
    state = filled(blank)
    restored = through(path, state, blank, opt=opt)
    assert type(restored) is mxopt.State
    assert_same(restored, state)


ADAM, SGD = mxopt.Adam(learning_rate=0.1), mxopt.SGD(momentum=0.9, learning_rate=0.2)
WRAPPED = [
    mxopt.EMA(ADAM, decay=0.9),
    mxopt.Accumulate(SGD, every=2),
    mxopt.ClipGlobalNorm(ADAM, max_norm=0.1),
    mxopt.Groups({"b": SGD, "*": mxopt.EMA(ADAM)}),
    mxopt.EMA(mxopt.Groups({"a": ADAM, "*": SGD})),
    mxopt.Accumulate(mxopt.EMA(ADAM, debias=False), every=3),
]


@pytest.mark.parametrize("opt", WRAPPED, ids=repr)
def test_wrappers(opt: Any, path: pathlib.Path) -> None:
    params = tree(0)
    blank = opt.init(params)
    state = filled(blank)
    assert_same(through(path, state, blank, opt=opt, params=params), state)
    assert checkpoint.load_definition(path) == opt
    with pytest.raises(ValueError, match=r"must be of EMA\(SGD\), got"):
        checkpoint.load(path, blank, opt=mxopt.EMA(SGD), params=params)
    with np.load(path) as file:
        assert any(re.fullmatch(r".*b/slots/(.*/)?(mean|mom)", name) for name in file)


def test_going_on(path: pathlib.Path) -> None:
    opt = make(mxopt.Adam)
    params, state = run(opt)
    restored = through(path, {"params": params, "state": state}, opt=opt, params=params)
    grads = tree(5)
    assert_same(opt.step(**restored, grads=grads), opt.step(params, grads, state))


@pytest.mark.usefixtures("thresholds")
def test_a_file_does_not_know_the_layout(path: pathlib.Path) -> None:
    """Weights that share an array and weights that do not have the same file."""
    opt = make(mxopt.Adam)
    params, state = run(opt)
    checkpoint.save(path, state, params=params)
    with np.load(path) as file:
        assert sorted(file) == sorted(
            ["header.json", "num_update"]
            + [f"{weight}/slots/{slot}" for weight in "abc" for slot in ("mean", "var")]
        )
        np.testing.assert_array_equal(file["b/slots/var"], state.unpack(params)["b"].slots.var)


DTYPES = """bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64
    complex64 complex128 bfloat16 float8_e4m3fn float8_e5m2 int4 uint4""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4)])
@pytest.mark.usefixtures("x64")
def test_every_dtype(name: str, shape: tuple[int, ...], path: pathlib.Path) -> None:
    host = np.random.default_rng(0).integers(0, 2, shape).astype(np.dtype(name))
    for array in (host, jnp.asarray(host)):
        restored = through(path, {"x": array})["x"]
        assert isinstance(restored, type(array))
        assert (restored.dtype, restored.shape) == (np.dtype(name), shape)
        assert np.asarray(restored).tobytes() == host.tobytes()


def test_special_values_keep_their_bits(path: pathlib.Path) -> None:
    bits = np.array([0x7FC00001, 0xFFC12345, 0x7F800000, 0x80000000, 1], np.uint32)
    restored = through(path, [bits.view(np.float32)])
    assert restored[0].view(np.uint32).tolist() == bits.tolist()


def test_numpy_arrays_come_back_as_they_were(path: pathlib.Path) -> None:
    given = {
        "strided": np.arange(12.0).reshape(3, 4)[:, ::2],
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big-endian": np.arange(3, dtype=">i4"),
        "scalar": np.float32(0.1),
    }
    restored = through(path, given)
    for key, array in given.items():
        np.testing.assert_array_equal(restored[key], array)
        assert type(restored[key]) is type(array)
    restored["strided"][0, 0] = 7.0


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("count", [None, 3])
def test_random_keys(impl: str, count: int | None, path: pathlib.Path) -> None:
    key = jax.random.key(5, impl=impl)
    key = key if count is None else jax.random.split(key, count)
    restored = through(path, key)
    assert restored.dtype == key.dtype
    assert_same(restored, key)
    assert_same(checkpoint.load(path, jax.ShapeDtypeStruct(key.shape, key.dtype)), key)


class Pair(NamedTuple):
    left: Any
    right: Any


def test_any_tree(path: pathlib.Path) -> None:
    given = {
        "pair": Pair([1, 2.5, True], "épôque"),
        "none": None,
        "rows": mxopt.RowSparse([2, 0, 2], jnp.arange(6.0).reshape(3, 2), (4, 2)),
        "opt": mxopt.Adam(lr_scheduler=lr_scheduler.FactorScheduler(step=3), wd_mult={"*": 0.5}),
        "large": 2**80,
        "inexact": 0.1,
        7: jnp.ones(2),
    } | {}
    given = {str(key): value for key, value in given.items()}
    restored = through(path, given)
    assert type(restored["pair"]) is Pair
    assert [type(x) for x in restored["pair"].left] == [int, float, bool]
    assert restored["pair"] == given["pair"]
    assert restored["opt"] == given["opt"]
    assert restored["large"] == 2**80
    assert restored["inexact"] == 0.1
    assert_same(restored["rows"], given["rows"])


def test_names_of_all_kinds(path: pathlib.Path) -> None:
    names = ["../up", "/root", ".", "..", "a//b", "", "ü\0\\:", "%2E", "x.npy", "header.json", "A"]
    given = {name: np.full(1, number) for number, name in enumerate([*names, "a" * 300])}
    restored = through(path, given)
    assert {key: int(value[0]) for key, value in restored.items()} == {
        key: int(value[0]) for key, value in given.items()
    }
    with zipfile.ZipFile(path) as archive:
        parts = [part for name in archive.namelist() for part in name.split("/")]
    assert not {"", ".", ".."}.intersection(parts)


def test_shards_come_back_to_their_devices(path: pathlib.Path) -> None:
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))
    placed = {
        "rows": NamedSharding(mesh, PartitionSpec("x")),
        "both": NamedSharding(mesh, PartitionSpec("x", "y")),
        "all": NamedSharding(mesh, PartitionSpec()),
    }
    host = {name: np.random.default_rng(1).normal(size=(8, 4)).astype("f4") for name in placed}
    params = jax.tree.map(jax.device_put, host, placed)
    opt = mxopt.Adam()
    state = jax.jit(opt.init)(params)
    params, state = opt.step(params, params, state)
    restored = through(path, state, params=params)
    assert_same(restored, state)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
    # From eight devices to one.
    alone = jax.device_put(jax.tree.map(np.asarray, params), jax.devices()[3])
    restored = checkpoint.load(path, opt.init(alone), params=alone)
    assert restored.unpack(alone)["rows"].slots.mean.devices() == {jax.devices()[3]}
    assert_same(restored.unpack(alone)["rows"].slots, state.unpack(params)["rows"].slots)


def test_random_keys_over_devices(path: pathlib.Path) -> None:
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("x",)), PartitionSpec("x"))
    keys = jax.device_put(jax.random.split(jax.random.key(0), 16), sharding)
    restored = through(path, keys)
    assert_same(restored, keys)
    assert restored.sharding == sharding


def test_where_nothing_was_said_arrays_stay_free_to_move(path: pathlib.Path) -> None:
    assert not through(path, jnp.ones(3)).committed
    assert through(path, jax.device_put(jnp.ones(3), jax.devices()[2])).committed


def test_going_on_compiles_nothing_anew(path: pathlib.Path, compilations: Any) -> None:
    opt = make(mxopt.Adam)
    params, state = run(opt)
    restored = through(path, {"params": params, "state": state}, opt=opt, params=params)
    jax.block_until_ready(opt.step(params, params, state))
    with compilations as seen:
        opt.step(restored["params"], restored["params"], restored["state"])
    assert seen.count == 0


def test_an_abstract_tree_will_do(path: pathlib.Path) -> None:
    opt = make(mxopt.Adam)
    params, state = run(opt)
    checkpoint.save(path, state, opt=opt, params=params)
    abstract = jax.eval_shape(opt.init, params)
    assert_same(checkpoint.load(path, abstract, opt=opt, params=params), state)


def test_equal_contents_give_equal_bytes(path: pathlib.Path) -> None:
    opt = make(mxopt.Adam)
    params, state = run(opt)
    data = checkpoint.dumps(state, opt=opt, params=params)
    checkpoint.save(path, state, opt=opt, params=params)
    assert path.read_bytes() == data == checkpoint.dumps(state, opt=opt, params=params)
    assert_same(checkpoint.loads(data, state, opt=opt, params=params), state)


def test_the_header_says_what_is_inside(path: pathlib.Path) -> None:
    opt = make(mxopt.Adam)
    params, state = run(opt)
    checkpoint.save(path, state, opt=opt, params=params)
    with zipfile.ZipFile(path) as archive:
        header = json.loads(archive.read("header.json"))
    assert (header["format"], header["version"]) == ("jaxmxopt", 2)
    assert header["kind"] == "tree"
    assert header["algorithm"] == header["definition"]["class"] == "Adam"
    assert header["definition"]["fields"]["beta1"] == 0.8
    assert header["slots"] == {"": ["AdamSlots"]}
    leaves = header["leaves"]
    assert leaves["num_update"] == {"array": "num_update", "dtype": "int32", "shape": []}
    assert leaves["c/slots/var"] == {"array": "c/slots/var", "dtype": "float32", "shape": [2, 4]}


def double(count: Any) -> Any:
    return 0.1 * count


DEFINITIONS = [
    mxopt.Adam(),
    mxopt.SGD(momentum=0.9, learning_rate=0.3, clip_gradient=1.0, lazy_update=False),
    mxopt.Adam(lr_scheduler=lr_scheduler.CosineScheduler(100, base_lr=0.2, warmup_steps=7)),
    mxopt.Adam(lr_scheduler=lr_scheduler.MultiFactorScheduler(step=[3, 9], factor=0.5)),
    mxopt.Adam(lr_mult={0: 2.0, "*/bias": 0.0, (1, "x"): 3.0}, param_idx2name={0: "a_weight"}),
    mxopt.Adam(wd_mult={"a": np.float32(0.1)}, begin_num_update=5, multi_precision=True),
]


@pytest.mark.parametrize("opt", DEFINITIONS, ids=repr)
def test_definitions_come_back(opt: mxopt.OptimizerDef, path: pathlib.Path) -> None:
    checkpoint.save(path, {}, opt=opt)
    restored = checkpoint.load_definition(path)
    assert type(restored) is type(opt)
    assert restored == opt


def test_stacked_hyperparameters_come_back(path: pathlib.Path) -> None:
    opt = mxopt.Adam(learning_rate=jnp.array([0.1, 0.2]), beta1=jnp.bfloat16(0.9))
    checkpoint.save(path, {}, opt=opt)
    restored = checkpoint.load_definition(path)
    np.testing.assert_array_equal(restored.learning_rate, opt.learning_rate)
    assert restored.beta1.dtype == jnp.bfloat16


def test_a_function_must_be_given_again(path: pathlib.Path) -> None:
    opt = mxopt.Adam(lr_scheduler=double)
    checkpoint.save(path, {}, opt=opt)
    with pytest.raises(ValueError, match=r"the optimizer.lr_scheduler was test_checkpoint.double"):
        checkpoint.load_definition(path)
    assert checkpoint.load_definition(path, lr_scheduler=double) == opt


@pytest.mark.parametrize(
    "opt",
    [
        mxopt.EMA(mxopt.Adam(lr_scheduler=double), decay=0.5),
        mxopt.Groups({"a": mxopt.SGD(lr_scheduler=double), "*": mxopt.Adam(lr_scheduler=double)}),
    ],
)
def test_what_is_given_reaches_the_definitions_inside(path: pathlib.Path, opt: Any) -> None:
    checkpoint.save(path, {}, opt=opt)
    assert checkpoint.load_definition(path, lr_scheduler=double) == opt
    changed = checkpoint.load_definition(path, lr_scheduler=double, wd=0.5)
    assert changed == opt.replace(wd=0.5)
    with pytest.raises(ValueError, match="did you mean 'lr_scheduler'"):
        checkpoint.load_definition(path, lr_scheduler=double, lr_schedule=double)


def test_a_schedule_is_given_to_the_groups_that_had_a_function(path: pathlib.Path) -> None:
    kept = mxopt.SGD(lr_scheduler=lr_scheduler.FactorScheduler(2))
    plain = {"b": mxopt.SGD(learning_rate=0.1), "c": kept}
    opt = mxopt.EMA(mxopt.Groups({**plain, "*": mxopt.Adam(lr_scheduler=double)}))
    checkpoint.save(path, {}, opt=opt)
    assert checkpoint.load_definition(path, lr_scheduler=double) == opt


class Own(mxopt.SGD):
    """An algorithm from outside."""


def test_algorithms_from_outside(path: pathlib.Path) -> None:
    checkpoint.save(path, {}, opt=Own(momentum=0.5))
    assert checkpoint.load_definition(path) == Own(momentum=0.5)
    with pytest.raises(ValueError, match=r"must be of SGD, got test_checkpoint.Own"):
        checkpoint.load(path, {}, opt=mxopt.SGD())


def test_a_file_is_like_any_other(path: pathlib.Path) -> None:
    """Permissions follow the umask, a link stays a link, nothing else is left in the folder."""
    link = path.with_name("link.npz")
    link.symlink_to(path)
    before = os.umask(0o027)
    try:
        checkpoint.save(link, {"x": np.ones(2)})
    finally:
        os.umask(before)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(path.parent.iterdir()) == [link, path]
    checkpoint.save(str(path), {"x": np.zeros(2)})
    assert checkpoint.load(link, {"x": np.ones(2)})["x"].tolist() == [0, 0]


def test_sizes_beyond_four_gigabytes(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zip has other fields for them; here they are used from 1000 bytes on."""
    given = {name: np.arange(500.0) for name in "abc"}
    plain = checkpoint.dumps(given)
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    assert_same(through(path, given), given)
    assert path.read_bytes() != plain
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_many_arrays(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    given = {name: np.ones(1) for name in "abcdef"}
    assert_same(through(path, given), given)
    with np.load(path) as archive:
        assert sorted(archive) == [*"abcdef", "header.json"]
