"""docs/porting.md has a row for every name of MXNet, and `port` gives that row's advice."""

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from ported import FOLDER, PROGRAMS

import jaxmxopt as mxopt
from jaxmxopt.__main__ import main
from jaxmxopt._cli.port import findings
from jaxmxopt._cli.porting import BY_NAME, ROWS

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import write_porting

ROOT = Path(__file__).parents[1]
# Recorded from the binaries by tests/reference/record_names.py.
NAMES = json.loads((ROOT / "tests/reference/data/mxnet_names.json").read_text())


def test_the_tables_of_the_page_are_those_of_the_command() -> None:
    page = write_porting.PAGE.read_text()
    assert write_porting.written(page) == page


@pytest.mark.parametrize("version", ["1.9.1", "2.0.0b1"])
def test_every_name_of_mxnet_has_a_row(version: str) -> None:
    assert [name for name in NAMES[version] if name not in BY_NAME] == []


def test_a_name_has_one_row() -> None:
    names = [name for rows in ROWS.values() for row in rows for name in row.names]
    assert sorted(BY_NAME) == sorted(names)


def test_no_row_is_of_a_name_that_mxnet_has_not() -> None:
    # Not modules as a whole, nor classes that others are imported into.
    listed = ("optimizer.", "lr_scheduler.", "gluon.Trainer.", "gluon.Parameter.")
    listed += ("gluon.ParameterDict.", "gluon.utils.", "kvstore.", "mod.Module.", "contrib.amp.")
    modules = {"optimizer.contrib", "optimizer.optimizer", "contrib.amp.loss_scaler"}
    known = {name for names in NAMES.values() for name in names}
    named = {name for name in BY_NAME if name.startswith(listed) or "_update" in name}
    invented = {name for name in named - known - modules if not name.startswith("def:")}
    assert invented - {"contrib.amp.loss_scaler.LossScaler"} == set()


class Schedule(mxopt.lr_scheduler.LRScheduler):
    """Has MXNet's attributes, having an `__init__` of its own."""

    def __init__(self) -> None:
        super().__init__(base_lr=0.1)


def held() -> dict[str, Any]:
    """Objects of the classes whose names stay, by the beginning of the names."""
    opt = mxopt.optimizer.SGD(learning_rate=0.1)
    return {
        "optimizer.Optimizer.": opt,
        "optimizer.Updater.": mxopt.get_updater(opt),
        "lr_scheduler.LRScheduler.": Schedule(),
        "gluon.Trainer.": mxopt.Trainer({"w": jnp.ones(2)}, "sgd"),
        "": mxopt,
    }


def test_names_that_stay_are_there() -> None:
    objects = held()
    for name in (name for name, row in BY_NAME.items() if row.stays):
        start = next(start for start in objects if name.startswith(start))
        found = objects[start]
        for part in name.removeprefix(start).split("."):
            assert hasattr(found, part), name
            found = getattr(found, part)


WITHOUT_OPS = pytest.mark.skipif(
    not Path(mxopt.__file__).with_name("ops.py").exists(), reason="there is no jaxmxopt.ops yet"
)


@pytest.mark.parametrize(
    "section", [pytest.param(s, marks=WITHOUT_OPS) if s == "operators" else s for s in ROWS]
)
def test_what_the_rows_say_to_write_is_there(section: str) -> None:
    for row in ROWS[section]:
        for name in re.findall(r"\bjaxmxopt\.([\w.]+)", row.here + row.note):
            found: Any = mxopt
            for part in name.rstrip(".").split("."):
                assert hasattr(found, part), name
                found = getattr(found, part)


@WITHOUT_OPS
def test_the_advice_names_the_operator_of_the_line() -> None:
    program = "import mxnet as mx\nmx.nd.contrib.adamw_update(w)\nmx.nd.signum_update(w)\n"
    advice = [one.row.advice for one in findings(program.encode()) if one.line > 1]
    for name, text in zip(("adamw_update", "signum_update"), advice, strict=True):
        assert text.startswith(f"`jaxmxopt.ops.{name}(...)`")


