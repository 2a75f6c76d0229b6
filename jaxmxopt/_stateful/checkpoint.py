"""The functions of `jaxmxopt.checkpoint`."""

import io
import itertools
import os
from collections.abc import Mapping
from typing import Any, BinaryIO, TypeVar

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.definition import Definition, as_definition
from jaxmxopt._core.slots import kinds_of
from jaxmxopt._files import archive
from jaxmxopt._files.arrays import on_host
from jaxmxopt._files.codec import Decoder, algorithm_name, encode
from jaxmxopt._files.files import naming, replacing
from jaxmxopt._files.tree import contents, restored
from jaxmxopt._stateful.trainer import Trainer
from jaxmxopt._stateful.updater import Updater

__all__ = ["dumps", "load", "load_definition", "loads", "save"]

T = TypeVar("T")
Path = str | os.PathLike[str]


def save(path: Path, tree: Any, *, opt: Definition | None = None, params: Any = None) -> None:
    """Write a tree of states and arrays to a file.

    The bytes go to a temporary file in the same folder, are flushed to disk, and the file is
    renamed: whenever the process dies, the old file or the new one is whole.

    Args:
        path: of the file, usually `*.npz`. An existing one is replaced.
        tree: a `State`, or any pytree of states, arrays (NumPy's, JAX's, `RowSparse`, random
            keys), numbers and strings. Arrays over several devices are put together. Or an
            Updater or a Trainer, with its optimizer; a Trainer's weights are not saved with it.
        opt: the optimizer that the states are of. It is recorded; loading for another algorithm
            is refused. Of a schedule that is a function, only its name is.
        params: the weights that the state of a tree is of, for their names. They are saved
            themselves only where they are in `tree` too.

    Raises:
        ValueError: the state of a tree is without its `params`, no state is of the algorithm of
            `opt`, two leaves have one path, or an array was donated or lies on devices of another
            process.
        TypeError: a leaf is none of the kinds above.
        OSError: the file cannot be written. The old file is then still there.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt, os, tempfile
        >>> opt, params = mxopt.Adam(), {"w": jnp.ones(3)}
        >>> state = opt.init(params)
        >>> path = os.path.join(tempfile.mkdtemp(), "step_0.npz")
        >>> save(path, {"params": params, "state": state}, opt=opt, params=params)
        >>> load(path, {"params": params, "state": state}, opt=opt, params=params)["params"]
        {'w': Array([1., 1., 1.], dtype=float32)}
    """
    call = _call("save", path)
    if isinstance(tree, (Updater, Trainer)):
        data = _states_of(call, tree, opt, params)
        with replacing(path) as file:
            file.write(data)
        return
    with naming(call), replacing(path) as file:
        _write(file, tree, opt, params)


def dumps(tree: Any, *, opt: Definition | None = None, params: Any = None) -> bytes:
    """Return what `save` would write, for the same arguments."""
    if isinstance(tree, (Updater, Trainer)):
        return _states_of("checkpoint.dumps", tree, opt, params)
    file = io.BytesIO()
    with naming("checkpoint.dumps"):
        _write(file, tree, opt, params)
    return file.getvalue()


def load(path: Path, like: T, *, opt: Definition | None = None, params: Any = None) -> T:
    """Read a tree from a file.

    The whole file is checked first: its format and checksums, then algorithm, names, dtypes and
    shapes against what is asked for. Nothing is cast, renamed, left out or filled in, save that
    slots in half precision become float32 where slots of `like` are: version 0.1.0 kept them so.

    Args:
        path: of a file that `save` wrote.
        like: the tree to restore into, such as `opt.init(params)`. Its arrays are not changed;
            each new one is of the same kind (NumPy's or JAX's) and on the same devices. A
            `jax.ShapeDtypeStruct` stands for an array of JAX. An Updater or a Trainer takes over
            what the file says, as a whole or not at all.
        opt: the optimizer, which must be of the algorithm that the file is of. Its
            hyperparameters may differ; `load_definition` gives those in the file.
        params: the weights that the state of a tree in `like` is of.

    Returns:
        A tree like `like` with the values in the file; an Updater or a Trainer itself.

    Raises:
        ValueError: the file is damaged, newer or of something else; the first difference is named.
        OSError: the file cannot be read.
    """
    call = _call("load", path)
    with open(path, "rb") as file:
        return _restored(call, file, like, opt, params)


