"""Schedulers of programs written for MXNet: subclasses whose objects change themselves."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmxopt as mxopt
from jaxmxopt import optimizer as mxo
from jaxmxopt._core.config import NonNegative
from jaxmxopt.lr_scheduler import (
    CosineScheduler,
    FactorScheduler,
    LRScheduler,
    MultiFactorScheduler,
    PolyScheduler,
)

ONES = np.ones(3, np.float32)


class Halving(LRScheduler):
    """Counts, and changes its rate, as it is called."""

    def __init__(self, step: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.step = step
        self.count = 0

    def __call__(self, num_update: Any) -> Any:
        while num_update > self.count + self.step:
            self.count += self.step
            self.base_lr *= 0.5
        return self.base_lr


class Doubled(FactorScheduler):
    """Without a constructor of its own: a value."""

    def __call__(self, num_update: Any) -> Any:
        return 2 * super().__call__(num_update)


class Own(CosineScheduler):
    pass


class Still(LRScheduler):
    power = 2
    steps: "OnlyForTypeCheckers"  # noqa: F821

    def __call__(self, num_update: Any) -> Any:
        return self.base_lr**self.power


class Short(LRScheduler):
    def __init__(self, base_lr: float = 0.1) -> None:
        super().__init__(base_lr)

    def __call__(self, num_update: Any) -> Any:
        return self.base_lr


class Inverse(LRScheduler):
    """Declares a field: a value."""

    power: NonNegative = 1.0

    def __call__(self, num_update: Any) -> Any:
        return self.base_lr * self.power


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Halving(2, base_lr=0.4), [0.4, 0.4, 0.2, 0.2, 0.1]),
        (Doubled(2, 0.5, 1e-8, 0.25), [0.5, 0.5, 0.25, 0.25, 0.125]),
        (Own(4, 1.0), [CosineScheduler(4, 1.0)(n) for n in range(1, 6)]),
        (Still(0.5), [0.25] * 5),
        (Short(0.5), [0.5] * 5),
    ],
    ids=lambda given: type(given).__name__,
)
def test_subclasses_run_as_they_do_in_mxnet(schedule: LRScheduler, rates: list[float]) -> None:
    fresh = copy.deepcopy(schedule)
    again = pickle.loads(pickle.dumps(schedule))
    opt = mxo.SGD(lr_scheduler=schedule)
    weight, found = ONES, []
    for _ in rates:
        weight, _ = opt.update(0, weight, 0 * ONES, ())
        found.append(opt.learning_rate)
    assert found == rates
    assert [fresh(n) for n in range(1, 6)] == [again(n) for n in range(1, 6)] == rates
    assert repr(again).startswith(f"{type(schedule).__name__}(")


@pytest.mark.parametrize("schedule", [Halving(2), Short(0.5)])
def test_one_with_a_constructor_of_its_own_is_an_ordinary_object(schedule: Any) -> None:
    other = copy.deepcopy(schedule)
    other.anything = 1
    del other.anything
    assert other != schedule
    assert len({other, schedule}) == 2
    assert jax.tree.leaves(other) == []


@pytest.mark.parametrize("schedule", [Doubled(2, 0.5), Own(4), Still(0.5)])
def test_one_without_is_a_value_of_the_fields_of_its_base(schedule: Any) -> None:
    assert schedule == pickle.loads(pickle.dumps(schedule)) != schedule.replace(base_lr=0.7)
    assert jax.tree.leaves(schedule)[0] == schedule.base_lr
    with pytest.raises(AttributeError, match="cannot be assigned"):
        schedule.base_lr = 1.0


class Wider(Inverse):
    """A subclass of one with fields."""


def test_fields_are_inherited() -> None:
    assert Wider(power=2.0, base_lr=0.5)(1) == 1.0
    assert Wider(power=2.0) == Wider(power=2.0)


@pytest.mark.parametrize(
    ("kind", "own", "remembered"),
    [
        (FactorScheduler, {"step": 3, "factor": 0.5}, {"count": 9}),
        (
            MultiFactorScheduler,
            {"step": [3, 8], "factor": 0.5},
            {"count": 8, "cur_step_ind": 2},
        ),
        (PolyScheduler, {"max_update": 9}, {"base_lr_orig": 0.4, "power": 2.0, "max_steps": 7}),
        (CosineScheduler, {"max_update": 9}, {"base_lr_orig": 0.4, "max_steps": 7}),
    ],
)
def test_objects_have_mxnets_attributes_and_remember(
    kind: Any, own: dict[str, Any], remembered: dict[str, Any]
) -> None:
    common = {"base_lr": 0.4, "warmup_steps": 2, "warmup_begin_lr": 0.1}

    class Mine(kind):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)

    value, one = kind(**own, **common), Mine(**own, **common)
    for n in range(13):
        # What a subclass reads or writes is the rate it is at.
        one.base_lr = one.base_lr
        assert one(n) == value(n)
    assert one.base_lr == value(12)
    assert {name: getattr(one, name) for name in remembered} == remembered
    assert one.warmup_final_lr == 0.4
    assert not hasattr(value, "warmup_final_lr")
    # Traced, it starts from where it started.
    np.testing.assert_allclose(one(jnp.int32(7)), value(jnp.int32(7)))
    if "max_steps" in remembered:
        one.max_steps = 14
        assert one(7) == kind(**{**own, "max_update": 16}, **common)(7)


def test_a_definition_takes_an_object_as_any_callable() -> None:
    opt = mxopt.SGD(lr_scheduler=Short(0.5))
    weight, _ = opt.update(0, ONES, ONES, opt.create_state(0, ONES))
    np.testing.assert_allclose(weight, 0.5)
    assert opt == mxopt.SGD(lr_scheduler=opt.lr_scheduler) != mxopt.SGD(lr_scheduler=Short(0.5))

    class Leaky(Short):
        def __call__(self, num_update: Any) -> Any:
            self.base_lr = self.base_lr * jnp.asarray(num_update, float)
            return self.base_lr

    leaky = mxopt.SGD(lr_scheduler=Leaky())
    with pytest.raises(TypeError, match=r"Leaky.base_lr must be a known value, got a tracer"):
        jax.jit(lambda s: leaky.update(0, ONES, ONES, s))(leaky.create_state(0, ONES))


def test_a_subclass_with_fields_is_a_value() -> None:
    schedule = Inverse(power=2.0, base_lr=1.0)
    assert schedule == Inverse(power=2.0, base_lr=1.0)
    assert jax.tree.leaves(schedule) == [1.0, 0.0, 2.0]
    assert float(jax.jit(lambda s: s(1))(schedule)) == 2.0


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda s: setattr(s, "base_lr", 1), r"base_lr cannot be assigned: .* replace\(base_lr="),
        (
            lambda s: setattr(s, "count", 1),
            "count cannot be assigned: .* with an __init__ of its own is",
        ),
        (lambda s: delattr(s, "step"), "step cannot be deleted: schedulers are immutable"),
    ],
)
def test_a_value_says_how_to_change_it(write: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(AttributeError, match=f"FactorScheduler.{message}"):
        write(FactorScheduler(2))


# A learning rate beside a scheduler.


class Foreign:
    """No LRScheduler, but of its form."""

    def __init__(self, base_lr: float) -> None:
        self.base_lr = base_lr

    def __call__(self, num_update: Any) -> Any:
        return self.base_lr / max(num_update, 1)


@pytest.mark.parametrize(
    "schedule", [Foreign(0.3), Short(0.3), Own(9, 0.3), FactorScheduler(9, base_lr=0.3)]
)
def test_a_given_rate_overrides_and_the_warning_is_at_the_users_line(schedule: Any) -> None:
    makers: list[Callable[[], Any]] = [
        lambda: mxo.SGD(lr_scheduler=copy.copy(schedule), learning_rate=0.9),
        lambda: mxopt.create("sgd", lr_scheduler=copy.copy(schedule), learning_rate=0.9),
        lambda: mxopt.create(mxopt.SGD(), lr_scheduler=copy.copy(schedule), learning_rate=0.9),
        lambda: mxopt.Optimizer(mxopt.SGD(lr_scheduler=copy.copy(schedule)), learning_rate=0.9),
    ]
    for make in makers:
        with pytest.warns(UserWarning, match="learning_rate=0.9 overrides base_lr=0.3") as seen:
            opt = make()
        assert [warning.filename for warning in seen] == [__file__]
        assert opt.lr_scheduler.base_lr == opt.lr == 0.9
        assert opt.learning_rate == 0.9


@pytest.mark.parametrize("schedule", [Halving(2), FactorScheduler(9), Own(9).replace(final_lr=0)])
def test_a_default_base_lr_gives_way_without_a_word(schedule: Any) -> None:
    opt = mxo.SGD(lr_scheduler=schedule, learning_rate=0.9)
    assert opt.lr_scheduler.base_lr == 0.9
    assert (opt.lr_scheduler is schedule) == isinstance(schedule, Halving)


def test_what_a_definition_holds_is_not_written_to() -> None:
    definition = mxopt.SGD(lr_scheduler=Short(0.3))
    with pytest.warns(UserWarning, match="overrides base_lr=0.3"):
        opt = mxopt.Optimizer(definition, learning_rate=0.9)
    assert (opt.learning_rate, definition.lr_scheduler(1)) == (0.9, 0.3)


class Sealed(Foreign):
    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            raise AttributeError("sealed")
        super().__setattr__(name, value)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"lr_scheduler": FactorScheduler}, TypeError, "an instance, got the class FactorSched"),
        ({"lr_scheduler": 0.5}, TypeError, "lr_scheduler must be callable, got 0.5"),
        ({"lr_scheduler": abs, "learning_rate": 0.9}, ValueError, "which has no base_lr"),
        (
            {"lr_scheduler": Sealed(0.5), "learning_rate": 0.9},
            ValueError,
            r"whose base_lr cannot be set \(sealed\); give one",
        ),
    ],
)
def test_what_is_no_scheduler_or_cannot_be_overridden_is_refused(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"SGD: .*{message}"):
        mxo.SGD(**given)
    if "learning_rate" not in given:
        with pytest.raises(error, match=message):
            mxo.SGD().lr_scheduler = given["lr_scheduler"]


def test_a_refused_optimizer_leaves_the_scheduler_as_it_is() -> None:
    schedule = Foreign(0.3)
    with pytest.raises(ValueError, match="wd must be in"):
        mxo.SGD(lr_scheduler=schedule, learning_rate=0.9, wd=-1.0)
    assert schedule.base_lr == 0.3


def test_a_file_tells_an_objects_class_alone() -> None:
    updater = mxopt.get_updater(mxo.SGD(lr_scheduler=Halving(1, base_lr=0.5)))
    weight = updater(0, ONES, updater(0, ONES, ONES))
    kept = updater.get_states(dump_optimizer=True)
    other = mxopt.get_updater(mxo.SGD(lr_scheduler=Halving(1, base_lr=0.5)))
    schedule = other.optimizer.lr_scheduler
    with pytest.warns(UserWarning, match="base_lr is 0.25 in the file and stays 0.5 here"):
        other.set_states(kept)
    assert other.optimizer.lr_scheduler is schedule
    np.testing.assert_array_equal(other(0, ONES, weight), updater(0, ONES, weight))
    changed = mxopt.get_updater(mxo.SGD(lr_scheduler=abs))
    changed.set_states(kept)
    assert changed.optimizer.lr_scheduler is abs
    with pytest.raises(ValueError, match="Halving, which a file cannot hold; give it again"):
        mxopt.get_updater("sgd").set_states(kept)
