"""Wrappers: what they do to weights, in any order, for one weight and for trees."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import assert_near, assert_same, make, tree

import jaxmxopt as mxopt
from jaxmxopt.amp import clip_global_norm
from jaxmxopt.lr_scheduler import PolyScheduler

SCHEDULE = PolyScheduler(max_update=10, base_lr=0.1, pwr=1)
WRAPPERS = {
    "Accumulate": lambda opt: mxopt.Accumulate(opt, every=2),
    "ClipGlobalNorm": lambda opt: mxopt.ClipGlobalNorm(opt, max_norm=0.5),
    "EMA": lambda opt: mxopt.EMA(opt, decay=0.9),
    "Groups": lambda opt: mxopt.Groups({"a": opt, "*": opt.replace(learning_rate=0.2)}),
}
NESTED = {
    "average of accumulated": lambda opt: mxopt.EMA(mxopt.Accumulate(opt, every=2), decay=0.9),
    "accumulated with average": lambda opt: mxopt.Accumulate(mxopt.EMA(opt, decay=0.9), every=2),
    "all around groups": lambda opt: mxopt.EMA(
        mxopt.ClipGlobalNorm(mxopt.Groups({"a": opt, "*": mxopt.SGD()}), max_norm=0.5)
    ),
    "groups of all": lambda opt: mxopt.Groups(
        {
            "a": mxopt.Accumulate(opt, every=2),
            "b": mxopt.EMA(opt),
            "*": mxopt.ClipGlobalNorm(opt, max_norm=0.5),
        }
    ),
    "groups in groups": lambda opt: mxopt.Groups(
        {"[ab]": mxopt.Groups({"a": opt, "*": mxopt.EMA(opt)}), "*": opt}
    ),
}
ANY = pytest.mark.parametrize(
    "wrap", [*WRAPPERS.values(), *NESTED.values()], ids=[*WRAPPERS, *NESTED]
)


def train(opt, steps=4, params=None, **kwargs):
    params = tree(0) if params is None else params
    state = opt.init(params)
    for seed in range(1, steps + 1):
        params, state = opt.step(params, tree(seed), state, **kwargs)
    return params, state


def mean_of(*grads):
    return jax.tree.map(lambda *leaves: sum(leaves) / np.float32(len(leaves)), *grads)


class TestAccumulate:
    def test_is_the_update_with_the_average(self, cls):
        opt = make(cls)
        params, state = train(mxopt.Accumulate(opt, every=2))
        expected, inner = tree(0), opt.init(tree(0))
        for seed in (1, 3):
            expected, inner = opt.step(expected, mean_of(tree(seed), tree(seed + 1)), inner)
        assert_same(params, expected)
        assert_same(state._replace(slots=state.slots.inner), inner)

    def test_weights_rest_between_updates(self):
        opt = mxopt.Accumulate(mxopt.Adam(lr_scheduler=SCHEDULE), every=3)
        params, state = train(opt, steps=2)
        assert_same(params, tree(0))
        assert int(state.num_update) == 0
        assert int(state.slots.micro) == 2

    def test_half_precision_adds_up_in_float32(self):
        opt = mxopt.Accumulate(mxopt.SGD(learning_rate=1.0, multi_precision=True), every=512)
        w = jnp.zeros((2, 2), jnp.bfloat16)
        state = opt.init(w)
        assert state.slots.total.dtype == jnp.float32
        step = jax.jit(opt.step)
        for _ in range(512):
            w, state = step(w, jnp.ones((2, 2), jnp.bfloat16), state)
        assert_same(state.master.unpack()[0], -jnp.ones((2, 2)))

    def test_a_skipped_call_leaves_no_trace(self):
        opt = mxopt.Accumulate(mxopt.Adam(), every=2)
        params, state = train(opt, steps=3)
        bad = jax.tree.map(lambda g: g * jnp.nan, tree(9))
        assert_same(opt.step(params, bad, state, where=False), (params, state))

    def test_adds_the_rows_of_sparse_gradients(self):
        opt, w = mxopt.Accumulate(mxopt.SGD(learning_rate=1.0), every=2), jnp.zeros((4, 2))
        rows = mxopt.RowSparse(jnp.array([3, 1, 3]), jnp.ones((3, 2)), (4, 2))
        state = opt.init({"w": w})
        params, state = opt.step({"w": w}, {"w": rows}, state)
        params, state = opt.step(params, {"w": jnp.ones((4, 2))}, state)
        assert_same(params["w"], -jnp.array([[0.5] * 2, [1.0] * 2, [0.5] * 2, [1.5] * 2]))

    def test_scans(self):
        opt = mxopt.Accumulate(mxopt.Adam(), every=2)
        grads = jax.tree.map(lambda *g: jnp.stack(g), *(tree(seed) for seed in range(1, 5)))
        body = lambda carry, grad: (opt.step(carry[0], grad, carry[1]), None)  # noqa: E731
        scanned = jax.jit(lambda p: jax.lax.scan(body, (p, opt.init(p)), grads)[0])(tree(0))
        assert_near(scanned[0], train(opt)[0])

    def test_refuses_to_update_every_zero_calls(self):
        with pytest.raises(ValueError, match=r"^Accumulate: every must be at least 1, got 0\.$"):
            mxopt.Accumulate(mxopt.Adam(), every=0)


class TestEMA:
    def test_does_not_change_training(self, cls):
        opt = make(cls)
        params, state = train(mxopt.EMA(opt, decay=0.9))
        expected, inner = train(opt)
        assert_same(params, expected)
        assert_same(state._replace(slots=state.slots.inner), inner)

    @pytest.mark.parametrize("debias", [True, False])
    def test_averages_the_weights(self, debias):
        opt, decay = mxopt.SGD(learning_rate=0.1), 0.7
        params, state, seen = tree(0), opt.init(tree(0)), []
        ema = mxopt.EMA(opt, decay=decay, debias=debias)
        ema_state = ema.init(params)
        assert_same(mxopt.averaged(params, ema_state), params)
        for seed in range(1, 5):
            expected, state = opt.step(params, tree(seed), state)
            params, ema_state = ema.step(params, tree(seed), ema_state)
            assert_same(params, expected)
            seen.append(params)
        average, mass = (0.0, 0.0) if debias else (np.float64(tree(0)["a"]), 1.0)
        for weights in seen:
            average = decay * average + (1 - decay) * np.float64(weights["a"])
            mass = decay * mass + (1 - decay)
        np.testing.assert_allclose(
            mxopt.averaged(params, ema_state)["a"], average / mass, rtol=1e-6, atol=1e-7
        )

    def test_the_divisor_follows_a_changing_decay(self):
        w, state = jnp.full(3, 2.0), mxopt.EMA(mxopt.SGD(learning_rate=0.0)).init(jnp.zeros(3))
        for decay in (0.9, 0.5, 0.99):
            w, state = mxopt.EMA(mxopt.SGD(learning_rate=0.0), decay=decay).step(w, w, state)
        np.testing.assert_allclose(mxopt.averaged(w, state), w, rtol=1e-6)

    def test_moves_only_when_the_weights_do(self):
        inside = train(mxopt.Accumulate(mxopt.EMA(mxopt.Adam()), every=2), steps=5)
        outside = train(mxopt.EMA(mxopt.Accumulate(mxopt.Adam(), every=2)), steps=5)
        assert_near(mxopt.averaged(*inside), mxopt.averaged(*outside))
        opt = mxopt.EMA(mxopt.Adam())
        params, state = train(opt, steps=2)
        bad = jax.tree.map(lambda g: g * jnp.nan, tree(9))
        assert_same(opt.step(params, bad, state, where=False), (params, state))

    def test_around_groups_that_are_updated_apart(self):
        """Each weight as if its group were alone, though the whole is stepped every time."""
        slow, fast = mxopt.Accumulate(mxopt.SGD(learning_rate=1.0), every=2), mxopt.SGD()
        opt = mxopt.EMA(mxopt.Groups({"a": slow, "*": fast}), decay=0.5)
        params, state = train(opt, steps=3)
        alone = {
            "a": train(mxopt.EMA(slow, decay=0.5), steps=3),
            "b": train(mxopt.EMA(fast, decay=0.5), steps=3),
        }
        read = mxopt.averaged(params, state)
        for name, (weights, its_state) in alone.items():
            assert_near(read[name], mxopt.averaged(weights, its_state)[name])
        masses = {name: one.slots.mass.item() for name, one in state.unpack(params).items()}
        assert masses == {"a": 0.5, "b": 0.875, "c": 0.875}
        assert_same(opt.pack(params, state.unpack(params)).slots, state.slots)

    def test_averages_masters(self):
        opt = mxopt.EMA(mxopt.SGD(learning_rate=1e-3, multi_precision=True), decay=0.5)
        w = jnp.ones((2, 2), jnp.bfloat16)
        w, state = opt.step(w, jnp.ones((2, 2), jnp.bfloat16), opt.init(w))
        assert_same(w, jnp.ones((2, 2), jnp.bfloat16))
        np.testing.assert_allclose(state.slots.average / state.slots.mass, 0.999, rtol=1e-6)
        one, alone = opt.update(
            0, w, jnp.ones_like(w), opt.create_state_multi_precision(0, jnp.ones_like(w))
        )
        np.testing.assert_allclose(alone.slots.average / alone.slots.mass, 0.999, rtol=1e-6)
        assert mxopt.averaged(one, alone).dtype == jnp.bfloat16

    def test_reads_only_the_groups_that_have_one(self):
        opt = mxopt.Groups(
            {"a": mxopt.EMA(mxopt.SGD(learning_rate=1.0), decay=0.5), "*": mxopt.SGD()}
        )
        params, state = train(opt, steps=2)
        read = mxopt.averaged(params, state)
        assert_same({k: read[k] for k in "bc"}, {k: params[k] for k in "bc"})
        assert float(jnp.max(jnp.abs(read["a"] - params["a"]))) > 1e-2

    def test_refuses_to_read_what_is_not_there(self):
        opt = mxopt.Accumulate(mxopt.Adam(), every=2)
        with pytest.raises(ValueError, match=r"^averaged: state must be of a definition with"):
            mxopt.averaged(tree(), opt.init(tree()))

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"a": tree()["a"]}, "got no weight at 'b'"),
            ({**tree(), "d": tree()["a"]}, "got no average at 'd'"),
            ({**tree(), "b": tree()["c"]}, r"got shape \(2, 4\) at 'b', expected \(3, 2\)"),
            (None, "got no weight at 'a'"),
        ],
    )
    def test_refuses_weights_of_others(self, params, message):
        state = mxopt.EMA(mxopt.SGD()).init(tree())
        with pytest.raises(
            ValueError, match=f"^averaged: params must be what state is of, {message}"
        ):
            mxopt.averaged(params, state)
        with pytest.raises(TypeError, match=r"^averaged: state must be a State"):
            mxopt.averaged(tree(), 3)

    def test_reads_what_a_trainer_keeps(self):
        opt = mxopt.EMA(mxopt.SGD(learning_rate=1.0), decay=0.5)
        trainer = mxopt.Trainer(tree(), opt)
        trainer.step(tree(1), 1)
        _, state = opt.step(tree(), tree(1), opt.init(tree()))
        assert_near(mxopt.averaged(trainer.params, trainer.states), mxopt.averaged(tree(), state))


class TestGroups:
    def test_each_weight_is_updated_by_its_group(self):
        opts = {"a": mxopt.Adam(learning_rate=0.1), "*": mxopt.SGD(learning_rate=0.3, momentum=0.5)}
        params, state = train(mxopt.Groups(opts))
        alone = {key: train(opt)[0] for key, opt in opts.items()}
        assert_near(params, {"a": alone["a"]["a"], "b": alone["*"]["b"], "c": alone["*"]["c"]})
        assert int(state.num_update) == 4

    def test_paths_are_those_of_the_whole_tree(self):
        opt = mxopt.SGD(learning_rate=1.0, lr_mult={"*/bias": 0.5})
        params = {"dense": [{"bias": jnp.ones(2), "kernel": jnp.ones(2)}, jnp.ones(2)]}
        grouped = mxopt.Groups({"dense/0/*": opt, "*": mxopt.SGD(learning_rate=0.1)})
        new, _ = grouped.step(params, params, grouped.init(params))
        assert_near(
            jax.tree.map(lambda w: w[0], new),
            {"dense": [{"bias": jnp.float32(0.5), "kernel": jnp.float32(0)}, jnp.float32(0.9)]},
        )

    def test_the_first_match_counts_and_an_index_matches_itself(self):
        opt = mxopt.Groups({3: mxopt.SGD(), "3*": mxopt.Adam(), "*": mxopt.Ftrl()})
        w = jnp.ones(2)
        assert [type(opt.create_state(i, w).slots).__name__ for i in (3, 31, 4)] == [
            "tuple",
            "AdamSlots",
            "FtrlSlots",
        ]

    def test_a_group_may_be_empty(self):
        opt = mxopt.Groups({"nothing": mxopt.Adam(), "*": mxopt.SGD(learning_rate=0.1)})
        with pytest.warns(UserWarning, match=r"^Groups.init: groups\['nothing'\] is of no weight"):
            params, _ = train(opt)
        assert_same(params, train(mxopt.SGD(learning_rate=0.1))[0])

    def test_names_the_weight_that_nothing_matches(self):
        opt = mxopt.Groups({"a": mxopt.Adam(), "b": mxopt.SGD()})
        said = r"a pattern must match every weight, got 'a', 'b'; '\*' matches the rest\.$"
        with pytest.raises(ValueError, match=rf"^Groups\.init\('c'\): {said}"):
            opt.init(tree())
        with pytest.raises(ValueError, match=rf"^Groups\.create_state\('c'\): {said}"):
            opt.create_state("c", jnp.ones(2))
        state = mxopt.Groups({"[ab]": mxopt.Adam(), "*": mxopt.SGD()}).init(tree())
        with pytest.raises(ValueError, match=rf"^Groups\.step\('c'\): {said}"):
            opt.step(tree(), tree(), state)

    def test_refuses_the_state_of_other_groups(self):
        opt = mxopt.Groups({"a": mxopt.Adam(), "*": mxopt.SGD()})
        other = mxopt.Groups({"b": mxopt.Adam(), "*": mxopt.SGD()})
        with pytest.raises(ValueError, match=r"^Groups\.step: state is not of these groups"):
            opt.step(tree(), tree(), other.init(tree()))
        with pytest.raises(ValueError, match=r"^Groups\.step: state is not of these groups"):
            opt.step(tree(), tree(), mxopt.SGD().init(tree()))

    @pytest.mark.parametrize("given", [{}, None, {"*": mxopt.Adam}, [mxopt.Adam()]])
    def test_refuses_what_is_no_mapping_to_definitions(self, given):
        with pytest.raises(TypeError, match=r"^Groups: groups"):
            mxopt.Groups(given)


class TestClipGlobalNorm:
    @pytest.mark.parametrize("rescale", [1.0, 0.25])
    def test_limits_the_norm_of_rescaled_gradients(self, cls, rescale):
        opt = make(cls, rescale_grad=rescale)
        params, _ = train(mxopt.ClipGlobalNorm(opt, max_norm=0.5), steps=1)
        grads, norm = clip_global_norm(jax.tree.map(lambda g: g * rescale, tree(1)), 0.5)
        assert float(norm) > 0.5
        bare = opt.replace(rescale_grad=1.0)
        assert_near(params, bare.step(tree(0), grads, bare.init(tree(0)))[0], 8)

    def test_leaves_short_gradients_alone(self):
        assert_same(
            train(mxopt.ClipGlobalNorm(mxopt.Adam(), max_norm=1e3))[0], train(mxopt.Adam())[0]
        )

    def test_groups_may_rescale_differently(self):
        groups = mxopt.Groups(
            {
                "a": mxopt.SGD(learning_rate=1.0, rescale_grad=3.0),
                "b": mxopt.SGD(learning_rate=1.0, rescale_grad=4.0),
            }
        )
        opt, params = (
            mxopt.ClipGlobalNorm(groups, max_norm=1.0),
            {"a": jnp.zeros(1), "b": jnp.zeros(1)},
        )
        new, _ = opt.step(params, jax.tree.map(jnp.ones_like, params), opt.init(params))
        np.testing.assert_allclose([new["a"][0], new["b"][0]], [-0.6, -0.8], rtol=1e-6)

    def test_one_weight_is_a_tree_of_its_own(self):
        opt = mxopt.ClipGlobalNorm(mxopt.SGD(learning_rate=1.0), max_norm=1.0)
        w, _ = opt.update(
            "w", jnp.zeros(2), jnp.array([3.0, 4.0]), opt.create_state("w", jnp.zeros(2))
        )
        np.testing.assert_allclose(w, [-0.6, -0.8], rtol=1e-6)


@ANY
class TestEvery:
    @pytest.mark.usefixtures("thresholds")
    def test_one_weight_at_a_time(self, wrap):
        opt = _unlimited(wrap(make(mxopt.Adam, lr_mult={"a": 0.5})))
        params, tree_state = train(opt)
        states = {k: opt.create_state(k, w) for k, w in tree(0).items()}
        alone = tree(0)
        for seed in range(1, 5):
            for k, grad in tree(seed).items():
                alone[k], states[k] = opt.update(k, alone[k], grad, states[k])
        assert_near(alone, params)
        shown = tree_state.unpack(params)
        assert jax.tree.structure(shown) == jax.tree.structure(states)
        assert_near(shown, states, 4)

    @pytest.mark.usefixtures("thresholds")
    def test_unpacks_and_packs(self, wrap):
        opt = wrap(make(mxopt.Adam))
        params, state = train(opt, steps=3)
        again = opt.pack(params, state.unpack(params))
        assert_same(opt.step(params, tree(7), again), opt.step(params, tree(7), state))

    def test_is_a_value_and_a_pytree(self, wrap):
        opt = wrap(make(mxopt.Adam))
        assert pickle.loads(pickle.dumps(opt)) == opt
        assert hash(pickle.loads(pickle.dumps(opt))) == hash(opt)
        leaves, structure = jax.tree.flatten(opt)
        assert all(type(leaf) is float for leaf in leaves)
        assert jax.tree.unflatten(structure, leaves) == opt
        assert opt.replace(rescale_grad=0.5) != opt

    def test_a_number_never_compiles_anew(self, wrap, compilations):
        params, grads, opt = tree(0), tree(1), wrap(make(mxopt.Adam))
        state = opt.init(params)
        opt.step(params, grads, state)
        with compilations as seen:
            opt.replace(rescale_grad=0.3).step(params, grads, state)
        assert seen.count == 0

    def test_as_an_argument_of_jit_and_as_a_constant(self, wrap):
        opt = wrap(make(mxopt.Adam))
        state = opt.init(tree(0))
        direct = opt.step(tree(0), tree(1), state)
        argument = jax.jit(lambda o, *args: o.step(*args))(opt, tree(0), tree(1), state)
        constant = jax.jit(opt.step)(tree(0), tree(1), state)
        assert_near(argument, direct)
        assert_near(constant, direct)

    def test_donates(self, wrap):
        opt = wrap(make(mxopt.Adam))
        expected = train(opt, steps=2)
        assert_same(
            train(opt, steps=2, params=jax.tree.map(jnp.copy, tree(0)), donate=True), expected
        )

    def test_skips_where_false(self, wrap):
        opt = wrap(make(mxopt.Adam))
        params, state = train(opt, steps=2)
        assert_same(opt.step(params, tree(9), state, where=jnp.array(False)), (params, state))

    def test_sweeps(self, wrap):
        rates = [0.1, 0.01]
        opts = [wrap(mxopt.Adam(learning_rate=rate)) for rate in rates]
        stacked = jax.tree.map(lambda *leaves: jnp.stack([jnp.float32(x) for x in leaves]), *opts)
        state = opts[0].init(tree(0))
        swept, _ = jax.vmap(lambda o: o.step(tree(0), tree(1), state))(stacked)
        for number, opt in enumerate(opts):
            expected, _ = opt.step(tree(0), tree(1), state)
            assert_near(jax.tree.map(lambda leaf, n=number: leaf[n], swept), expected, 4)

    def test_refuses_gradients_that_do_not_fit(self, wrap):
        opt = wrap(make(mxopt.Adam))
        name, state = type(opt).__name__, opt.init(tree(0))
        wrong = {**tree(1), "b": jnp.ones((2, 3))}
        with pytest.raises(
            ValueError,
            match=rf"^{name}\.step\('b'\): grad has shape \(2, 3\), weight has \(3, 2\)\.$",
        ):
            opt.step(tree(0), wrong, state)
        with pytest.raises(ValueError, match=rf"^{name}\.step: grads must have the structure"):
            opt.step(tree(0), {"a": jnp.ones((3, 2))}, state)

    def test_refuses_the_state_of_another_algorithm(self, wrap):
        opt, other = wrap(make(mxopt.Adam)), wrap(mxopt.Ftrl())
        name = type(opt).__name__
        with pytest.raises(
            TypeError, match=rf"^{name}\.step\('a'\): state is of another algorithm"
        ):
            opt.step(tree(0), tree(1), other.init(tree(0)))
        w = tree(0)["a"]
        with pytest.raises(TypeError, match=r"\.update\('a'\): state is of another algorithm"):
            opt.update("a", w, w, other.create_state("a", w))


def _unlimited(opt):
    """The same with a limit that no gradient reaches: alone, a weight has another norm."""
    if isinstance(opt, mxopt.Groups):
        return opt.replace(groups={key: _unlimited(inner) for key, inner in opt.groups.items()})
    if isinstance(opt, mxopt.OptimizerDef):
        return opt
    limit = {"max_norm": 1e3} if isinstance(opt, mxopt.ClipGlobalNorm) else {}
    return opt.replace(definition=_unlimited(opt.definition), **limit)


@pytest.mark.parametrize("name", ["Accumulate", "ClipGlobalNorm", "EMA"])
def test_refuses_what_is_no_definition(name):
    with pytest.raises(TypeError, match=rf"^{name}: definition must be an optimizer such as"):
        WRAPPERS[name](mxopt.Adam)
    with pytest.raises(TypeError, match=rf"^{name}: .*; give its `definition`\.$"):
        WRAPPERS[name](mxopt.create("adam"))


def test_gradients_that_were_added_are_averaged_over_their_number():
    w = jnp.zeros(1)
    state = mxopt.Accumulate(mxopt.SGD(learning_rate=1.0), every=4).init(w)
    for every in (4, 4, 4, 2):
        opt = mxopt.Accumulate(mxopt.SGD(learning_rate=1.0), every=every)
        w, state = opt.step(w, jnp.ones(1), state)
    assert w.tolist() == [-1.0]


class TestFrozen:
    """A group of None."""

    opt = mxopt.Groups({"a": None, "*": mxopt.Adam()})

    def test_weights_stay_whatever_their_gradients_are(self):
        params, grads = tree(), {**tree(1), "a": jnp.full((3, 2), jnp.nan)}
        new, state = self.opt.step(params, grads, self.opt.init(params))
        assert_same(new["a"], params["a"])
        states = state.unpack(params)
        assert states["a"].slots == ()
        assert int(states["a"].num_update) == 1
        rest = {key: params[key] for key in "bc"}
        alone, _ = mxopt.Adam().step(rest, {k: grads[k] for k in "bc"}, mxopt.Adam().init(rest))
        assert_same({key: new[key] for key in "bc"}, alone)
        assert_same(self.opt.pack(params, states), state)

    def test_one_weight_stays(self):
        w = jnp.ones(2)
        new, state = self.opt.update("a", w, w, self.opt.create_state("a", w))
        assert_same(new, w)
        assert int(state.num_update) == 1

    def test_it_counts_what_counts(self):
        params = tree()
        state = self.opt.init(params)
        state = self.opt.step(params, params, state, where=jnp.array(False))[1]
        assert {int(one.num_update) for one in state.unpack(params).values()} == {0}

    def test_their_gradients_are_in_no_norm(self):
        params, grads = {"a": jnp.zeros(1), "b": jnp.zeros(1)}, {"a": jnp.full(1, 3.0)}
        grads["b"] = jnp.full(1, 4.0)
        groups = mxopt.Groups({"a": None, "*": mxopt.SGD(learning_rate=1.0)})
        opt = mxopt.ClipGlobalNorm(groups, max_norm=4.0)
        assert opt.step(params, grads, opt.init(params))[0]["b"].tolist() == [-4.0]

    @pytest.mark.parametrize("around", [lambda opt: opt, mxopt.EMA], ids=["alone", "in EMA"])
    def test_the_stateful_layer_and_files_have_it_too(self, around, tmp_path):
        opt, params = around(self.opt), tree()
        trainer = mxopt.Trainer(params, opt)
        assert trainer.learning_rate == 0.001
        trainer.set_learning_rate(0.5)
        new = trainer.step(tree(1), 1)
        assert_same(new["a"], params["a"])
        expected = opt.replace(learning_rate=0.5)
        assert_near(new, expected.step(params, tree(1), expected.init(params))[0])
        trainer.save_states(tmp_path / "states")
        again = mxopt.Trainer(new, opt)
        again.load_states(tmp_path / "states")
        assert_same(again.states, trainer.states)
        mxopt.checkpoint.save(tmp_path / "opt", {}, opt=opt)
        assert mxopt.checkpoint.load_definition(tmp_path / "opt") == opt
        updater = mxopt.get_updater(opt)
        assert_same(updater(["a", "b"], [params["b"]] * 2, [params["a"]] * 2)[0], params["a"])


def test_a_clipped_step_is_that_of_clipped_gradients(cls):
    opt = make(cls, rescale_grad=0.25, clip_gradient=None)
    clipped = mxopt.ClipGlobalNorm(opt, max_norm=0.5)
    params, state, expected = tree(), clipped.init(tree()), opt.init(tree())
    rest = params
    for seed in (1, 2, 3):
        params, state = clipped.step(params, tree(seed), state)
        grads, norm = clip_global_norm(jax.tree.map(lambda g: 0.25 * g, tree(seed)), 0.5)
        assert norm > 0.5
        rest, expected = opt.replace(rescale_grad=1.0).step(rest, grads, expected)
        assert_near(params, rest, 64)
        # LBSGD keeps a sum of gradients that `rescale_grad` is yet to multiply.
        if cls is not mxopt.LBSGD:
            assert_near(state, expected, 64)


class NotRescaled(mxopt.SGD):
    """A rule that does not know rescale_grad."""

    def rule(self, rates, weight, grad, slots):
        return weight - grad, slots


def test_rules_from_elsewhere_are_given_clipped_gradients():
    opt = mxopt.ClipGlobalNorm(NotRescaled(), max_norm=1.0)
    w = jnp.zeros(1)
    assert opt.step(w, jnp.full(1, 5.0), opt.init(w))[0].tolist() == [-1.0]
