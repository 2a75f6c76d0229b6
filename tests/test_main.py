"""The command line: `python -m jaxmxopt`."""

import importlib.metadata
import io
import os
import pathlib
import platform
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from samples import assert_same, make, run
from test_checkpoint_refuses import with_header

import jaxmxopt as mxopt
from jaxmxopt import checkpoint, lr_scheduler, mxnet_files
from jaxmxopt.__main__ import main
from jaxmxopt._cli import inspect as _progress

FILES = pathlib.Path(__file__).parent / "reference" / "files" / "1.9.1"


def said(capsys: Any, *arguments: Any, code: int = 0) -> str:
    """What a command prints, its exit status checked."""
    assert main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    printed, silent = (captured.err, captured.out) if code else (captured.out, captured.err)
    assert silent == ""
    return printed


@pytest.fixture
def ours(tmp_path: pathlib.Path) -> pathlib.Path:
    """A file of ours with a bit of everything."""
    opt = mxopt.Adam(lr_scheduler=lr_scheduler.FactorScheduler(step=3), wd_mult={"*bias": 0.0})
    params = {"w": jnp.asarray([3.0, 4.0]), "bias": jnp.asarray([jnp.nan, 1.0, jnp.inf, -jnp.inf])}
    whole = {
        "state": opt.init(params),
        "params": params,
        "epoch": 7,
        "key": jax.random.key(1),
        "half": jnp.full((2, 2), 0.5, jnp.bfloat16),
        "phase": np.complex64(3 + 4j),
    }
    path = tmp_path / "ours.npz"
    checkpoint.save(path, whole, opt=opt, params=params)
    return path


def test_inspect_our_file(ours: pathlib.Path, capsys: Any) -> None:
    text = said(capsys, "inspect", ours)
    rows = {line.split()[0]: re.split(r"  +", line) for line in text.splitlines() if line}
    assert rows["kind"][1].startswith("a tree, by jaxmxopt")
    assert rows["optimizer"][1] == "Adam"
    assert rows["lr_scheduler"][2] == "FactorScheduler(step=3)"
    assert rows["wd_mult"][2] == "{'*bias': 0.0}"
    assert rows["name"] == ["name", "shape", "dtype", "norm", "non-finite"]
    assert rows["params/w"][1:] == ["(2,)", "float32", "5", "0"]
    assert rows["params/bias"][1:] == ["(4,)", "float32", "nan", "1 NaN, 2 inf"]
    assert rows["state/w/slots/mean"][1:] == ["(2,)", "float32", "0", "0"]
    assert rows["epoch"][1:] == ["int", "7"]
    assert rows["key"][1:] == ["()", "key<threefry2x32>"]
    assert rows["half"][1:] == ["(2, 2)", "bfloat16", "1", "0"]
    assert rows["phase"][1:] == ["()", "complex64", "5", "0"]
    assert text.splitlines()[-1].endswith("1 with NaN or infinity, first 'params/bias'")


def test_inspect_a_function_as_schedule(tmp_path: pathlib.Path, capsys: Any) -> None:
    checkpoint.save(tmp_path / "x.npz", {}, opt=mxopt.Adam(lr_scheduler=said))
    text = said(capsys, "inspect", tmp_path / "x.npz")
    assert "{'opaque': 'test_main.said'}" in text
    assert text.endswith("0 entries, " + f"{os.stat(tmp_path / 'x.npz').st_size:,} bytes\n")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gluon_trainer.states", ["kind .*states of MXNet 1", r"optimizer +mxnet.*\.Adam",
                                  r"rescale_grad +0.5", r"5/0 +\(3, 4\) +float32 +0.0086"]),
        ("module_2.states", [r"fc_weight +\(3, 4\) +float32"]),
        ("own_classes.states", [r"optimizer +__main__.Mine", r"lr_scheduler +Slow\(base_lr=0.01"]),
        ("row_sparse.states", [r"0/0 +\(4, 2\) in 4 rows +float32"]),
        ("dtypes.params", ["kind +arrays of MXNet, by name", r"named ä.*1 NaN, 2 inf"]),
        ("sparse.params", [r"row_sparse +\(6, 3\) in 2 rows", r"csr +\(3, 3\) in 2 elements"]),
        ("list.params", ["kind +arrays of MXNet, in a list", r"1 +\(1, 2\) +float32"]),
        ("empty_dict.params", ["0 entries, 32 bytes"]),
    ],
)  # fmt: skip
def test_inspect_files_of_mxnet(name: str, expected: list[str], capsys: Any) -> None:
    text = said(capsys, "inspect", FILES / name)
    for pattern in expected:
        assert re.search(pattern, text), text


