"""Definitions as optax gradient transformations."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar, overload

import jax
import jax.numpy as jnp
import optax

from jaxmxopt._algorithms import (
    NAG,
    SGD,
    SGLD,
    AdaBelief,
    AdaDelta,
    AdaGrad,
    Adam,
    Adamax,
    AdamW,
    GroupAdaGrad,
    Nadam,
    RMSProp,
    Signum,
    ccSGD,
)
from jaxmxopt._core.copies import private
from jaxmxopt._core.definition import Definition, as_definition
from jaxmxopt._core.layout import Packed
from jaxmxopt._core.names import Tree
from jaxmxopt._core.numeric import is_zero
from jaxmxopt._core.sparse import is_row_sparse
from jaxmxopt._core.state import GroupSlots, State, masters
from jaxmxopt._wrappers.accumulate import Accumulate
from jaxmxopt._wrappers.clip import ClipGlobalNorm
from jaxmxopt._wrappers.groups import Frozen, Groups

__all__ = [
    "apply_updates",
    "as_optax",
    "known_to_flax",
]

Params = TypeVar("Params")
Factory = Callable[..., optax.GradientTransformationExtraArgs]


@overload
def as_optax(definition: Definition) -> optax.GradientTransformationExtraArgs: ...
@overload
def as_optax(definition: type[Definition]) -> Factory: ...
def as_optax(definition: Any) -> Any:
    """Make an optax GradientTransformation of a definition.

    Its `update` takes any extra arguments and returns what is to be added: the new weights minus
    the old, in the dtypes of the weights. It needs `params`, unless what is added depends on the
    gradients alone, as in Adam without decay; the dtypes are those of the gradients then.
    Everything of optax that works on transformations works on it: `chain`, `masked`,
    `multi_transform`, `apply_if_finite`, `MultiSteps`.

    A difference loses what the new weight itself would not: added to the old weight it may miss
    the new one by a unit of rounding. With masters nothing of this adds up, as the masters take
    no part in it, and `apply_updates` of this module gives the exact weights. Without, the next
    update starts from the rounded weight: keep to `definition.step` where the last bit counts.

    Args:
        definition: an optimizer such as `jaxmxopt.Adam()`. Or a class, `jaxmxopt.Adam`: then the
            result is a function of its hyperparameters that makes the transformation, for
            `optax.inject_hyperparams`. Those that are integers, such as `begin_num_update`, need
            `static_args` there, and a schedule goes in as `learning_rate`.

    Returns:
        A `GradientTransformationExtraArgs` whose state is the definition's; or the function.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt, optax
        >>> tx = optax.chain(optax.clip(1.0), as_optax(mxopt.SGD(learning_rate=0.5)))
        >>> w = jnp.array([1.0, 2.0])
        >>> updates, state = tx.update(jnp.array([4.0, 0.2]), tx.init(w), w)
        >>> print(optax.apply_updates(w, updates))
        [0.5 1.9]
        >>> tx = optax.inject_hyperparams(as_optax(mxopt.Adam))(learning_rate=0.1)
        >>> print(tx.init(w).hyperparams["learning_rate"])
        0.1
    """
    if isinstance(definition, type) and issubclass(definition, Definition):
        return _factory(definition)
    definition = as_definition("as_optax: definition", definition)

    def init(params: Any) -> State:
        known_to_flax()
        if any(isinstance(leaf, optax.MaskedNode) for leaf in _leaves(params)):
            # A multiplier of a weight that the mask leaves out is no mistake.
            return definition._first_state("init", Tree.of(_arrays(params)), masters=True)
        return definition.init(_arrays(params))

    def update(
        updates: Any, state: State, params: Any = None, **extra_args: Any
    ) -> tuple[Any, State]:
        del extra_args
        grads = _arrays(updates)
        if params is None:
            if (needs := _needing(definition)) is not None:
                raise ValueError(
                    f"as_optax({type(definition).__name__}).update: params must be given, got "
                    f"None: {needs} asks for the weights."
                )
            # What is added does not depend on the weights.
            zeros = jax.tree.map(_zeros, grads, is_leaf=is_row_sparse)
            new, state = definition.step(zeros, grads, state)
            return jax.tree.unflatten(jax.tree.structure(updates), jax.tree.leaves(new)), state
        old = private(_arrays(params))
        new, state = definition.step(old, grads, state)
        added = jax.tree.leaves(jax.tree.map(lambda new, old: new - old, new, old))
        # Variables of flax come back as variables.
        return jax.tree.unflatten(jax.tree.structure(params), added), state

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


# What these add to a weight without decay does not depend on the weight.
_BY_GRADIENT = (
    *(SGD, ccSGD, NAG, Signum, SGLD, Adam, AdamW, AdaBelief, Adamax, Nadam),
    *(AdaGrad, GroupAdaGrad, AdaDelta, RMSProp),
)


def _needing(definition: Definition) -> str | None:
    """Return what of a definition asks for the weights, None if nothing does."""
    if isinstance(definition, (ClipGlobalNorm, Accumulate)):
        return _needing(definition.definition)
    if isinstance(definition, Groups):
        parts = (opt for opt in definition.groups.values() if opt is not None)
        return next(filter(None, map(_needing, parts)), None)
    name = type(definition).__name__
    if isinstance(definition, Frozen):
        return None
    if type(definition) not in _BY_GRADIENT:
        return name
    for field in ("wd", "wd_lh"):
        if not is_zero(vars(definition).get(field, 0.0)):
            return f"{field} of {name}"
    for field in ("clip_weights", "multi_precision"):
        if vars(definition).get(field):
            return f"{field} of {name}"
    return None


def _zeros(grad: Any) -> jax.Array:
    return jnp.zeros(grad.shape, grad.dtype)


def _leaves(params: Any) -> list[Any]:
    return jax.tree.leaves(params, is_leaf=lambda node: isinstance(node, optax.MaskedNode))


def _arrays(params: Any) -> Any:
    """Return the arrays of flax variables: `nnx.Optimizer` gives variables first, and later arrays.

    Where flax is not imported there are none.
    """
    as_pure = getattr(sys.modules.get("flax.nnx"), "as_pure", None)
    return params if as_pure is None else as_pure(params)


def _factory(kind: type[Definition]) -> Factory:
    """Return a function of the hyperparameters of a class, with a signature that says them all.

    optax takes every integer for a hyperparameter that may change, which begin_num_update may
    not: such a default is None there, and left to the class.
    """

    @functools.wraps(kind, updated=())
    def factory(*args: Any, **hyperparameters: Any) -> optax.GradientTransformationExtraArgs:
        given = {
            name: value
            for name, value in hyperparameters.items()
            if not (value is None and name in integers)
        }
        return as_optax(kind(*args, **given))

    signature = inspect.signature(kind)
    integers = {name for name, p in signature.parameters.items() if type(p.default) is int}
    factory.__signature__ = signature.replace(  # pyright: ignore[reportAttributeAccessIssue]
        parameters=[
            p.replace(default=None) if name in integers else p
            for name, p in signature.parameters.items()
        ]
    )
    return factory


def apply_updates(params: Params, updates: Any, state: Any) -> Params:
    """`optax.apply_updates`, exact for weights that have a master.

    Such a weight becomes its master, rounded: what `definition.step` would have returned. It
    takes the last transformation of a chain to be `as_optax`: what others do to the updates after
    it is not in the master.

    Args:
        params: the weights.
        updates: from the `update` of a transformation.
        state: that it returned, with one state of a definition in it.

    Returns:
        The new weights.

    Raises:
        ValueError: there is no state of a definition in the state, or more than one, or it is of
            some of the weights, as in `optax.masked`. `jaxmxopt.Groups` has one state of all.
    """
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, State))
    found = [node for node in nodes if isinstance(node, State)]
    if len(found) != 1:
        raise ValueError(f"apply_updates: state must hold one state of as_optax, got {len(found)}.")
    tree = Tree.of(params)
    try:
        known = masters(tree, found[0])
    except ValueError:
        raise ValueError(
            "apply_updates: state must be of all weights, got one of some; jaxmxopt.Groups takes "
            "the place of optax.masked."
        ) from None
    added = tree.structure.flatten_up_to(optax.apply_updates(params, updates))  # pyright: ignore[reportArgumentType]
    return tree.like([_rounded(*pair) for pair in zip(known, added, strict=True)])


def _rounded(master: Any, weight: Any) -> Any:
    return weight if master is None else master.astype(weight.dtype)


def known_to_flax() -> None:
    """Lets `flax.serialization` take states apart, if flax has been imported.

    `to_bytes` of a `TrainState` keeps what lies under the paths of weights, and `from_bytes`
    refuses what lies under others.
    """
    serialization: Any = sys.modules.get("flax.serialization")
    if serialization is None:
        return
    for kind, parts, joined in _KINDS:
        if kind not in _known:
            _known.add(kind)
            to_dict = functools.partial(_to_dict, serialization, parts)
            from_dict = functools.partial(_from_dict, serialization, parts, joined)
            serialization.register_serialization_state(kind, to_dict, from_dict)


def _to_dict(serialization: Any, parts: Any, node: Any) -> dict[str, Any]:
    return {name: serialization.to_state_dict(part) for name, part in parts(node).items()}


def _from_dict(serialization: Any, parts: Any, joined: Any, node: Any, kept: dict[str, Any]) -> Any:
    own = parts(node)
    other = next((name for name in [*own, *kept] if name not in own or name not in kept), None)
    if other is not None:
        raise ValueError(
            f"the state must be of the weights that it is restored into, got another {other!r}."
        )
    restore = serialization.from_state_dict
    return joined(node, [restore(part, kept[name], name) for name, part in own.items()])


def _by_weight(packed: Packed) -> dict[str, Any]:
    names = packed.layout.names or range(packed.layout.size)
    return dict(zip(map(str, names), packed.unpack(), strict=True))


def _by_group(slots: GroupSlots) -> dict[str, Any]:
    return {str(number): state for number, state in enumerate(slots.states)}


_KINDS: tuple[Any, ...] = (
    (Packed, _by_weight, lambda packed, parts: packed.layout.pack(parts)),
    (GroupSlots, _by_group, lambda slots, parts: GroupSlots(tuple(parts), slots.members)),
)
_known: set[type] = set()