@WITHOUT_OPS
def test_operators_keep_their_names() -> None:
    ops = importlib.import_module("jaxmxopt.ops")
    names = {name.rpartition(".")[2] for row in ROWS["operators"] for name in row.names}
    assert [name for name in sorted(names) if not hasattr(ops, name)] == []


# The command.


def found(program: str) -> list[tuple[int, str]]:
    """The lines that must change after the imports, each with the first name of its row."""
    head = "import mxnet as mx\nfrom mxnet import autograd, gluon\nfrom mxnet.contrib import amp\n"
    each = [(one.line - 3, one.row.names[0]) for one in findings((head + program).encode())]
    return [pair for pair in each if pair[0] > 0]


STEP, CREATE = (1, "gluon.Trainer"), "trainer = gluon.Trainer(net.params, 'sgd')\n"
SUBCLASS = """\
class Mine(mx.optimizer.Adam):
    def create_state(self, index, weight):
        return mx.nd.zeros(weight.shape)
    def update(self, index, weight, grad, state):
        weight[:] = weight - self._get_lr(index) * grad
        state[0] = 1
"""
DELEGATING = """\
class Delegating(mx.optimizer.Optimizer):
    def __init__(self, inner):
        self._optimizer = inner
        self.lr_mult = {}
    def create_state(self, index, weight):
        return self._optimizer.create_state(index, weight)
    def update(self, index, weight, grad, state):
        self._optimizer.update(index, weight, grad, state)
        super(Delegating, self).update(index, weight, grad, state)
"""
OTHERS = """\
class Model:
    def __init__(self, net):
        self.trainer = mx.gluon.Trainer(net.collect_params(), 'adam')
    def fit(self, x):
        self.trainer.step(8)
        self.trainer.set_learning_rate(0.1)
"""


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("opt = mx.optimizer.create('sgd')\nopt.set_learning_rate(0.1)\nopt.lr_mult = {}", []),
        ("mx.optimizer.Adam(lr_scheduler=mx.lr_scheduler.FactorScheduler(3))", []),
        ("from mxnet.optimizer import Adam as A\nA(beta1=0.5)", [(1, "mxnet")]),
        (CREATE + "trainer.step(5)\ntrainer.learning_rate", [STEP, (2, "gluon.Trainer.step")]),
        ("t = mx.gluon.Trainer(p)\nt.update(1)", [STEP, (2, "gluon.Trainer.update")]),
        ("def f(trainer):\n    trainer.step(1)", [(2, "gluon.Trainer.step")]),
        ("trainer = Mine()\ntrainer.step(1)", []),
        (OTHERS, [(3, "gluon.Trainer"), (5, "gluon.Trainer.step")]),
        (
            SUBCLASS,
            [
                (3, "nd"),
                (4, "def:optimizer.Optimizer.update"),
                (5, "nd.NDArray.__setitem__"),
            ],
        ),
        (
            DELEGATING,
            [
                (7, "def:optimizer.Optimizer.update"),
                (8, "optimizer.Optimizer.update"),
                (9, "optimizer.Optimizer.update"),
            ],
        ),
        (
            "import horovod.mxnet as hvd\nt = hvd.DistributedTrainer(p)\nt.step(1)",
            [(1, "horovod.mxnet"), (2, "horovod.mxnet"), (3, "gluon.Trainer.step")],
        ),
        (
            "class T(gluon.Trainer):\n    def _allreduce_grads(self):\n        self._scale",
            [STEP, (2, "gluon.Trainer._allreduce_grads")],
        ),
        (
            "kv = mx.kv.create('dist_sync')\nkv.set_optimizer(opt)\nkv.rank",
            [
                (1, "kvstore.create"),
                (2, "kvstore.KVStore.set_optimizer"),
                (3, "kvstore.KVStore.rank"),
            ],
        ),
        ("net.collect_params('b').setattr('lr_mult', 2)", [(1, "gluon.ParameterDict.setattr")]),
        (
            "for p in net.collect_params().values():\n    p.grad()\nps = net.collect_params()\n"
            "print([p.data() for _, p in ps.items()], ps['w'].shape)",
            [
                (1, "gluon.ParameterDict.get"),
                (2, "gluon.Parameter.grad"),
                (4, "gluon.Parameter.data"),
                (4, "gluon.ParameterDict.get"),
                (4, "gluon.Parameter.cast"),
            ],
        ),
        ("def f(p):\n    p.wd_mult = 0", [(2, "gluon.Parameter.lr_mult")]),
        ("mx.nd.sgd_mom_update(w, g, m, out=w, lr=0.1)", [(1, "nd.sgd_update")]),
        ("amp.init_trainer(trainer)", [(1, "contrib.amp.init_trainer")]),
        (
            "mod = mx.mod.Module(net)\nmod.init_optimizer()\nmod.update()",
            [
                (1, "mod.Module"),
                (2, "mod.Module.init_optimizer"),
                (3, "mod.Module.update"),
            ],
        ),
        (
            "u = mx.optimizer.get_updater(opt)\nu(0, g, w)\nu.get_states()",
            [(2, "optimizer.Updater.__call__")],
        ),
        ("with autograd.record():\n    pass", [(1, "autograd")]),
        ("mx.metric.Accuracy()", [(1, "mxnet.*")]),
        ("import numpy as np\nnp.array([1])\n'mx.nd.array'  # mx.nd", []),
    ],
)
def test_lines_that_must_change_are_listed(program: str, expected: Any) -> None:
    assert found(program) == expected


