"""The stateful optimizers: MXNet's constructor, registry, attributes, multipliers and errors."""

import copy
import inspect
import multiprocessing
import pickle
import warnings
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import OF_MATRICES, OF_MXNET, assert_near, assert_same, double_precision, make

import jaxmxopt as mxopt
from jaxmxopt import lr_scheduler
from jaxmxopt import optimizer as mxo

ONES = np.ones(3, np.float32)

# Own arguments in order with their defaults: inspect.signature of MXNet 1.9.1, and of 2.0.0b1
# for the last three, which have `use_fused_step` and `aggregate_num` besides.
SIGNATURES: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.0, "lazy_update": True},
    "NAG": {"momentum": 0.0},
    "Signum": {"learning_rate": 0.01, "momentum": 0.9, "wd_lh": 0.0},
    "FTML": {"beta1": 0.6, "beta2": 0.999, "epsilon": 1e-8},
    "LARS": {
        "momentum": 0.0,
        "lazy_update": True,
        "eta": 0.001,
        "eps": 0,
        "momentum_correction": True,
    },
    "LBSGD": {
        "momentum": 0.0,
        "multi_precision": False,
        "warmup_strategy": "linear",
        "warmup_epochs": 5,
        "batch_scale": 1,
        "updates_per_epoch": 32,
        "begin_epoch": 0,
        "num_epochs": 60,
    },
    "LAMB": {
        "learning_rate": 0.001,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-6,
        "lower_bound": None,
        "upper_bound": None,
        "bias_correction": True,
    },
    "DCASGD": {"momentum": 0.0, "lamda": 0.04},
    "SGLD": {},
    "Adam": {
        "learning_rate": 0.001,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "lazy_update": True,
    },
    "AdaGrad": {"eps": 1e-7},
    "GroupAdaGrad": {"eps": 1e-5},
    "RMSProp": {
        "learning_rate": 0.001,
        "gamma1": 0.9,
        "gamma2": 0.9,
        "epsilon": 1e-8,
        "centered": False,
        "clip_weights": None,
    },
    "AdaDelta": {"rho": 0.90, "epsilon": 1e-5},
    "Ftrl": {"lamda1": 0.01, "learning_rate": 0.1, "beta": 1},
    "Adamax": {"learning_rate": 0.002, "beta1": 0.9, "beta2": 0.999},
    "Nadam": {
        "learning_rate": 0.001,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "schedule_decay": 0.004,
    },
    "Test": {},
    "AdamW": {
        "learning_rate": 0.001,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-6,
        "correct_bias": True,
    },
    "AdaBelief": {
        "learning_rate": 0.001,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-6,
        "correct_bias": True,
    },
    "LANS": {
        "learning_rate": 0.001,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-6,
        "lower_bound": None,
        "upper_bound": None,
    },
}
BASE = {
    "rescale_grad": 1.0,
    "param_idx2name": None,
    "wd": 0.0,
    "clip_gradient": None,
    "learning_rate": None,
    "lr_scheduler": None,
    "sym": None,
    "begin_num_update": 0,
    "multi_precision": False,
    "param_dict": None,
}
# What mxnet.optimizer of 1.9.1 exports for users, `contrib` among it.
NAMES = {
    *("AdaDelta", "AdaGrad", "Adam", "Adamax", "DCASGD", "FTML", "Ftrl", "LARS", "LBSGD", "NAG"),
    *("Nadam", "Optimizer", "RMSProp", "SGD", "SGLD", "Signum", "LAMB", "Test", "Updater"),
    *("ccSGD", "create", "get_updater", "register", "contrib"),
}


@pytest.fixture
def registry() -> Any:
    """The registry, as it was afterwards."""
    before = dict(mxopt.Optimizer.opt_registry)
    yield mxopt.Optimizer.opt_registry
    mxopt.Optimizer.opt_registry.clear()
    mxopt.Optimizer.opt_registry.update(before)


# Names and signatures.


def test_has_every_name_of_mxnet() -> None:
    assert NAMES | {"AdamW", "AdaBelief", "LANS"} <= set(mxo.__all__) <= set(dir(mxo))
    assert mxo.contrib.GroupAdaGrad is mxo.GroupAdaGrad


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_those_of_mxnet(name: str) -> None:
    parameters = inspect.signature(getattr(mxo, name)).parameters
    own = {key: p.default for key, p in parameters.items() if p.kind == p.POSITIONAL_OR_KEYWORD}
    assert list(own.items()) == list(SIGNATURES[name].items())
    assert set(BASE) <= set(parameters)
    fields = getattr(mxopt, name).__dataclass_fields__
    for key, default in own.items():
        assert fields[key].default == default


