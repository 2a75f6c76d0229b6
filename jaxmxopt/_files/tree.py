"""Trees in files: leaves by their paths, so that a file does not know how a state is laid out."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmxopt._core import __version__
from jaxmxopt._core.config import nearest
from jaxmxopt._core.layout import Packed
from jaxmxopt._core.names import flatten_with_names, path_name
from jaxmxopt._core.numeric import widens
from jaxmxopt._core.row_keys import as_keys
from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._core.state import State
from jaxmxopt._files.archive import Reader
from jaxmxopt._files.arrays import described, on_host, place, to_host
from jaxmxopt._files.codec import encode
from jaxmxopt._wrappers.accumulate import AccumulateSlots
from jaxmxopt._wrappers.ema import EMASlots
from jaxmxopt._wrappers.groups import GroupSlots

__all__ = ["Arrays", "contents", "restored"]

Arrays = Iterable[tuple[str, np.ndarray]]
_SCALARS = (bool, int, float, str)


class _Leaf(NamedTuple):
    """A leaf of a tree: one named thing, or several of them stacked; `slot` says of a state."""

    names: tuple[str, ...]
    value: Any
    slot: bool = False

    def parts(self) -> list[Any]:
        """Return what stands under each name, an abstract array for a stacked one."""
        if len(self.names) == 1:
            return [self.value]
        return [jax.ShapeDtypeStruct(self.value.shape[1:], self.value.dtype)] * len(self.names)


class _Named:
    """A tree taken apart, its states weight by weight, as `State.unpack` shows them.

    What all weights of a state have in common, such as the count, is named once.

    Attributes:
        leaves: in the order of `jax.tree.leaves`, a `RowSparse` as one.
        slots: by the name of every `State` the kinds of its slots, which tell the algorithm.
    """

    def __init__(self, tree: Any, params: Any) -> None:
        self.leaves: list[_Leaf] = []
        self.slots: dict[str, list[str]] = {}
        self._collect("", "", tree, None if params is None else flatten_with_names(params)[0])

    def _collect(self, prefix: str, inside: str, tree: Any, weights: Sequence[str] | None) -> None:
        """Names the leaves of a part of a tree.

        Args:
            prefix: the path of the state that the part is of, or of the part.
            inside: the path of the part within that state.
            tree: the part.
            weights: the names of the weights that it is of.
        """
        kinds = (State, RowSparse, Packed, GroupSlots)
        nodes, _ = jax.tree_util.tree_flatten_with_path(
            tree, is_leaf=lambda node: isinstance(node, kinds)
        )
        for path, node in nodes:
            where = _joined(inside, path_name(path))
            name = _joined(prefix, where)
            if isinstance(node, State):
                self.slots[name] = _kinds(node.slots)
                for field, part in node._asdict().items():
                    self._collect(name, field, part, weights)
            elif isinstance(node, GroupSlots):
                known = _weights(prefix, weights, len(node.members))
                for number, state in enumerate(node.states):
                    pairs = zip(known, node.members, strict=True)
                    own = [weight for weight, member in pairs if member == number]
                    self._collect(_joined(name, str(number)), "", state, own)
            elif isinstance(node, Packed):
                self._collect_packed(prefix, where, node, weights)
            else:
                self.leaves.append(_Leaf((name,), node, inside.startswith("slots")))

    def _collect_packed(
        self, prefix: str, where: str, packed: Packed, weights: Sequence[str] | None
    ) -> None:
        known = _weights(prefix, weights)
        if (misfit := packed.layout.misfit(known)) is not None:
            state = prefix or "the state"
            raise ValueError(f"params must be the weights of {state!r}, which is of {misfit}.")
        for members, group in zip(packed.layout.groups, packed.groups, strict=True):
            for path, leaf in jax.tree_util.tree_flatten_with_path(group)[0]:
                ending = _joined(where, path_name(path))
                names = tuple(_joined(prefix, known[member], ending) for member in members)
                self.leaves.append(_Leaf(names, leaf, where.startswith("slots")))


def _joined(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _kinds(slots: Any) -> list[str]:
    """Names the slots of an algorithm, those inside a wrapper behind the wrapper's."""
    if isinstance(slots, Packed):
        return sorted({kind for group in slots.groups for kind in _kinds(group)})
    inside = _kinds(slots.inner) if isinstance(slots, (AccumulateSlots, EMASlots)) else []
    return [type(slots).__name__, *inside]


def _weights(prefix: str, weights: Sequence[str] | None, size: int | None = None) -> Sequence[str]:
    """Return the names of the weights of a state, which must be known and as many."""
    if weights is None:
        raise ValueError(f"params must be given: {prefix or 'the state'!r} is of a whole tree.")
    if size is not None and len(weights) != size:
        raise ValueError(f"params must have {size} leaves as the state has, got {len(weights)}.")
    return weights


def contents(tree: Any, params: Any) -> tuple[dict[str, Any], Arrays]:
    """Take a tree apart for `archive.write`.

    Args:
        tree: as `checkpoint.save` takes it.
        params: the weights that the states of trees in it are of; None where there are none.

    Returns:
        The header, and the arrays, which come to the host one by one.
    """
    named, records = _Named(tree, params), dict[str, Any]()
    arrays: dict[str, Any] = {}
    stacked: list[_Leaf] = []
    for leaf in named.leaves:
        for name, part in zip(leaf.names, leaf.parts(), strict=True):
            if name in records:
                raise ValueError(f"leaves must have different paths, got two at {name!r}.")
            several = len(leaf.names) > 1
            records[name] = described(name, part) if several else encode(part, name, arrays)
        if len(leaf.names) > 1:
            stacked.append(leaf)
    header = {"kind": "tree", "writer": f"jaxmxopt {__version__}", "slots": named.slots,
              "leaves": records}  # fmt: skip
    return header, itertools.chain(on_host(arrays), _apart(stacked))