def loads(data: bytes, like: T, *, opt: Definition | None = None, params: Any = None) -> T:
    """Read a tree from what `dumps` returned; otherwise as `load`."""
    return _restored("checkpoint.loads", io.BytesIO(data), like, opt, params)


def load_definition(path: Path, **given: Any) -> Definition:
    """Make the optimizer that a file records.

    Args:
        path: of a file saved with `opt`.
        given: hyperparameters that count instead of the recorded ones, in groups of all. A
            schedule that was a function must be given; it is for the groups that had one.

    Raises:
        ValueError: the file is damaged, records no optimizer, or one unknown here.
        OSError: the file cannot be read.
    """
    call = _call("load_definition", path)
    with open(path, "rb") as file, naming(call):
        reader = archive.Reader(file)
        record = reader.header.get("definition")
        if record is None:
            raise ValueError("records no optimizer; it was saved without one.")
        decoder = Decoder(reader.leaf, given)
        opt = decoder.decode(record, "the optimizer")
        if not isinstance(opt, Definition):
            raise ValueError(f"records a {type(opt).__name__}, which is not an optimizer.")
        rest = {name: value for name, value in given.items() if name not in decoder.used}
        try:
            return opt.replace(**rest) if rest else opt
        except TypeError as error:
            raise ValueError(f"the optimizer cannot be made again: {error}") from None


def _call(name: str, path: Any) -> str:
    """Return how errors name a call."""
    if not isinstance(path, (str, os.PathLike)):
        kind = type(path).__name__
        raise TypeError(f"checkpoint.{name}: path must be a path, got {kind}; it stands first.")
    return f"checkpoint.{name}({os.fspath(path)!r})"


def _states_of(call: str, owner: Updater | Trainer, opt: Any, params: Any) -> bytes:
    _states_only(call, owner, opt, params)
    if isinstance(owner, Updater):
        return owner._dump(call, dump_optimizer=True)
    return owner._dump(call)


def _states_only(call: str, owner: Updater | Trainer, opt: Any, params: Any) -> None:
    if opt is not None or params is not None:
        raise TypeError(f"{call}: opt and params must be left out beside {type(owner).__name__}.")


def _write(file: BinaryIO, tree: Any, opt: Any, params: Any) -> None:
    algorithm = _algorithm(opt)
    header, leaves = contents(tree, params)
    if isinstance(opt, OptimizerDef):
        _check_states(opt, header["slots"])
    arrays: dict[str, Any] = {}
    header["algorithm"] = algorithm
    header["definition"] = encode(opt, "(definition)", arrays, hyperparameters=True)
    archive.write(file, header, itertools.chain(leaves, on_host(arrays)))


def _algorithm(opt: Any) -> str | None:
    return None if opt is None else algorithm_name(as_definition("opt", opt))


def _check_states(opt: OptimizerDef, states: Mapping[str, Any]) -> None:
    """Raise unless one of the states of a tree is of the algorithm recorded with them."""
    kinds = {kind.__name__ for kind in kinds_of(opt)}
    # A wrapper's states have slots of its own beside those of the algorithm.
    if states and not any(not slots or kinds.intersection(slots) for slots in states.values()):
        name, slots = next(iter(states.items()))
        raise ValueError(
            f"opt must be what the states are of, got {type(opt).__name__} and, at {name!r}, a "
            f"State with slots {' or '.join(slots)}."
        )


def _restored(call: str, file: BinaryIO, like: T, opt: Any, params: Any) -> T:
    if isinstance(like, (Updater, Trainer)):
        _states_only(call, like, opt, params)
        like._load(call, file.read())
        return like
    with naming(call):
        wanted, reader = _algorithm(opt), archive.Reader(file)
        found = reader.header.get("algorithm")
        if wanted is not None and found != wanted:
            raise ValueError(f"must be of {wanted}, got {found or 'no optimizer'}.")
        return restored(reader, like, params)