def test_the_base_has_the_signature_of_mxnet() -> None:
    parameters = dict(inspect.signature(mxopt.Optimizer).parameters)
    assert parameters.pop("definition").kind == inspect.Parameter.POSITIONAL_ONLY
    assert [(key, p.default) for key, p in parameters.items()] == list(BASE.items())
    assert repr(parameters["multi_precision"].default) == "False"


@pytest.mark.parametrize("kind", OF_MXNET, ids=lambda kind: kind.__name__)
def test_each_class_is_documented_and_equals_its_definition(kind: Any) -> None:
    stateful = getattr(mxo, kind.__name__)
    assert stateful.__doc__.startswith(f"Stateful `jaxmxopt.{kind.__name__}`")
    assert stateful().definition == kind()
    assert mxopt.Optimizer.opt_registry[kind.__name__.lower()] is stateful


def test_arguments_keep_mxnets_positions() -> None:
    opt = mxo.Ftrl(0.5, 0.25, 2)
    assert (opt.lamda1, opt.lr, opt.beta) == (0.5, 0.25, 2.0)
    assert mxo.SGD(0.9, False).definition == mxopt.SGD(momentum=0.9, lazy_update=False)


# The registry.


def test_create_takes_any_case_and_suggests_the_nearest_name() -> None:
    assert isinstance(mxopt.create("ADAM", learning_rate=0.5), mxo.Adam)
    assert mxo.create is mxopt.Optimizer.create_optimizer
    with pytest.raises(ValueError, match="got 'nadamm'; did you mean 'nadam'"):
        mxopt.create("nadamm")
    with pytest.raises(TypeError, match="'momentun'; did you mean 'momentum'"):
        mxopt.create("sgd", momentun=0.9)
    with pytest.raises(TypeError, match="name must be a string"):
        mxopt.create(3)


def test_register_takes_optimizers_and_definitions_and_warns(registry: Any) -> None:
    @mxopt.Optimizer.register
    class Mine(mxopt.Optimizer):
        pass

    assert registry["mine"] is Mine
    with pytest.warns(UserWarning, match=r"Mine overrides .*Mine"):
        mxo.register(Mine)

    @mxo.register
    class Descent(mxopt.OptimizerDef):
        """A definition of one's own."""

        scale: mxopt.algorithm.Real = 1.0

        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            return weight - rates.lr * self.scale * self.rescale_grad * grad, ()

    opt = mxopt.create("descent", learning_rate=0.5, scale=2.0, param_dict={})
    assert opt.update(0, ONES, ONES, ())[0].tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(TypeError, match="subclass of Optimizer or of OptimizerDef"):
        mxo.register(int)


# The constructor and attributes.


def test_wraps_a_definition_and_what_is_given_beside_it_overrides() -> None:
    definition = mxopt.Adam(learning_rate=3e-4, beta1=0.5, wd=0.1, multi_precision=True)
    opt = mxopt.Optimizer(definition)
    assert opt.definition == definition
    assert (opt.lr, opt.wd, opt.beta1, opt.multi_precision) == (3e-4, 0.1, 0.5, True)
    other = mxopt.Optimizer(definition, wd=0.0, multi_precision=False, learning_rate=0.5)
    assert other.definition == definition.replace(wd=0.0, multi_precision=False, learning_rate=0.5)
    assert mxopt.create(definition, beta1=0.25).beta1 == 0.25
    with pytest.raises(TypeError, match="must be an OptimizerDef"):
        mxopt.Optimizer("sgd")


def test_hyperparameters_read_and_write_through() -> None:
    opt = mxopt.Optimizer(mxopt.SGD(momentum=0.5))
    opt.momentum = 0.95
    opt.lr, opt.rescale_grad, opt.wd, opt.clip_gradient = 0.5, np.float32(0.25), 1, jnp.ones(())
    assert opt.definition == mxopt.SGD(
        momentum=0.95, learning_rate=0.5, rescale_grad=0.25, wd=1.0, clip_gradient=1.0
    )
    for name, value in (("momentum", 1.0), ("wd", -1.0), ("lr", "x"), ("multi_precision", 2)):
        with pytest.raises((TypeError, ValueError), match=name.replace("lr", "lr")):
            setattr(opt, name, value)
    assert opt.definition.momentum == 0.95
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        opt.nothing  # noqa: B018
    with pytest.raises(AttributeError, match=r"SGD.learning_rate cannot be .* set_learning_rate"):
        mxo.SGD().learning_rate = 0.5
    assert "momentum" in dir(opt)