def test_there_and_back(tmp_path: pathlib.Path, capsys: Any) -> None:
    """Arrays, with and without names."""
    for name in ("dtypes.params", "list.params", "gluon.params", "module-0001.params"):
        middle, back = tmp_path / f"{name}.npz", tmp_path / name
        assert re.fullmatch(rf"{re.escape(str(middle))}: \d+ arrays\n",
                            said(capsys, "convert", FILES / name, middle))  # fmt: skip
        said(capsys, "convert", middle, back)
        # The devices that arrays were on are not kept.
        assert len(back.read_bytes()) == len((FILES / name).read_bytes())
        given, found = mxnet_files.load_params(FILES / name), mxnet_files.load_params(back)
        assert type(given) is type(found)
        assert_same(found, given)


def test_rows_there_and_back(tmp_path: pathlib.Path, capsys: Any) -> None:
    rows = mxopt.RowSparse([1, 3], jnp.ones((2, 2), jnp.float16), (5, 2))
    mxnet_files.save_params(tmp_path / "a.params", {"rows": rows, "w": jnp.ones(3)})
    said(capsys, "convert", tmp_path / "a.params", tmp_path / "b.npz")
    like = {"rows": rows, "w": jnp.zeros(3)}
    assert_same(checkpoint.load(tmp_path / "b.npz", like)["rows"], rows)
    said(capsys, "convert", tmp_path / "b.npz", tmp_path / "c.params")
    assert (tmp_path / "c.params").read_bytes() == (tmp_path / "a.params").read_bytes()


@pytest.mark.parametrize(
    "name",
    ["gluon_trainer.states", "row_sparse.states", "protocol_2_dump.states", "numpy_scalars.states"],
)
def test_states_there_and_back(name: str, tmp_path: pathlib.Path, capsys: Any) -> None:
    middle, back = tmp_path / "x.npz", tmp_path / name
    assert re.search(r"x.npz: (1 state|\d states) of \w+ after (1 update|\d+ updates)\n$",
                     said(capsys, "convert", FILES / name, middle))  # fmt: skip
    text = said(capsys, "inspect", middle)
    assert "an Updater or Trainer, by jaxmxopt" in text
    assert re.search(r"updates +[1-9]", text)
    said(capsys, "convert", middle, back)
    given, found = mxnet_files.load_states(FILES / name), mxnet_files.load_states(back)
    assert list(found.states) == list(given.states)
    assert_same(found.states, densified(given.states))
    for key in ("lr", "wd", "num_update", "_index_update_count"):
        assert found.optimizer.attributes[key] == given.optimizer.attributes[key]


def densified(tree: Any) -> Any:
    is_rows = lambda node: isinstance(node, mxopt.RowSparse)  # noqa: E731
    dense = lambda node: node.todense() if is_rows(node) else node  # noqa: E731
    return jax.tree.map(dense, tree, is_leaf=is_rows)