def _apart(stacked: Iterable[_Leaf]) -> Arrays:
    for names, leaf, _ in stacked:
        yield from zip(names, to_host(names[0], leaf), strict=True)


def restored(reader: Reader, like: Any, params: Any) -> Any:
    """Make a tree like `like` from a file, everything compared before anything is read.

    Raises:
        ValueError: the file is of another tree; the first difference is named.
    """
    if reader.header.get("kind") != "tree":
        raise ValueError("must be of a tree, got one of an Updater or a Trainer.")
    named = _Named(like, params)
    found, slots = reader.header.get("leaves"), reader.header.get("slots")
    if not isinstance(found, dict) or not isinstance(slots, dict):
        raise ValueError("is damaged: leaves or slots in its header.")
    for name, kinds in named.slots.items():
        if slots.get(name) != kinds:
            raise ValueError(
                f"{name or 'the tree'!r} must be a State with slots {_shown(kinds)}, got "
                + (f"a State with slots {_shown(slots[name])}." if name in slots else "none.")
            )
    wanted = {name: part for leaf in named.leaves
              for name, part in zip(leaf.names, leaf.parts(), strict=True)}  # fmt: skip
    extra = sorted(found.keys() - wanted.keys())
    for name in wanted:
        if name not in found:
            hint = nearest(name, extra) or "."
            raise ValueError(f"must hold {name!r}, got a file without it{hint}")
    if extra:
        raise ValueError(f"must hold {len(wanted)} leaves, got {extra[0]!r} beside them.")
    slot_names = {name for leaf in named.leaves if leaf.slot for name in leaf.names}
    for name, part in wanted.items():
        _check(name, part, found[name], widened=name in slot_names)
    made = [_made(reader, leaf.value, [found[name] for name in leaf.names])
            for leaf in named.leaves]  # fmt: skip
    return jax.tree.unflatten(jax.tree.structure(like), [part for some in made for part in some])


def _shown(kinds: Any) -> str:
    return " or ".join(map(str, kinds)) if isinstance(kinds, list) else "of no kind"


def _widens(name: Any, wanted: Any) -> bool:
    """True if a file names a dtype of half precision, where float32 is wanted."""
    return name in ("bfloat16", "float16") and wanted == np.float32


def _check(name: str, like: Any, found: Any, *, widened: bool = False) -> None:
    """Compare kind, dtype and shape of a leaf with a record.

    `widened` lets half precision stand for float32: version 0.1.0 kept all slots in the dtype of
    the weight.
    """
    what = next((key for key in ("array", "class") if isinstance(found, dict) and key in found), "")
    if type(like) in _SCALARS:
        kind, given = type(like).__name__, f"an {what}" if what else type(found).__name__
        if given != kind:
            raise ValueError(f"{name!r} must be of type {kind}, got {given}.")
        return
    if isinstance(like, RowSparse):
        fields = found.get("fields") if what == "class" else None
        match fields:
            case {"indices": indices, "values": values, "shape": {"tuple": list(shape)}}:
                pass
            case _:
                raise ValueError(f"{name!r} must be a RowSparse of shape {like.shape}, got others.")
        if shape != list(like.shape):
            raise ValueError(
                f"{name!r} must be a RowSparse of shape {like.shape}, got a RowSparse of shape "
                f"{tuple(shape)}."
            )
        _check(f"{name}/indices", like.indices, indices)
        _check(f"{name}/values", like.values, values)
        return
    if not isinstance(like, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)):
        raise TypeError(f"{name!r} must be like an array, got {type(like).__name__}.")
    if what != "array":
        raise ValueError(f"{name!r} must be an array, got {found!r:.100}.")
    wanted = described(found["array"], like)
    for part in ("key", "dtype"):
        if wanted.get(part) != found.get(part):
            if widened and part == "dtype" and _widens(found.get("dtype"), like.dtype):
                continue
            kinds = [of.get("key") or of.get("dtype") for of in (wanted, found)]
            raise ValueError(f"{name!r} must have dtype {kinds[0]}, got {kinds[1]}.")
    if wanted["shape"] != (shape := found.get("shape")):
        given = tuple(shape) if isinstance(shape, list) else shape
        raise ValueError(f"{name!r} must have shape {tuple(wanted['shape'])}, got {given}.")
    on_host, dtype = isinstance(like, (np.ndarray, np.generic)), wanted["dtype"]
    if not on_host and jax.dtypes.canonicalize_dtype(dtype).name != dtype:
        raise ValueError(f"{name!r} must have a dtype of 32 bits without jax_enable_x64.")


def _made(reader: Reader, like: Any, records: list[Any]) -> list[Any]:
    """Make the leaves that stand for one leaf: two for a `RowSparse`."""
    if type(like) in _SCALARS:
        return records
    if isinstance(like, RowSparse):
        fields = records[0]["fields"]
        parts = ((like.indices, fields["indices"]), (like.values, fields["values"]))
        rows, values = (place([reader.array(record)], part) for part, record in parts)
        return [as_keys(rows), values]
    return [place([_cast(reader.array(record), like) for record in records], like)]


def _cast(host: np.ndarray, like: Any) -> np.ndarray:
    return host.astype(like.dtype) if widens(host.dtype, like.dtype) else host