def test_the_learning_rate_of_a_scheduler_and_of_the_constructor() -> None:
    assert mxopt.Optimizer().learning_rate == 0.01
    assert mxo.Adam().learning_rate == mxo.Adam(learning_rate=None).learning_rate == 0.001
    schedule = lr_scheduler.FactorScheduler(step=1, factor=0.5, base_lr=0.4)
    opt = mxo.Adam(lr_scheduler=schedule)
    assert opt.learning_rate == 0.4
    with pytest.warns(UserWarning, match=r"learning_rate=0.8 overrides base_lr=0.4"):
        opt = mxo.Adam(learning_rate=0.8, lr_scheduler=schedule)
    assert (opt.learning_rate, opt.lr_scheduler.base_lr) == (0.8, 0.8)
    with pytest.raises(UserWarning, match="lr_scheduler must be None"):
        opt.set_learning_rate(0.1)
    opt.lr_scheduler = None
    opt.set_learning_rate(0.1)
    assert opt.learning_rate == 0.1
    with pytest.raises(DeprecationWarning):
        opt.set_lr_scale({})


def test_lr_is_the_rate_behind_learning_rate() -> None:
    opt = mxo.SGD(learning_rate=0.5)
    opt.lr *= 0.5
    assert opt.lr == opt.learning_rate == opt._get_lr(0) == 0.25
    assert opt.update(0, ONES, ONES, ())[0].tolist() == [0.75] * 3
    opt.lr_scheduler = lr_scheduler.FactorScheduler(9, base_lr=0.125)
    opt.lr = 1.0
    assert (opt.lr, opt.learning_rate) == (1.0, 0.125)


def test_the_abstract_base_has_no_update_and_no_definition() -> None:
    opt = mxopt.Optimizer()
    assert opt.create_state(0, ONES) is None
    with pytest.raises(NotImplementedError):
        opt.update(0, ONES, ONES, None)
    assert opt.num_update == 0
    with pytest.raises(TypeError, match="no definition"):
        opt.definition  # noqa: B018


# Multipliers.


def test_multipliers_go_by_param_dict_then_index_then_name_then_pattern() -> None:
    names = {0: "a_weight", 1: "b_weight", 2: "c_weight", 3: "d_bias"}
    opt = mxo.SGD(learning_rate=1.0, wd=1.0, param_idx2name=names)
    opt.set_lr_mult({0: 2.0, "a_weight": 3.0, "b_weight": 4.0, "*_weight": 5.0})
    assert opt._get_lrs([0, 1, 2, 3, 4]) == [2.0, 4.0, 5.0, 1.0, 1.0]
    assert opt._get_wds([0, 1, 2, 3]) == [1.0, 1.0, 1.0, 0.0]
    opt.set_wd_mult({"*_bias": 0.5})
    assert opt._get_wd(3) == 0.5
    opt.param_dict = {0: SimpleNamespace(lr_mult=7.0, wd_mult=8.0)}
    assert (opt._get_lr(0), opt._get_wd(0)) == (7.0, 8.0)
    assert copy.deepcopy(opt).param_dict == {}
    given = opt.definition
    assert given.lr_mult == {0: 7.0, "a_weight": 3.0, "b_weight": 4.0, "*_weight": 5.0}


@pytest.mark.parametrize("given", [None, 2, SimpleNamespace(lr_mult=1.0)], ids=repr)
@pytest.mark.parametrize("wrap", [lambda opt: opt, mxopt.EMA], ids=["SGD", "EMA"])
def test_an_entry_of_param_dict_must_have_multipliers(wrap: Any, given: Any) -> None:
    opt = mxo.Optimizer(wrap(mxopt.SGD()), param_dict={"w": given})
    state = mxo.Optimizer(wrap(mxopt.SGD())).create_state("w", ONES)
    with pytest.raises(TypeError, match=r"param_dict\['w'\] must have lr_mult and wd_mult, got "):
        opt.update("w", ONES, ONES, state)
    assert opt.num_update == 0


