"""Writes `jaxmxopt/optimizer.pyi` from the table of MXNet's classes: run it."""

import inspect
import pathlib
import types
import typing
from typing import Any

import jaxmxopt
from jaxmxopt import optimizer as mxo
from jaxmxopt._stateful.classes import CLASSES, TABLE

STUB = pathlib.Path(jaxmxopt.__file__).parent / "optimizer.pyi"
HEAD = '''"""Signatures of the classes of mxnet.optimizer, for editors and type checkers.

Made from the table in `_stateful/classes.py` by `tests/stub_of_optimizers.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from jaxmxopt._stateful.optimizer import Optimizer as Optimizer
from jaxmxopt._stateful.updater import Updater as Updater
from jaxmxopt._stateful.updater import get_updater as get_updater

__all__ = [
{names}
]

create = Optimizer.create_optimizer
register = Optimizer.register
'''
TAIL = '''
_GroupAdaGrad = GroupAdaGrad

class contrib:
    """mxnet.optimizer.contrib."""

    GroupAdaGrad = _GroupAdaGrad
'''
COMMON = {
    "rescale_grad": "float",
    "param_idx2name": "Mapping[Any, str] | None",
    "wd": "float",
    "clip_gradient": "float | None",
    "learning_rate": "float | None",
    "lr_scheduler": "Callable[[Any], Any] | None",
    "sym": "Any",
    "begin_num_update": "int",
    "multi_precision": "bool",
    "param_dict": "Mapping[Any, Any] | None",
}


def kind(hint: Any) -> str:
    """How a field is annotated: a number, an integer, a flag, a choice."""
    if typing.get_origin(hint) is typing.Literal:
        choices = ", ".join(f'"{choice}"' for choice in typing.get_args(hint))
        return f"Literal[{choices}]"
    if hint in (bool, int):
        return hint.__name__
    return "float | None" if types.NoneType in typing.get_args(hint) else "float"


def shown(cls: type, definition: type) -> str:
    """One class of the stub."""
    hints = typing.get_type_hints(definition.__init__)
    parameters = list(inspect.signature(cls).parameters.values())
    kinds = {p.name: COMMON.get(p.name) or kind(hints[p.name]) for p in parameters}
    lines = ["", f"class {cls.__name__}(Optimizer):", f'    """{cls.__doc__}"""', ""]
    lines += [f"    {name}: {of}" for name, of in kinds.items() if name not in COMMON]
    lines += ["    def __init__(", "        self,"]
    for before, p in zip([None, *parameters], parameters, strict=False):
        first = before is None or before.kind != p.KEYWORD_ONLY
        lines += ["        *,"] if p.kind == p.KEYWORD_ONLY and first else []
        default = str(p.default) if not isinstance(p.default, str) else f'"{p.default}"'
        lines.append(f"        {p.name}: {kinds[p.name]} = {default},")
    return "\n".join([*lines, "    ) -> None: ...", ""])


def text() -> str:
    """The whole stub."""
    names = "\n".join(f'    "{name}",' for name in mxo.__all__)
    classes = [shown(CLASSES[row.definition.__name__], row.definition) for row in TABLE]
    return HEAD.replace("{names}", names) + "".join(classes) + TAIL


if __name__ == "__main__":
    STUB.write_text(text())
