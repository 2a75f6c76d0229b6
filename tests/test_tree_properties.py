"""Whole trees of every make: against weight by weight, without jit, reordered, repacked."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import assert_near, assert_same, make

import jaxmxopt as mxopt

pytestmark = pytest.mark.usefixtures("thresholds")

# Rules of every kind: by element, of norms, with counts, with keys, without slots.
DEFINITIONS = st.sampled_from(
    [
        make(mxopt.Adam),
        make(mxopt.LAMB),
        make(mxopt.Nadam),
        make(mxopt.SGD, momentum=0.0),
        make(mxopt.SGLD),
    ]
)
# Few sizes, so that shapes repeat and weights come to share arrays.
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3]), max_size=5).map(tuple)
SHAPES = st.one_of(st.sampled_from([(), (2,), (3, 2)]), SHAPES)
NAMES = st.sampled_from(["kernel", "bias", "gamma", "a/b", "0"])
Pair = collections.namedtuple("Pair", ["first", "second"])


def nested(leaves):
    return st.one_of(
        st.lists(leaves, max_size=3),
        st.lists(leaves, max_size=3).map(tuple),
        st.dictionaries(NAMES, leaves, max_size=3),
        st.tuples(leaves, leaves).map(lambda both: Pair(*both)),
    )


TREES = st.recursive(st.one_of(SHAPES.map(np.zeros), st.none()), nested, max_leaves=7)
SEEDS = st.integers(0, 2**16)
# Every tree compiles anew.
few = settings(max_examples=8)


def filled(shapes, seed):
    """The tree with numbers in it; shapes stand in it as arrays, so that tuples stay nodes."""
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), np.float32), shapes)


def names(params):
    """The index of every leaf: its path."""
    name = lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/")  # noqa: E731
    return jax.tree_util.tree_map_with_path(name, params)


def is_pair(node):
    return isinstance(node, tuple) and len(node) == 2 and isinstance(node[1], mxopt.State)


def weight_by_weight(opt, params, grads, states):
    both = jax.tree.map(opt.update, names(params), params, grads, states)
    return (
        jax.tree.map(lambda pair: pair[0], both, is_leaf=is_pair),
        jax.tree.map(lambda pair: pair[1], both, is_leaf=is_pair),
    )


@few
@given(DEFINITIONS, TREES, SEEDS)
def test_a_step_is_an_update_of_every_weight(opt, shapes, seed):
    params, grads = filled(shapes, seed), filled(shapes, seed + 1)
    state = opt.init(params)
    states = jax.tree.map(opt.create_state, names(params), params)
    assert_same(state.unpack(params), states)

    stepped, state = opt.step(params, grads, state)
    updated, states = weight_by_weight(opt, params, grads, states)
    assert_near(stepped, updated, 4)
    assert_near(state.unpack(params), states, 4)
    assert jax.tree.structure(stepped) == jax.tree.structure(params)
    assert state.num_update == 1


@given(DEFINITIONS, TREES, SEEDS)
def test_pack_is_the_inverse_of_unpack(opt, shapes, seed):
    params = filled(shapes, seed)
    draw = np.random.default_rng(seed)
    state = jax.tree.map(
        lambda leaf: (
            leaf + jnp.asarray(draw.integers(9, size=leaf.shape), leaf.dtype)
            if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else leaf
        ),
        opt.init(params),
    )
    if not jax.tree.leaves(params):
        state = opt.init(params)  # Where there are no weights there is no count.
    states = state.unpack(params)
    packed = opt.pack(params, states)
    assert_same(packed, state)
    assert_same(packed.unpack(params), states)


@few
@given(DEFINITIONS, TREES, SEEDS)
def test_jit_changes_no_bit(opt, shapes, seed):
    params, grads = filled(shapes, seed), filled(shapes, seed + 1)
    plain = opt.step(params, grads, opt.init(params))
    assert_same(jax.jit(opt.step)(params, grads, opt.init(params)), plain)


@few
@given(TREES, SEEDS)
def test_without_jit_the_numbers_are_near(shapes, seed):
    opt = make(mxopt.Adam)
    params, grads = filled(shapes, seed), filled(shapes, seed + 1)
    jitted = opt.step(params, grads, opt.init(params))
    with jax.disable_jit():
        eager = opt.step(params, grads, opt.init(params))
    assert_near(eager, jitted, 4)


@few
@given(DEFINITIONS, TREES, SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_leaves_does_not_matter(opt, shapes, seed, random):
    params, grads = filled(shapes, seed), filled(shapes, seed + 1)
    keys = list(dict.fromkeys(jax.tree.leaves(names(params))))
    random.shuffle(keys)

    def reordered(tree):
        by_name = dict(zip(jax.tree.leaves(names(tree)), jax.tree.leaves(tree), strict=True))
        return collections.OrderedDict((key, by_name[key]) for key in keys)

    stepped, _ = opt.step(params, grads, opt.init(params))
    other, _ = opt.step(reordered(params), reordered(grads), opt.init(reordered(params)))
    assert_near(other, reordered(stepped), 4)


@few
@given(TREES, SEEDS)
def test_where_false_leaves_every_tree(shapes, seed):
    opt = make(mxopt.LBSGD)
    params = filled(shapes, seed)
    state = opt.init(params)
    assert_same(opt.step(params, params, state, where=False), (params, state))


@pytest.mark.filterwarnings("ignore:SGD.init. .* is of no weight:UserWarning")
@few
@given(TREES, SEEDS)
def test_multipliers_go_by_path_and_pattern(shapes, seed):
    params, grads = filled(shapes, seed), filled(shapes, seed + 1)
    paths = jax.tree.leaves(names(params))
    exact = dict.fromkeys(paths[:1], 0.0)
    opt = mxopt.SGD(
        learning_rate=0.1,
        wd=0.5,
        lr_mult={"*bias": 0.5, **exact, "*": 1.0},
        wd_mult={"*kernel": 2.0, "*bias*": 0.0},
    )

    def expected(path, weight, grad):
        lr = 0.0 if path in exact else 0.05 if path.endswith("bias") else 0.1
        wd = 1.0 if path.endswith("kernel") else 0.0 if "bias" in path else 0.5
        return weight - np.float32(lr) * (grad + np.float32(wd) * weight)

    stepped, _ = opt.step(params, grads, opt.init(params))
    assert_near(stepped, jax.tree.map(expected, names(params), params, grads), 16)


@few
@given(TREES, SEEDS)
def test_half_precision_trees_keep_their_dtypes(shapes, seed):
    opt = make(mxopt.Adam, multi_precision=True)
    kinds = [jnp.float32, jnp.bfloat16, jnp.float16]
    count = iter(range(seed, seed + 99))
    cast = lambda leaf: leaf.astype(kinds[next(count) % 3])  # noqa: E731
    params = jax.tree.map(cast, filled(shapes, seed))
    state = opt.init(params)
    stepped, new = opt.step(params, params, state)
    updated, states = weight_by_weight(opt, params, params, state.unpack(params))
    assert_near(stepped, updated, 4)
    assert_near(new.unpack(params), states, 4)


def test_numbers_are_weights_in_all_functions():
    opt = mxopt.EMA(mxopt.SGD(learning_rate=0.5))
    params = {"w": 1.0}
    state = opt.init(params)
    assert opt.step(params, {"w": 1.0}, state)[0]["w"] == 0.5
    assert opt.update("w", 1.0, 1.0, opt.create_state("w", 1.0))[0] == 0.5
    assert_same(opt.pack(params, state.unpack(params)), state)