@pytest.mark.parametrize("name", ["sgd", "adam", "lars", "lbsgd"])
def test_rates_of_a_subclass_hold_for_one_weight_and_for_lists(name: str) -> None:
    class Mine(type(mxo.create(name))):
        def _get_lr(self, index: Any) -> float:
            return 0.5 * super()._get_lr(index) if index == "a" else 0.0

        def _get_wd(self, index: Any) -> float:
            return 0.25

    def trained(several: bool) -> Any:
        opt = Mine(learning_rate=0.5)
        states = [opt.create_state(index, ONES) for index in "ab"]
        if several:
            return opt.update(["a", "b"], [ONES, ONES], [ONES, ONES], states)
        pairs = [opt.update(i, ONES, ONES, s) for i, s in zip("ab", states, strict=True)]
        return tuple(map(list, zip(*pairs, strict=True)))

    assert_same(trained(True), trained(False))
    assert_same(trained(True)[0][1], ONES)


def test_a_symbol_says_multipliers() -> None:
    sym = SimpleNamespace(
        attr_dict=lambda: {"x": {"__lr_mult__": "2", "__wd_mult__": "0.5"}},
        list_arguments=lambda: ["x", "y"],
    )
    opt = mxo.SGD(learning_rate=1.0, wd=1.0, sym=sym, param_idx2name={0: "x", 1: "y"})
    assert (opt.lr_mult, opt.wd_mult) == ({"x": 2.0}, {"x": 0.5, "y": 0.0})
    opt.set_lr_mult({"x": 3})
    assert opt._get_lrs([0, 1]) == [3.0, 1.0]


@pytest.mark.parametrize("definition", [mxopt.SGD(), mxopt.EMA(mxopt.SGD())])
def test_what_is_no_symbol_is_refused(definition: Any) -> None:
    message = r"Optimizer: sym must have attr_dict\(\) and list_arguments\(\), got 'x'"
    with pytest.raises(TypeError, match=message):
        mxopt.Optimizer(definition, sym="x")


def test_factors_may_be_negative_as_in_mxnet() -> None:
    opt = mxo.SGD(learning_rate=0.5, wd=0.5)
    opt.set_lr_mult({"fc_weight": -1.0})
    opt.set_wd_mult({"fc_weight": -1.0})
    assert (opt._get_lr("fc_weight"), opt._get_wd("fc_weight")) == (-0.5, -0.5)


def test_a_multiplier_of_no_name_warns() -> None:
    sym = SimpleNamespace(
        attr_dict=lambda: {"data": {"__lr_mult__": "2", "__wd_mult__": "2"}},
        list_arguments=lambda: ["data", "label", "fc_weight", "fc_bias"],
    )
    opt = mxo.SGD(sym=sym, param_idx2name={0: "fc_weight", 1: "fc_bias"})
    for call in (opt.set_lr_mult, opt.set_wd_mult):
        name = call.__name__
        with pytest.warns(
            UserWarning, match=f"SGD.{name}: 'fc_wieght' is .*mean 'fc_weight'"
        ) as seen:
            call({"fc_wieght": 2.0})
        with pytest.warns(UserWarning, match=f"SGD.{name}: '[*]_beta' is no name of param"):
            call({"*_beta": 2.0})
        assert seen[0].filename == __file__
        # Names of the symbol, those set before, patterns and indices.
        call({"label": 2.0, "fc_bias": 2.0, "*_weight": 2.0, 7: 2.0, "*_beta": 3.0})
    assert opt.lr_mult["data"] == opt.wd_mult["data"] == 2.0
    mxo.SGD().set_lr_mult({"anything": 2.0})


def test_lars_lets_weights_alone_decay() -> None:
    opt = mxo.LARS(wd=1.0, param_idx2name={0: "a_weight", 1: "a_gamma"})
    assert opt._get_wds([0, 1]) == [1.0, 0.0]


# Updates.


def test_follows_its_definition(cls: Any) -> None:
    definition = make(cls)
    weight = np.ones((2, 3), np.float32) if cls.__name__ in OF_MATRICES else ONES
    opt, expected = mxopt.Optimizer(definition), jnp.asarray(weight)
    state, given = opt.create_state(0, weight), definition.create_state(0, weight)
    actual = expected
    for step in range(4):
        grad = weight * np.float32(0.5 + step)
        actual, state = opt.update(0, actual, grad, state)
        expected, given = definition.update(0, expected, grad, given)
    assert_near(actual, expected, ulps=512)