def test_states_without_optimizer_need_its_name(tmp_path: pathlib.Path, capsys: Any) -> None:
    source, middle, back = FILES / "module_2.states", tmp_path / "x.npz", tmp_path / "x.states"
    for wrong, message in [
        ([], "the file holds no optimizer; say of which with --optimizer."),
        (["--optimizer", "sgdd"], "did you mean 'sgd'"),
        (["--optimizer", "sgd,momentum"], "--optimizer must be a name and numbers such as sgd,mom"),
        (["--optimizer", "sgd,momentum=x"], "--optimizer must be a name and numbers such as sgd,m"),
        (["--optimizer", "sgd,momentun=1"], "did you mean 'momentum'"),
        (["--optimizer", "sgd"], "must be None, as momentum is 0"),
    ]:
        assert message in said(capsys, "convert", source, middle, *wrong, code=1)
    assert not middle.exists()
    right = ["--optimizer", "sgd,momentum=0.9,multi_precision=False"]
    text = said(capsys, "convert", source, middle, *right)
    assert text.endswith(": 2 states of SGD without its hyperparameters\n")
    text = said(capsys, "convert", middle, back, code=1)
    assert text.endswith("holds no optimizer; say of which with --optimizer.\n")
    said(capsys, "convert", middle, back, *right)
    assert_same(mxnet_files.load_states(back).states, mxnet_files.load_states(source).states)


def test_nothing_is_overwritten_unasked(tmp_path: pathlib.Path, capsys: Any) -> None:
    target = tmp_path / "x.npz"
    target.write_text("precious")
    text = said(capsys, "convert", FILES / "list.params", target, code=1)
    assert text == f"jaxmxopt: {target}: exists already; --force replaces it\n"
    assert target.read_text() == "precious"
    said(capsys, "convert", "--force", FILES / "list.params", target)
    assert checkpoint.load(target, {"0": jnp.ones(4), "1": jnp.ones((1, 2))})
    # Nor by a conversion that fails.
    before = target.read_bytes()
    said(capsys, "convert", "--force", FILES / "own_classes.states", target, code=1)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_what_cannot_be_converted(ours: pathlib.Path, tmp_path: pathlib.Path, capsys: Any) -> None:
    text = said(capsys, "convert", ours, tmp_path / "x.params", code=1)
    assert "must hold arrays alone to become MXNet's .params, got 'state'; to become .st" in text
    text = said(capsys, "convert", FILES / "sparse.params", tmp_path / "x.npz", code=1)
    assert "'csr' must be an array or RowSparse, got CSR, which our files cannot hold" in text
    checkpoint.save(tmp_path / "f8.npz", {"x": jnp.ones(2, jnp.float8_e5m2)})
    text = said(capsys, "convert", tmp_path / "f8.npz", tmp_path / "x.params", code=1)
    assert "float8_e5m2" in text


@pytest.mark.parametrize("command", [["inspect"], ["convert", "--force"]])
def test_wrong_files(command: list[str], ours: pathlib.Path, tmp_path: Any, capsys: Any) -> None:
    target = [] if command == ["inspect"] else [tmp_path / "out"]
    missing = tmp_path / "missing"
    text = said(capsys, *command, missing, *target, code=1)
    assert text == f"jaxmxopt: {missing}: No such file or directory\n"
    other = tmp_path / "other"
    other.write_bytes(b"no such file")
    text = said(capsys, *command, other, *target, code=1)
    assert text.startswith(f"jaxmxopt: {other}: ")
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(ours.read_bytes()[:-900] + b"!" + ours.read_bytes()[-899:])
    text = said(capsys, *command, damaged, *target, code=1)
    assert text.startswith(f"jaxmxopt: {damaged}: is damaged: its bytes differ")
    hostile = tmp_path / "hostile.states"
    hostile.write_bytes(b"cos\nsystem\n(S'touch run'\ntR.")
    assert "os.system is refused" in said(capsys, *command, hostile, *target, code=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "header",
    [
        {"definition": [1]},
        {"definition": {"class": "Adam", "fields": 3}},
        {"counts": {"list": []}},
        {"counts": [1]},
        {"leaves": {"w": {"array": 1}, "x": {"array": "y", "dtype": "int8", "shape": [2]}}},
        {"leaves": []},
    ],
)
def test_hostile_headers(header: Any, ours: pathlib.Path, capsys: Any) -> None:
    ours.write_bytes(with_header(ours.read_bytes(), lambda found: found.update(header)))
    text = said(capsys, "inspect", ours, code=1)
    assert text.startswith(f"jaxmxopt: {ours}: is damaged")


