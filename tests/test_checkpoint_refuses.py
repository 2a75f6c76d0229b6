"""Files that must not be loaded: damaged, hostile, newer, or of something else."""

import copy
import io
import json
import pathlib
import re
import zipfile
from collections.abc import Callable
from functools import partial
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import assert_same, make, run, tree

import jaxmxopt as mxopt
from jaxmxopt import checkpoint
from jaxmxopt._files.archive import seal

SMALL = {"w": np.array([1.5, -2.0], np.float32), "n": 3}


def loaded_or_refused(data: bytes, like: Any, **both: Any) -> Any:
    """What the bytes hold, or None where they are refused in the right way."""
    try:
        return checkpoint.loads(data, like, **both)
    except ValueError as error:
        if not str(error).startswith("checkpoint.loads: "):
            raise
        return None


def test_any_flipped_bit_is_refused() -> None:
    data = checkpoint.dumps(SMALL)
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            assert loaded_or_refused(bytes(flipped), SMALL) is None


def test_any_flipped_bit_is_refused_in_large_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fields that sizes beyond four gigabytes need, here used from 20 bytes on."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 20)
    data = checkpoint.dumps(SMALL)
    assert loaded_or_refused(data, SMALL)["n"] == 3
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        assert loaded_or_refused(bytes(flipped), SMALL) is None


def test_any_truncation_is_refused() -> None:
    data = checkpoint.dumps(SMALL)
    for length in range(len(data)):
        assert loaded_or_refused(data[:length], SMALL) is None


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=300)
def test_any_damage_is_refused(data: Any) -> None:
    whole = checkpoint.dumps(SMALL)
    given = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(given)))
        stop = data.draw(st.integers(start, min(len(given), start + 40)))
        given[start:stop] = data.draw(st.binary(max_size=40))
    assert given == whole or loaded_or_refused(bytes(given), SMALL) is None


@pytest.mark.parametrize("data", [b"", b"PK", b"no file of ours" * 100], ids=["none", "two", "no"])
def test_what_is_no_archive(data: bytes) -> None:
    with pytest.raises(ValueError, match="is truncated, or no state file of jaxmxopt"):
        checkpoint.loads(data, SMALL)


def test_the_path_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(FileNotFoundError):
        checkpoint.load(path, SMALL)
    np.savez(path, a=np.ones(3))
    message = r"checkpoint.load\('.*x.npz'\): is not a state file of jaxmxopt"
    with pytest.raises(ValueError, match=message):
        checkpoint.load(path, SMALL)


def remade(
    data: bytes, change: Callable[[dict[str, bytes]], Any], method: int = zipfile.ZIP_STORED
) -> bytes:
    """An archive that is right in itself, its checksum too, with other members."""
    new = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(new, "w", method) as archive:
        content = {name: old.read(name) for name in old.namelist()}
        change(content)
        for name, body in content.items():
            archive.writestr(name, body)
        archive.comment = old.comment
    seal(new)
    return new.getvalue()