def test_masters_stand_beside_slots() -> None:
    opt = mxo.Adam(multi_precision=True, learning_rate=0.5)
    for dtype in (jnp.float16, jnp.bfloat16):
        weight = jnp.ones(3, dtype)
        state = opt.create_state_multi_precision(0, weight)
        weight, (master, (mean, var)) = opt.update_multi_precision(0, weight, weight, state)
        assert weight.dtype == dtype
        assert master.dtype == mean.dtype == var.dtype == jnp.float32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = mxo.Adam().create_state_multi_precision(0, jnp.ones(3, jnp.float16))
    assert state.mean.dtype == jnp.float16


def test_no_number_compiles_anew(compilations: Any) -> None:
    opt = mxo.SGD(momentum=0.5, learning_rate=0.5, wd=0.5, clip_gradient=1.0)
    weights, grads = [jnp.ones(5)] * 3, [jnp.ones(5)] * 3
    states = [opt.create_state(k, weight) for k, weight in enumerate(weights)]

    def run() -> None:
        opt.update(0, weights[0], grads[0], states[0])
        opt.update([0, 1, 2], weights, grads, states)

    run()
    with compilations as seen:
        for name in ("lr", "wd", "rescale_grad", "clip_gradient", "momentum"):
            setattr(opt, name, 0.25)
            run()
        opt.wd = 0.0
        run()
        opt.set_lr_mult({1: 0.5})
        opt.set_wd_mult({2: 0.5})
        run()
        opt.lr_scheduler = lr_scheduler.FactorScheduler(step=1, factor=0.5)
        run()
    assert seen.count == 0


def test_numbers_are_as_precise_as_the_weight() -> None:
    opt = mxo.SGD(learning_rate=0.1)
    opt.update(0, ONES, ONES, ())
    with double_precision():
        wide = jnp.ones(3, jnp.float64)
        # Rate, decay and count are those of the call before.
        for index, rate in ((1, 0.1), (1, 0.1), (2, 0.3)):
            opt.lr = rate
            new, _ = opt.update(index, wide, wide, ())
            assert new.dtype == np.float64
            np.testing.assert_array_equal(new, np.float64(1) - rate)
            [listed], _ = mxo.SGD(learning_rate=rate).update([0], [wide], [wide], [()])
            assert_same(listed, new)
    narrow, _ = opt.update(0, ONES, ONES, ())
    assert narrow.dtype == np.float32
    np.testing.assert_array_equal(narrow, np.float32(1) - np.float32(0.3))
    assert opt._index_update_count == {0: 2, 1: 2, 2: 1}
    with pytest.warns(UserWarning, match="truncated to dtype float32"):
        rounded, _ = opt.update(1, wide, wide, ())
    assert rounded.dtype == np.float32


def test_a_gradient_that_is_traced_without_a_trace_in_the_result_is_refused() -> None:
    signum, sgd = mxo.Signum(), mxo.SGD()
    state = signum.create_state(0, ONES)

    def alone(grad: Any) -> Any:
        return jnp.sum(signum.update(0, ONES, grad, state)[0])

    def beside_others(grad: Any) -> Any:
        return jnp.sum(sgd.update([0, 1], [ONES, ONES], [ONES, grad], [(), ()])[0][0])

    for opt, function in ((signum, alone), (sgd, beside_others)):
        with pytest.raises(TypeError, match="got a tracer"):
            jax.grad(function)(jnp.asarray(ONES))
        assert (opt.num_update, opt._index_update_count) == (0, {})


def test_a_method_of_an_instance_is_asked() -> None:
    opt: Any = mxo.SGD(learning_rate=0.25)
    opt._get_lr = lambda index: 0.5
    np.testing.assert_array_equal(opt.update(0, ONES, ONES, ())[0], 0.5)


def test_a_hyperparameter_cannot_be_deleted() -> None:
    opt = mxo.SGD(momentum=0.5)
    for name in ("momentum", "wd"):
        with pytest.raises(AttributeError, match=f"SGD.{name} cannot be deleted"):
            delattr(opt, name)
    opt.note = 1
    del opt.note
    assert (opt.momentum, opt.wd) == (0.5, 0.0)