def test_terminals_obey_nothing_in_a_file(tmp_path: pathlib.Path, capsys: Any) -> None:
    path, raw = tmp_path / "x.npz", "\x1b[2Jw\n\u202eä"
    data = checkpoint.dumps({raw: jnp.full(1, jnp.nan), "text": raw}, opt=mxopt.Adam())
    writer = {"writer": raw, "algorithm": raw, "kind": raw}
    for changed in (data, with_header(data, lambda header: header.update(writer))):
        path.write_bytes(changed)
        text = said(capsys, "inspect", path)
        assert r"\x1b[2Jw\n\u202eä" in text
        assert all(line.isprintable() for line in text.split("\n"))
    text = said(capsys, "convert", path, tmp_path / "y.params", code=1)
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize(
    "arguments", [[], ["look"], ["inspect"], ["convert", "a"], ["inspect", "-x"]]
)
def test_wrong_calls(arguments: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: python -m jaxmxopt" in capsys.readouterr().err


def test_help(capsys: Any) -> None:
    for arguments in (
        ["--help"],
        ["inspect", "--help"],
        ["convert", "--help"],
        ["info", "-h"],
        ["--version"],
    ):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 0
        assert "jaxmxopt" in capsys.readouterr().out


def test_as_a_program(ours: pathlib.Path) -> None:
    """Run as people run it, also when the reader leaves early."""
    command = [sys.executable, "-m", "jaxmxopt", "inspect", str(ours)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "params/bias" in done.stdout
    assert done.stderr == ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_info(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = dict(re.split(r"  +", line) for line in said(capsys, "info").splitlines())
    for name, module in (("jaxmxopt", mxopt), ("jax", jax), ("numpy", np)):
        assert facts[name] == module.__version__
    assert facts["Python"].startswith(platform.python_version())
    assert facts["jaxlib"]
    assert facts["devices"] == "8 x cpu (cpu)"
    assert facts["64-bit types"] == "off"
    assert facts["extra optax"] == optax.__version__

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    def broken() -> list[Any]:
        raise RuntimeError("no such platform")

    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.setattr(jax, "devices", broken)
    facts = dict(re.split(r"  +", line) for line in said(capsys, "info").splitlines())
    assert facts["extra optax"] == "not installed"
    assert facts["devices"] == "none: no such platform"


def test_a_bar_for_large_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(_progress, "_SECONDS_BETWEEN", -1.0)
    assert main(["inspect", str(FILES / "list.params")]) == 0
    assert shown.getvalue() == ""
    monkeypatch.setattr(_progress, "LARGE", 1)
    target = str(tmp_path / "x.npz")
    for arguments in (
        ["inspect", str(FILES / "list.params")],
        ["convert", str(FILES / "list.params"), target],
    ):
        shown.seek(0)
        shown.truncate()
        assert main(arguments) == 0
        assert "█" in shown.getvalue()
        assert "100% of" in shown.getvalue()
        assert shown.getvalue().endswith("\r\x1b[K")


def test_no_bar_without_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(_progress, "LARGE", 1)
    said(capsys, "inspect", FILES / "list.params")


def test_states_of_a_tree_show_their_weights(tmp_path: pathlib.Path, capsys: Any) -> None:
    opt = make(mxopt.Adam)
    params, state = run(opt)
    checkpoint.save(tmp_path / "x.npz", state, opt=opt, params=params)
    text = said(capsys, "inspect", tmp_path / "x.npz")
    assert re.search(r"num_update +\(\) +int32 +3", text)
    assert re.search(r"\nb/slots/var +\(3, 2\) +float32", text)
