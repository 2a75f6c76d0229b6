"""From a program for MXNet, read as text, to the lines of it that must change."""

import ast
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxmxopt._cli.inspect import printable
from jaxmxopt._cli.porting import BY_NAME, Row

__all__ = ["Finding", "findings", "lines"]


class Finding(NamedTuple):
    """A line that must change.

    Attributes:
        line: its number.
        shown: what stands there.
        row: of the table, with the advice.
    """

    line: int
    shown: str
    row: Row


def lines(path: str) -> Iterator[str]:
    """Yield what is to be printed of a program.

    Raises:
        ValueError: the file is not Python.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        source = file.read()
    try:
        found = findings(source)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for each in found:
        yield printable(f"{path}:{each.line}: {each.shown} -> {each.row.advice}")
    count = len({each.line for each in found})
    change = "1 line must change." if count == 1 else f"{count or 'no'} lines must change."
    yield printable(f"{path}: {change}")


def findings(source: bytes) -> list[Finding]:
    """Return the lines of a program that must change, in their order. Nothing of it is run.

    Raises:
        ValueError: it is not Python.
    """
    try:
        with warnings.catch_warnings():
            # About escapes in the program, which are not of interest here.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
        if _is_notebook(tree):
            raise ValueError(
                "must be a program in Python, got a notebook; `jupyter nbconvert --to script` "
                "writes its program."
            )
        reader = _Reader(tree)
    except SyntaxError as error:
        line = f" in line {error.lineno}" if error.lineno else ""
        raise ValueError(f"must be a program in Python 3, got {error.msg}{line}.") from None
    except (RecursionError, MemoryError):
        raise ValueError("must be a program in Python, got one nested too deeply.") from None
    return sorted(set(reader.found), key=lambda each: (each.line, each.shown))


def _is_notebook(tree: ast.Module) -> bool:
    """True if a file that parses as Python is the JSON of a notebook."""
    match tree.body:
        case [ast.Expr(value=ast.Dict(keys=keys))]:
            return any(isinstance(key, ast.Constant) and key.value == "cells" for key in keys)
        case _:
            return False


# Other names of modules, as `mxnet/__init__.py` and gluon give them.
_ALIASES = {
    "kv": "kvstore",
    "module": "mod",
    "module.Module": "mod.Module",
    "ndarray": "nd",
    "symbol": "sym",
    "initializer": "init",
    "context": "",
    "amp": "contrib.amp",
    "gluon.trainer": "gluon",
    "gluon.parameter": "gluon",
}
# What a call or an attribute gives. `X()` is an object of X, `[X]` a list of what X is.
_OPTIMIZER, _PARAMETER = "optimizer.Optimizer()", "gluon.Parameter()"
_GIVES = {
    "optimizer.create": _OPTIMIZER,
    "optimizer.Optimizer.create_optimizer": _OPTIMIZER,
    "optimizer.get_updater": "optimizer.Updater()",
    "optimizer.Updater": "optimizer.Updater()",
    "optimizer.Updater.optimizer": _OPTIMIZER,
    "optimizer.Optimizer.lr_scheduler": "lr_scheduler.LRScheduler()",
    "gluon.Trainer": "gluon.Trainer()",
    "gluon.Trainer.optimizer": _OPTIMIZER,
    "gluon.Trainer._optimizer": _OPTIMIZER,
    "gluon.Trainer._params": f"[{_PARAMETER}]",
    "gluon.Parameter": _PARAMETER,
    "gluon.ParameterDict": "gluon.ParameterDict()",
    "gluon.ParameterDict.values": f"[{_PARAMETER}]",
    "gluon.ParameterDict.items": "gluon.ParameterDict.items()",
    "gluon.ParameterDict.get": _PARAMETER,
    "kvstore.create": "kvstore.KVStore()",
    "mod.Module": "mod.Module()",
    "horovod.mxnet.DistributedTrainer": "gluon.Trainer()",
    "horovod.mxnet.DistributedOptimizer": _OPTIMIZER,
    "contrib.amp.loss_scaler.LossScaler": "contrib.amp.loss_scaler.LossScaler()",
}
_HOROVOD = "horovod.mxnet"
# What objects are usually called, where nothing says what they are.
_USUAL = {
    "trainer": "gluon.Trainer()",
    "updater": "optimizer.Updater()",
    "optimizer": _OPTIMIZER,
    "opt": _OPTIMIZER,
    "kvstore": "kvstore.KVStore()",
    "kv": "kvstore.KVStore()",
    "mod": "mod.Module()",
    "module": "mod.Module()",
}
# Attributes that tell of what object they are.
_TELLING = {
    name.rpartition(".")[2]: name
    for name in (
        *("gluon.Trainer.allreduce_grads", "mod.Module.init_optimizer"),
        *("optimizer.Optimizer.update_multi_precision", "kvstore.KVStore.set_optimizer"),
        *("kvstore.KVStore.set_gradient_compression", "kvstore.KVStore.row_sparse_pull"),
        *("mod.Module.save_optimizer_states", "mod.Module.load_optimizer_states"),
        *("mod.Module.forward_backward", "optimizer.Optimizer.set_lr_scale"),
        *("gluon.Parameter.lr_mult", "gluon.Parameter.wd_mult", "gluon.Parameter.grad_req"),
        *("gluon.Parameter.zero_grad", "gluon.Parameter.list_grad", "gluon.Parameter.list_data"),
        *("gluon.Parameter.set_data", "nd.NDArray.attach_grad", "nd.NDArray.asnumpy"),
        *("nd.NDArray.asscalar", "nd.NDArray.backward", "nd.NDArray.as_in_context"),
    )
}
_IN_PLACE = "nd.NDArray.__setitem__"


class _Reader(ast.NodeVisitor):
    """Goes through a program: twice for what names are, and once for what must change.

    A name is taken to be one thing in the whole file: scopes are not told apart.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.found: list[Finding] = []
        # By the text of a name, or of an attribute such as `self.trainer`: what it is in MXNet.
        self.known: dict[str, str] = {}
        # Bound to something else, which a usual name says nothing of.
        self.other: set[str] = set()
        self.of_mxnet = False
        for _ in range(2):
            for node in ast.walk(tree):
                self.learn(node)
        if self.of_mxnet:
            self.visit(tree)

    # What names are.

    def learn(self, node: ast.AST) -> None:
        """Take from a node what the names that it binds are."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                if (path := _of_module(alias.name)) is not None:
                    self.of_mxnet = True
                    self.known[alias.asname or "mxnet"] = path if alias.asname else ""
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and (path := _of_module(node.module or "")) is not None:
                self.of_mxnet = True
                for alias in node.names:
                    self.known[alias.asname or alias.name] = _joined(path, alias.name)
        elif isinstance(node, ast.ClassDef):
            bases = [path for base in node.bases if (path := self.what(base))]
            self.bind(ast.Name(node.name), bases[0] if bases else None)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                self.bind(target, self.what(node.value), isinstance(node.value, ast.Call))
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)):
            self.bind(node.target, self.what(node.value) if node.value else None)
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            self.learn_of_loop(node.target, node.iter)

    def learn_of_loop(self, target: ast.expr, given: ast.expr) -> None:
        """Take from a loop what its variable is."""
        path = self.what(given)
        if path == "gluon.ParameterDict.items()" and isinstance(target, ast.Tuple):
            self.bind(target.elts[-1], _PARAMETER)
        elif path and path.startswith("["):
            self.bind(target, path[1:-1])

    def bind(self, target: ast.expr, path: str | None, made: bool = True) -> None:
        """Keep what a name is; another name says nothing of that."""
        if not isinstance(target, (ast.Name, ast.Attribute)):
            return
        text = ast.unparse(target)
        if path:
            self.known[text] = path
        elif made:
            self.other.add(text)

    def what(self, node: ast.expr) -> str | None:
        """Return what an expression is in MXNet: a dotted name, `X()` or `[X]`; None for others."""
        if isinstance(node, ast.Name):
            return self.called(node.id)
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if text in self.known:
                return self.known[text]
            base = self.what(node.value)
            if base is None:
                return self.called(text)
            path = _joined(base.removesuffix("()"), node.attr)
            if not base.endswith("()"):
                return path
            # An object may have attributes of its own.
            return _GIVES.get(path) or (path if path in BY_NAME else self.called(text))
        if isinstance(node, ast.Call):
            return self.given(node)
        if isinstance(node, ast.Subscript):
            base = self.what(node.value)
            if base == "gluon.ParameterDict()":
                return _PARAMETER
            return base[1:-1] if base and base.startswith("[") else None
        if isinstance(node, (ast.ListComp, ast.GeneratorExp)):
            element = self.what(node.elt)
            return f"[{element}]" if element else None
        return None

    def called(self, text: str) -> str | None:
        """Return what a name is, or what things of this name usually are."""
        if text in self.known:
            return self.known[text]
        usual = _USUAL.get(text.rpartition(".")[2].lstrip("_"))
        return None if text in self.other else usual

    def given(self, node: ast.Call) -> str | None:
        """Return what a call gives."""
        if isinstance(node.func, ast.Attribute):
            if node.func.attr == "collect_params":
                return "gluon.ParameterDict()"
            base = self.what(node.func.value)
            if base and base.endswith("()"):
                return _GIVES.get(_joined(base.removesuffix("()"), node.func.attr))
        if isinstance(node.func, ast.Name) and node.func.id in ("list", "sorted", "tuple"):
            return self.what(node.args[0]) if node.args else None
        if isinstance(node.func, ast.Name) and node.func.id == "super":
            return self.known.get("self")
        path = self.what(node.func)
        return _made(path) if path else None

    # What must change.

    def report(self, node: Any, row: Row | None, shown: str = "") -> None:
        """Keep a finding, where a row says that the line must change."""
        if row is not None and not row.stays:
            shown = shown or ast.unparse(node)
            shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
            self.found.append(Finding(node.lineno, shown, row))

    def visit_Import(self, node: ast.Import) -> None:
        """Report imports of MXNet."""
        for alias in node.names:
            if (path := _of_module(alias.name)) is not None:
                self.report(node, BY_NAME[path if path == _HOROVOD else "mxnet"])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Report imports from MXNet."""
        if node.level == 0 and (path := _of_module(node.module or "")) is not None:
            row = BY_NAME[path if path == _HOROVOD else "mxnet"]
            self.report(node, row, f"from {node.module} import ...")

    def visit_Name(self, node: ast.Name) -> None:
        """Report a name that was imported from MXNet."""
        path = self.known.get(node.id)
        if isinstance(node.ctx, ast.Load) and path and path[-1] not in ")]":
            self.report(node, _row(path))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Report the longest dotted name, and what its beginning is made of."""
        base = self.what(node.value)
        if base is None or base.endswith(")"):
            path = _joined((base or "").removesuffix("()"), node.attr)
            self.report(node, BY_NAME.get(path) or BY_NAME.get(_TELLING.get(node.attr, "")))
        elif not base.endswith("]"):
            self.report(node, _row(_joined(base, node.attr)))
        inner: ast.expr = node.value
        while isinstance(inner, ast.Attribute):
            inner = inner.value
        if not isinstance(inner, ast.Name):
            self.visit(inner)

    def visit_Call(self, node: ast.Call) -> None:
        """Report a call of an updater."""
        if self.what(node.func) == "optimizer.Updater()":
            self.report(
                node, BY_NAME["optimizer.Updater.__call__"], f"{ast.unparse(node.func)}(...)"
            )
        # The class in `super(Mine, self)` stays.
        if not (isinstance(node.func, ast.Name) and node.func.id == "super"):
            self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """Report `x[:] = ...`, by which arrays of MXNet are written in place."""
        whole = isinstance(node.slice, ast.Slice) and ast.unparse(node.slice) == ":"
        if whole and isinstance(node.ctx, ast.Store):
            self.report(node, BY_NAME[_IN_PLACE], f"{ast.unparse(node.value)}[:] = ...")
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Report the methods of a subclass whose contract is another one."""
        made = _made(self.known.get(node.name, ""))
        kind = (made or "").removesuffix("()")
        for method in node.body:
            if isinstance(method, ast.FunctionDef):
                row = BY_NAME.get(f"def:{kind}.{method.name}")
                self.report(method, row, f"def {method.name}")
        around = self.known.pop("self", None)
        self.known |= {"self": made} if made else {}
        self.generic_visit(node)
        self.known.pop("self", None)
        self.known |= {"self": around} if around else {}


def _made(path: str) -> str | None:
    """Return what a call of a name gives."""
    kind, _, last = path.rpartition(".")
    if kind in ("optimizer", "optimizer.optimizer", "optimizer.contrib") and last[:1].isupper():
        return _GIVES.get(path, _OPTIMIZER)
    if kind == "lr_scheduler" and last[:1].isupper():
        return "lr_scheduler.LRScheduler()"
    return _GIVES.get(path)


def _of_module(name: str) -> str | None:
    """Return the name of a module within MXNet; None for modules of other packages."""
    if name == _HOROVOD:
        return name
    top, _, rest = name.partition(".")
    return _ALIASES.get(rest, rest) if top == "mxnet" else None


def _joined(path: str, name: str) -> str:
    """Return the dotted name of an attribute."""
    joined = f"{path}.{name}" if path else name
    return _ALIASES.get(joined, joined)


def _row(path: str) -> Row | None:
    """Return the row of a name, or of what it is in; the last one is of everything else."""
    part = path
    while part and part not in BY_NAME:
        part = part.rpartition(".")[0]
    return BY_NAME[part or "mxnet.*"]