def test_a_failed_update_counts_nothing() -> None:
    opt = mxo.Adam()
    state = opt.create_state(0, ONES)
    with pytest.raises(ValueError, match=r"Adam.update\(0\): grad has shape \(2,\)"):
        opt.update(0, ONES, ONES[:2], state)
    with pytest.raises(TypeError, match="slots must be AdamSlots"):
        opt.update(0, ONES, ONES, ())
    with pytest.raises(TypeError, match="got a tracer"):
        jax.jit(lambda weight: opt.update(0, weight, weight, state))(ONES)
    assert (opt.num_update, opt._index_update_count) == (0, {})
    opt.update(0, ONES, ONES, state)
    assert (opt.num_update, opt._index_update_count) == (1, {0: 1})


# Copies.


def test_goes_on_in_another_process() -> None:
    schedule = lr_scheduler.CosineScheduler(max_update=9, base_lr=0.5)
    opt = mxo.Adam(lr_scheduler=schedule, param_idx2name={0: "w_weight"})
    weight, state = opt.update(0, ONES, ONES, opt.create_state(0, ONES))
    data = pickle.dumps((opt, weight, state))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(one_more, (data,))
    assert_same(there, opt.update(0, weight, ONES, state)[0])
    assert "num_update=2" in repr(opt)


def one_more(data: bytes) -> Any:
    opt, weight, state = pickle.loads(data)
    return opt.update(0, weight, ONES, state)[0]


@pytest.mark.filterwarnings("ignore:.*lazy_update=True changes nothing:UserWarning")
@pytest.mark.parametrize("name", SIGNATURES)
def test_any_class_can_be_made_lazy_or_not(name: str) -> None:
    klass, default = getattr(mxo, name), getattr(mxopt, name).lazy_update
    assert klass().lazy_update == default
    assert klass(lazy_update=not default).definition.lazy_update != default


@pytest.mark.parametrize("opt", [mxo.SGD, lambda: mxopt.create(mxopt.EMA(mxopt.SGD()))])
def test_an_attribute_called_almost_as_a_hyperparameter_is_warned_of(opt):
    opt = opt()
    with pytest.warns(
        UserWarning, match=r"\.momentun is no hyperparameter; did you mean 'momentum'"
    ):
        opt.momentun = 0.9
    with pytest.warns(UserWarning, match=r"\.weight_decay is no .*; did you mean 'wd'\?"):
        opt.weight_decay = 0.1
    opt.note = "anything else"
    assert opt.note == "anything else"