def with_header(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The archive with a header that is changed in place, or the one returned."""

    def change_content(content: dict[str, bytes]) -> None:
        header = json.loads(content["header.json"])
        result = change(header)
        content["header.json"] = json.dumps(header if result is None else result).encode()

    return remade(data, change_content)


def with_array(data: bytes, body: bytes) -> bytes:
    """The archive with other bytes for `w`."""
    return remade(data, lambda content: content.update({"w.npy": body}))


def of_w(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header["leaves"]["w"].update(changes)


HEADERS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "newer": (lambda h: h.update(version=3), "is of format version 3, newer than 2, the newest"),
    "older": (lambda h: h.update(version=1), "in its header, which is of format version 1"),
    "no version": (lambda h: h.update(version="1"), "format version '1'"),
    "true version": (lambda h: h.update(version=True), "format version True"),
    "other format": (lambda h: h.update(format="torch"), "is not a state file of jaxmxopt"),
    "list": (lambda h: [h], "is not a state file of jaxmxopt"),
    "no leaves": (lambda h: h.update(leaves=[]), "leaves or slots in its header"),
    "no slots": (lambda h: h.update(slots=None), "leaves or slots in its header"),
    "odd slots": (lambda h: h.update(slots=3), "leaves or slots in its header"),
    "leaf": (lambda h: h["leaves"].update(w=[]), r"'w' must be an array, got \[\]"),
    "dtype": (of_w(dtype="float64"), "'w' must have dtype float32, got float64"),
    "odd dtype": (of_w(dtype="object"), "'w' must have dtype float32, got object"),
    "int dtype": (of_w(dtype=1), "'w' must have dtype float32, got 1"),
    "shape": (of_w(shape=[1, 2]), r"'w' must have shape \(2,\), got \(1, 2\)"),
    "no shape": (of_w(shape=None), r"'w' must have shape \(2,\), got None"),
    "negative": (of_w(shape=[-2]), "'w' must have shape"),
    "true": (of_w(shape=[2.0]), "an array in its header"),
    "huge": (of_w(shape=[2**70]), "'w' must have shape"),
    "member": (of_w(array="v"), "is damaged in 'v.npy'"),
    "no name": (of_w(array=1), "an array in its header"),
    "name": (lambda h: h["leaves"].update(v=h["leaves"].pop("w")), "must hold 'w', got a file wi"),
    "a key": (of_w(key="rbg"), "'w' must have dtype float32, got rbg"),
    "value kind": (lambda h: h["leaves"].update(n=3.0), "'n' must be of type int, got float"),
    "algorithm": (lambda h: h.update(algorithm=3), "must be of Adam, got 3"),
    "kind": (lambda h: h.update(kind="updater"), "must be of a tree, got one of an Updater"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers(case: str) -> None:
    change, message = HEADERS[case]
    data = with_header(checkpoint.dumps(SMALL), change)
    with pytest.raises(ValueError, match=message):
        checkpoint.loads(data, SMALL, opt=mxopt.Adam() if case == "algorithm" else None)


def test_the_same_content_is_accepted() -> None:
    data = checkpoint.dumps(SMALL)
    assert loaded_or_refused(with_header(data, lambda header: None), SMALL)["n"] == 3
    assert loaded_or_refused(with_array(data, W), SMALL)["n"] == 3


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


W = npy(SMALL["w"])
NOT_AS_SAID = "array 'w' is not what the header says"
WRONG_SIZE = "array 'w' has the wrong size"
MEMBERS = {
    "nothing": (b"", "array 'w' .EOF"),
    "no magic": (b"x" * len(W), "array 'w' .the magic string is not correct"),
    "other shape": (npy(np.ones((2, 1), np.float32)), NOT_AS_SAID),
    "other dtype": (npy(np.ones(2, np.int32)), NOT_AS_SAID),
    "other order": (npy(np.ones(2, ">f4")), NOT_AS_SAID),
    "fortran": (W.replace(b"False", b"True "), NOT_AS_SAID),
    "pickle": (npy(np.array([{}, 1], object), allow_pickle=True), NOT_AS_SAID),
    "code": (W.replace(b"(2,)", b"f(2)"), "array 'w' .malformed node"),
    "nested": (W.replace(b"(2,)", b"(" * 4), "array 'w' .*EOF"),
    "short": (W[:-1], WRONG_SIZE),
    "long": (W + b"0", WRONG_SIZE),
    "version": (W.replace(b"NUMPY\1", b"NUMPY\2"), NOT_AS_SAID),
}


@pytest.mark.parametrize("case", MEMBERS)
def test_members(case: str) -> None:
    content, message = MEMBERS[case]
    with pytest.raises(ValueError, match=message):
        checkpoint.loads(with_array(checkpoint.dumps(SMALL), content), SMALL)


def test_a_bomb_is_not_inflated() -> None:
    zeros = {"w.npy": npy(np.zeros(50_000_000, np.uint8))}
    data = remade(
        checkpoint.dumps(SMALL), lambda content: content.update(zeros), zipfile.ZIP_DEFLATED
    )
    assert len(data) < 100_000
    with pytest.raises(ValueError, match="its members are compressed"):
        checkpoint.loads(data, SMALL)


def test_members_within_each_other_are_refused() -> None:
    """A directory with every member many times says more bytes than the file has."""
    new = io.BytesIO()
    with zipfile.ZipFile(new, "w") as archive:
        archive.writestr("a.npy", bytes(1000))
        for number in range(100):
            again = copy.copy(archive.filelist[0])
            again.filename = f"{number}.npy"
            archive.filelist.append(again)
        archive.comment = bytes(71)
    seal(new)
    with pytest.raises(ValueError, match="its members are larger than the file"):
        checkpoint.loads(new.getvalue(), SMALL)


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"a"', b"\xff\xfe", b"9" * 9999])
def test_headers_that_are_no_json(text: bytes) -> None:
    data = remade(
        checkpoint.dumps(SMALL), lambda content: content.update({"header.json": text})
    )  # fmt: skip
    with pytest.raises(ValueError, match="is damaged in its header"):
        checkpoint.loads(data, SMALL)


@pytest.mark.parametrize("deeper", ["class", "list", "map"])
def test_headers_that_nest_too_deeply(deeper: str, tmp_path: pathlib.Path) -> None:
    record: Any = 1
    for _ in range(150):
        record = {
            "class": {"class": "Adam", "fields": {"lr_mult": record}},
            "list": {"list": [record]},
            "map": {"map": [["a", record]]},
        }[deeper]
    data = checkpoint.dumps(SMALL, opt=mxopt.Adam())
    path = tmp_path / "x.npz"
    path.write_bytes(with_header(data, lambda header: header.update(definition=record)))
    with pytest.raises(ValueError, match=r"load_definition\(.*it nests more than 100 deep"):
        checkpoint.load_definition(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=120)
def test_hostile_headers_raise_nothing_but_value_error(data: Any) -> None:
    """A header with right checksums but any value anywhere."""
    opt = mxopt.Adam(lr_mult={"w": 1.0})
    params = {"w": np.ones(2, np.float32)}

    def change(header: dict[str, Any]) -> None:
        place: Any = header
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            deeper = isinstance(place[key], (dict, list)) and place[key]
            if not deeper or data.draw(st.integers(0, 3)) == 0:
                break
            place = place[key]
        place[key] = data.draw(json_values)

    whole = {"state": opt.init(params), "n": 1, "key": jax.random.key(0)}
    saved = with_header(checkpoint.dumps(whole, opt=opt, params=params), change)
    loaded_or_refused(saved, whole, opt=opt, params=params)


# What is of something else. ---------------------------------------------------------------


def adam() -> tuple[mxopt.OptimizerDef, Any, Any]:
    opt = make(mxopt.Adam)
    return (opt, *run(opt))


def grown(params: Any, **more: Any) -> Any:
    return {key: value for key, value in {**params, **more}.items() if value is not None}


def test_another_algorithm() -> None:
    opt, params, state = adam()
    data = checkpoint.dumps(state, opt=opt, params=params)
    other = make(mxopt.SGD)
    with pytest.raises(ValueError, match=r"^checkpoint.loads: must be of SGD, got Adam\.$"):
        checkpoint.loads(data, other.init(params), opt=other, params=params)
    message = "'the tree' must be a State with slots MomentumSlots, got a State with slots AdamSl"
    with pytest.raises(ValueError, match=message):
        checkpoint.loads(data, other.init(params), params=params)
    without = checkpoint.dumps(state, params=params)
    with pytest.raises(ValueError, match="must be of Adam, got no optimizer"):
        checkpoint.loads(without, state, opt=opt, params=params)


def test_other_hyperparameters_are_no_hindrance() -> None:
    opt, params, state = adam()
    data = checkpoint.dumps(state, opt=opt, params=params)
    checkpoint.loads(data, state, opt=opt.replace(learning_rate=9.0), params=params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": jnp.ones(2)}, "must hold 'd/slots/mean', got a file without it"),
        ({"c": None}, "must hold 5 leaves, got 'c/slots/mean' beside them"),
        (
            {"c": None, "cc": jnp.ones((2, 4))},
            "must hold 'cc/slots/mean', got a file without it; did you mean 'c/slots/mean'",
        ),
        ({"c": jnp.ones((4, 2))}, r"'c/slots/mean' must have shape \(4, 2\), got \(2, 4\)"),
        ({"c": jnp.ones((2, 4), "bfloat16")}, "'c/master' must|'c/slots/mean' must have dtype bf"),
    ],
    ids=["more", "fewer", "renamed", "shape", "dtype"],
)
@pytest.mark.filterwarnings("ignore:Adam. state of half-precision")
def test_other_weights(change: dict[str, Any], message: str) -> None:
    opt, params, state = adam()
    data = checkpoint.dumps(state, opt=opt, params=params)
    others = grown(params, **change)
    with pytest.raises(ValueError, match=message):
        checkpoint.loads(data, opt.init(others), opt=opt, params=others)


@pytest.mark.filterwarnings("ignore:Adam. state of half-precision")
def test_a_master_more() -> None:
    opt = make(mxopt.Adam, multi_precision=True)
    params = tree(0, jnp.bfloat16)
    data = checkpoint.dumps(opt.init(params), params=params)
    state = opt.replace(multi_precision=False).init(params)
    with pytest.raises(ValueError, match="must hold 7 leaves, got 'a/master' beside them"):
        checkpoint.loads(data, state, params=params)


def test_other_leaves() -> None:
    rows = mxopt.RowSparse([1], jnp.ones((1, 2)), (4, 2))
    key = jax.random.key(0)
    data = checkpoint.dumps({"g": rows, "k": key, "s": "text"})
    wide = mxopt.RowSparse([1], jnp.ones((1, 2)), (5, 2))
    for change, message in [
        ({"g": wide}, r"'g' must be a RowSparse of shape \(5, 2\), got a RowSparse of shape \(4"),
        ({"g": jnp.ones((4, 2))}, "'g' must be an array, got .*RowSparse"),
        ({"k": jax.random.key(0, impl="rbg")}, "'k' must have dtype rbg, got threefry2x32"),
        ({"k": jax.random.key_data(key)}, "'k' must have dtype uint32, got threefry2x32"),
        ({"s": 5}, "'s' must be of type int, got str"),
        ({"s": jnp.ones(2)}, "'s' must be an array, got 'text'"),
        ({"k": 5}, "'k' must be of type int, got an array"),
        ({"k": rows}, r"'k' must be a RowSparse of shape \(4, 2\), got others"),
    ]:
        like = {"g": rows, "k": key, "s": "text", **change}
        with pytest.raises(ValueError, match=re.escape("checkpoint.loads: ") + message):
            checkpoint.loads(data, like)


def test_what_no_file_holds_is_no_pattern() -> None:
    with pytest.raises(TypeError, match="'n' must be like an array, got set"):
        checkpoint.loads(checkpoint.dumps({"n": 1}), {"n": {1}})


def test_double_precision_is_not_cut() -> None:
    data = checkpoint.dumps({"x": np.ones(2)})
    with pytest.raises(ValueError, match=r"'x' must .* jax_enable_x64"):
        checkpoint.loads(data, {"x": jax.ShapeDtypeStruct((2,), np.float64)})


# What cannot be saved. --------------------------------------------------------------------


def test_states_of_others_may_stand_beside_those_of_the_optimizer() -> None:
    one = {"w": jnp.ones(2)}
    states = {"d": mxopt.SGD().init(one), "g": mxopt.Adam().init(one)}
    for opt in (mxopt.SGD(), mxopt.Adam()):
        checkpoint.dumps(states, opt=opt, params=one)
    with pytest.raises(ValueError, match="got Ftrl and, at 'd', a State with slots tuple"):
        checkpoint.dumps({"d": states["d"], "g": states["g"]}, opt=mxopt.Ftrl(), params=one)


@pytest.mark.parametrize(
    "wrap",
    [mxopt.EMA, partial(mxopt.Accumulate, every=2), partial(mxopt.ClipGlobalNorm, max_norm=1.0)],
)
def test_the_algorithm_of_a_wrapper_may_be_recorded(wrap: Any) -> None:
    opt = mxopt.Adam()
    params = {"w": jnp.ones(3)}
    state = wrap(opt).init(params)
    data = checkpoint.dumps(state, opt=opt, params=params)
    assert_same(checkpoint.loads(data, state, opt=opt, params=params), state)


def test_saving_refuses_and_leaves_the_old_file(tmp_path: pathlib.Path) -> None:
    _, _, state = adam()
    path = tmp_path / "x.npz"
    checkpoint.save(path, SMALL)
    gone = jnp.ones(3)
    gone.delete()
    bad: list[tuple[Any, Any, type[Exception], str]] = [
        (state, {}, ValueError, "params must be given: 'the state' is of a whole tree"),
        (
            state,
            {"params": {"a": 1}},
            ValueError,
            "'the state', which is of 3 weights, params has 1.",
        ),
        ({"a/b": 1, "a": {"b": 2}}, {}, ValueError, "different paths, got two at 'a/b'"),
        (
            {"x": object()},
            {},
            TypeError,
            "'x' must be an array, a number .* got object",
        ),
        ({"x": np.array(["a"])}, {}, TypeError, "'x' must be of a dtype of JAX, got <U1"),
        ({"w": np.ones(99), "x": gone}, {}, ValueError, "'x' must be alive"),
        (
            state,
            {"opt": "adam"},
            TypeError,
            "opt must be an optimizer such as jaxmxopt.Adam.., got",
        ),
        (
            {"a": mxopt.Adam().create_state(0, jnp.ones(2)), "b": 1},
            {"opt": mxopt.NAG(momentum=0.9)},
            ValueError,
            "opt must be what the states are of, got NAG and, at 'a', a State with slots AdamSlots",
        ),
    ]
    for tree_, both, kind, message in bad:
        with pytest.raises(kind, match=message):
            checkpoint.save(path, tree_, **both)
    with pytest.raises(TypeError, match=r"'' must be an array.* got .*Tracer"):
        jax.jit(lambda x: checkpoint.dumps(x))(jnp.ones(2))
    assert list(tmp_path.iterdir()) == [path]
    assert loaded_or_refused(path.read_bytes(), SMALL) is not None
    with pytest.raises(FileNotFoundError):
        checkpoint.save(tmp_path / "missing" / "x.npz", SMALL)
    with pytest.raises(IsADirectoryError):
        checkpoint.save(tmp_path, SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "Adamm"}, "the optimizer is a Adamm, which is unknown here; did you mean 'Ada"),
        ({"class": "os.system"}, "the optimizer is a os.system, which is unknown here"),
        (
            {"class": "LRScheduler", "fields": {}},
            "a LRScheduler, which is not an optimizer",
        ),
        ({"fields": {"beta1": 1.5}}, r"cannot be made again: Adam: beta1 must be in \[0, 1\)"),
        ({"fields": {"beta9": 0.5}}, "cannot be made again: .*did you mean 'beta"),
        ({"fields": {"lr_mult": {"map": [[[], 1]]}}}, "is damaged: the optimizer.lr_mult"),
        ({"fields": {"lr_mult": {"map": [[{"list": []}, 1]]}}}, r"lr_mult has the key \[\]"),
        (
            {"fields": {"wd": {"array": ["x"], "dtype": "float32"}}},
            "optimizer.wd cannot be ma",
        ),
    ],
)
def test_definitions_of_other_kinds(
    change: dict[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "x.npz"
    data = checkpoint.dumps({}, opt=mxopt.Adam())
    path.write_bytes(with_header(data, lambda header: header["definition"].update(change)))
    with pytest.raises(ValueError, match=message):
        checkpoint.load_definition(path)


def test_a_file_without_definition(tmp_path: pathlib.Path) -> None:
    checkpoint.save(tmp_path / "x.npz", {})
    with pytest.raises(ValueError, match="records no optimizer; it was saved without one"):
        checkpoint.load_definition(tmp_path / "x.npz")