@pytest.mark.parametrize("section", ROWS)
def test_every_row_is_found_by_its_names(section: str) -> None:
    for row in ROWS[section]:
        for name in row.names:
            if "def:" in name or name in ("mxnet", "mxnet.*", "horovod.mxnet"):
                continue
            given = found(f"mx.{name}\n")
            assert given == ([] if row.stays else [(1, row.names[0])]), name


@pytest.mark.parametrize("name", PROGRAMS)
def test_ported_programs_have_no_lines_left_that_must_change(name: str) -> None:
    assert findings((FOLDER / f"{name}.py").read_bytes()) == []
    before = findings((FOLDER / f"{name}_mxnet.py").read_bytes())
    assert len({each.line for each in before}) > 8


def test_a_program_is_read_and_not_run(tmp_path: Path, capsys: Any) -> None:
    program = tmp_path / "train.py"
    program.write_text(
        f"import mxnet as mx\nopen({str(tmp_path / 'written')!r}, 'w')\nmx.kv.create('local')\n"
        "raise SystemExit(3)\n"
    )
    assert main(["port", str(program)]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{program}:1: import mxnet as mx -> `import jaxmxopt as mx`")
    assert second.startswith(f"{program}:3: mx.kv.create -> nothing; `jax.jit` adds up")
    assert "](" not in second
    assert last == f"{program}: 2 lines must change."
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"print 'old'\n", "must be a program in Python 3, got .* in line 1"),
        (b"import mxnet\x00", "must be a program in Python"),
        (b"x = " + b"(" * 300 + b")" * 300, "must be a program in Python"),
        (b"x = " + b"-" * 100_000 + b"1", "must be a program in Python"),
        (b"\xff\xfe\x00", "must be a program in Python"),
        (b'{"cells": [], "nbformat": 4}', "must be a program in Python, got a notebook"),
    ],
)
def test_what_is_no_program_is_refused(
    source: bytes, message: str, tmp_path: Path, capsys: Any
) -> None:
    program = tmp_path / "train.py"
    program.write_bytes(source)
    assert main(["port", str(program)]) == 1
    assert re.search(f"jaxmxopt: .*train.py: {message}", capsys.readouterr().err)