@pytest.mark.parametrize(
    ("rate", "error"),
    [
        (-0.1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (jnp.float32(-0.1), ValueError),
        ("0.1", TypeError),
        (None, TypeError),
    ],
    ids=str,
)
def test_a_schedule_must_give_a_rate(rate, error):
    opt, w = mxo.SGD(lr_scheduler=lambda count: rate), jnp.ones(2)
    with pytest.raises(error, match=r"^SGD\.learning_rate: lr_scheduler must give a number"):
        opt.update(0, w, w, opt.create_state(0, w))
    assert opt.num_update == 0


# Declared hyperparameters.


class Halved(mxopt.Optimizer):
    """Half the rate of whatever definition it is around."""

    def _get_lr(self, index: Any) -> float:
        return 0.5 * super()._get_lr(index)


def test_an_optimizer_around_a_definition_declares_its_hyperparameters() -> None:
    opt = mxopt.Optimizer(mxopt.SGD(momentum=0.5))
    assert type(opt) is type(mxopt.create(mxopt.SGD()))
    assert type(opt).__name__ == "Optimizer"
    assert isinstance(vars(type(opt))["momentum"], type(vars(mxopt.Optimizer)["wd"]))
    assert "momentum" not in dir(mxopt.Optimizer(mxopt.Adam()))
    assert not hasattr(mxopt.Optimizer, "__getattr__")
    halved = Halved(mxopt.SGD(momentum=0.5), learning_rate=0.5)
    halved.momentum = 0.25
    for other in (halved, copy.copy(halved), copy.deepcopy(halved)):
        assert (type(other), other.momentum) == (type(halved), 0.25)
    again = pickle.loads(pickle.dumps(halved))
    assert isinstance(again, Halved)
    assert again.update(0, ONES, ONES, again.create_state(0, ONES))[0].tolist() == [0.75] * 3


def test_hyperparameters_of_wrappers_too_and_of_what_is_inside() -> None:
    opt = mxopt.Optimizer(mxopt.EMA(mxopt.Adam(), decay=0.5), wd=0.25)
    assert (opt.decay, opt.beta1, opt.wd) == (0.5, 0.9, 0.25)
    opt.decay, opt.beta1 = 0.75, 0.5
    assert opt.definition == mxopt.EMA(mxopt.Adam(beta1=0.5, wd=0.25), decay=0.75)
    assert pickle.loads(pickle.dumps(opt)).definition == opt.definition


def test_a_class_that_declares_no_hyperparameters_of_its_definition_says_so() -> None:
    class Mine(mxopt.Optimizer):
        def __init__(self) -> None:
            super().__init__(mxopt.SGD(momentum=0.5), learning_rate=0.5)

    opt: Any = Mine()
    assert opt.definition.momentum == 0.5
    with pytest.raises(AttributeError, match=r"Mine.momentum must be declared .*optimizer, or"):
        opt.momentum = 0.9
    opt.wd = 0.25
    assert opt.definition.wd == 0.25


def test_a_scheduler_that_is_taken_away_leaves_the_rate() -> None:
    opt = mxo.Adam(lr_scheduler=lr_scheduler.FactorScheduler(9, base_lr=0.5))
    opt.lr_scheduler = None
    assert opt.learning_rate == opt.definition.learning_rate == 0.001


@pytest.mark.parametrize("around", [lambda opt: opt, mxopt.EMA])
@pytest.mark.parametrize("call", ["update", "updater"])
def test_a_multiplier_by_name_warns_where_no_weight_has_a_name(around: Any, call: str) -> None:
    opt, w = mxopt.Optimizer(around(mxopt.SGD())), jnp.ones(2)
    opt.set_lr_mult({"fc_weight": 0.0})
    state, updater = opt.create_state(0, w), mxopt.get_updater(opt)

    def update(index: Any) -> None:
        if call == "updater":
            updater(index, w, w)
        else:
            opt.update(index, w, w, state)

    with pytest.warns(UserWarning, match=r"lr_mult\['fc_weight'\] is of no weight: index 0"):
        update(0)
    update(0)
    opt.set_lr_mult({"fc_weight": 0.0})
    update("fc_weight")


def test_a_multiplier_of_zero_freezes_or_warns(cls: Any) -> None:
    w, grad = jnp.full((4, 3), 0.5), jnp.ones((4, 3))
    opt = mxopt.Optimizer(cls())
    if cls is mxopt.Test:
        # On which nothing has an effect.
        return
    if cls is mxopt.AdaDelta:
        with pytest.warns(UserWarning, match=r"lr_mult\[0\] of 0 freezes nothing"):
            opt.set_lr_mult({0: 0.0})
        with pytest.warns(UserWarning, match=r"lr_mult\['a'\] of 0 freezes nothing"):
            cls(lr_mult={"a": 0.0})
        return
    opt.set_lr_mult({0: 0.0})
    new, state = w, opt.create_state(0, w)
    for _ in range(2):
        new, state = opt.update(0, new, grad, state)
    np.testing.assert_array_equal(new, w)
    opt.set_lr_mult({0: 1.0})
    assert jnp.all(jnp.isfinite(opt.update(0, new, grad, state)[0]))


def test_what_a_schedule_remembers_is_warned_of_when_states_are_loaded() -> None:
    class Counting:
        def __init__(self) -> None:
            self.calls = 0

        def __call__(self, num_update: int) -> float:
            self.calls += 1
            return 0.1

    w, updaters = jnp.ones(2), [mxopt.get_updater(mxopt.SGD(lr_scheduler=Counting())) for _ in "ab"]
    updaters[0](0, w, w)
    states = updaters[0].get_states(dump_optimizer=True)
    with pytest.warns(UserWarning, match="lr_scheduler.calls is 1 in the file and stays 0 here"):
        updaters[1].set_states(states)
    updaters[0].set_states(states)


def test_a_learning_rate_of_none_is_refused_when_it_is_set() -> None:
    trainer = mxopt.Trainer({"w": jnp.ones(2)}, "sgd", {"learning_rate": 0.1})
    with pytest.raises(TypeError, match=r"SGD.set_learning_rate: lr must be a number, got None"):
        trainer.set_learning_rate(None)
    assert trainer.learning_rate == 0.1
