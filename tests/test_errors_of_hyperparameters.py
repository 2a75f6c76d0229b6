"""Wrong hyperparameters: refused when a definition is made, by a message with name and value."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from samples import make

import jaxmxopt as mxopt
from jaxmxopt.lr_scheduler import CosineScheduler


def says(text):
    return re.escape(text)


def numbers(cls):
    described = cls._described.items()
    return {
        name: field for name, field in described if field.interval is not None and not field.kind
    }


def counts(cls):
    described = cls._described.items()
    return {name: field for name, field in described if field.interval is not None and field.kind}


def wrong_values(interval):
    """Numbers below, at an open end of, and above a range, and what is in none."""
    yield from (float("nan"), float("inf"), float("-inf"))
    for end, is_open, outward in (
        (interval.low, interval.low_open, -np.inf),
        (interval.high, interval.high_open, np.inf),
    ):
        if np.isfinite(end):
            yield float(np.nextafter(end, outward))
            yield end + np.sign(outward)
            if is_open:
                yield end


def right_values(interval):
    for end, is_open, inward in (
        (interval.low, interval.low_open, np.inf),
        (interval.high, interval.high_open, -np.inf),
    ):
        if np.isfinite(end):
            yield float(np.nextafter(end, inward)) if is_open else end


def test_numbers_out_of_range_are_refused(cls):
    for name, field in numbers(cls).items():
        for value in wrong_values(field.interval):
            message = f"{cls.__name__}: {name} must be in {field.interval}, got {value!r}."
            with pytest.raises(ValueError, match=says(message)):
                cls(**{name: value})
            with pytest.raises(ValueError, match=says(message)):
                cls().replace(**{name: value})


def test_counts_out_of_range_are_refused(cls):
    for name, field in counts(cls).items():
        low, high = field.interval.low, field.interval.high
        for value in (low - 1, -(2**40), *([high + 1] if np.isfinite(high) else [])):
            message = f"{cls.__name__}: {name} must be in {field.interval}, got {int(value)!r}."
            with pytest.raises(ValueError, match=says(message)):
                make(cls, **{name: int(value)})
        assert getattr(make(cls, **{name: int(low)}), name) == low
        for value in ("1", True, 1.0, float("nan"), None):
            message = f"{cls.__name__}: {name} must be of type int, got {value!r}."
            with pytest.raises(TypeError, match=says(message)):
                make(cls, **{name: value})


def test_a_choice_names_the_others_and_the_nearest():
    message = (
        "LBSGD: warmup_strategy must be one of 'linear', 'power2', 'sqrt', 'lars', got 'linea'"
    )
    with pytest.raises(ValueError, match=says(message) + ".*did you mean 'linear'"):
        mxopt.LBSGD(warmup_strategy="linea")


def test_numbers_at_the_ends_of_their_range_are_taken(cls):
    for name, field in numbers(cls).items():
        for value in right_values(field.interval):
            assert getattr(make(cls, **{name: value}), name) == value


@pytest.mark.parametrize("value", ["0.1", True, np.bool_(False), 1j, [0.1], {}], ids=repr)
def test_what_is_no_number_is_refused(cls, value):
    for name in numbers(cls):
        message = f"{cls.__name__}: {name} must be a real number, got {value!r}."
        with pytest.raises(TypeError, match=says(message)):
            cls(**{name: value})


def test_none_is_refused_where_a_number_is_needed(cls):
    for name, field in numbers(cls).items():
        if not field.optional:
            with pytest.raises(TypeError, match=f"{cls.__name__}: {name} must be a real number"):
                cls(**{name: None})


def test_static_values_of_another_kind_are_refused(cls):
    wrong = {int: 1.5, bool: 1, str: 3}
    for name, field in cls._described.items():
        if field.kind in wrong:
            with pytest.raises(TypeError, match=f"{cls.__name__}: {name} must be of type"):
                cls(**{name: wrong[field.kind]})


def test_unknown_arguments_name_the_nearest(cls):
    message = (
        f"{cls.__name__}() got an unknown argument 'learning_rat'; did you mean 'learning_rate'?"
    )
    with pytest.raises(TypeError, match=says(message)):
        cls(learning_rat=0.1)
    with pytest.raises(TypeError, match="did you mean 'rescale_grad'"):
        cls().replace(rescale_gard=0.1)
    with pytest.raises(TypeError, match=r"by name, such as learning_rate=\.\.\., got 0\.1"):
        cls(0.1)


@pytest.mark.parametrize("count", [-1, 2**31, 2**40])
def test_a_count_that_does_not_fit_is_refused(count):
    with pytest.raises(ValueError, match=rf"SGD: begin_num_update must be in .*got {count}\."):
        mxopt.SGD(begin_num_update=count)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"lr_scheduler": 0.1}, TypeError, "SGD: lr_scheduler must be callable, got 0.1."),
        (
            {"lr_scheduler": CosineScheduler},
            TypeError,
            "SGD: lr_scheduler must be an instance, got the class CosineScheduler; call it.",
        ),
        (
            {"learning_rate": abs},
            TypeError,
            "SGD: learning_rate must be a real number, got <built-in function abs>; lr_scheduler",
        ),
        ({"lr_mult": [1]}, TypeError, "SGD: lr_mult must be a mapping, got [1]."),
        ({"lr_mult": {"a": "1"}}, TypeError, "SGD: lr_mult['a'] must be a real number, got '1'."),
        ({"wd_mult": {0: np.nan}}, ValueError, "SGD: wd_mult[0] must be in (-inf, inf), got nan."),
        ({"wd_mult": {0: True}}, TypeError, "SGD: wd_mult[0] must be a real number, got True."),
        ({"wd_mult": {0: np.array(1j)}}, TypeError, "SGD: wd_mult[0] must be a real number, got"),
        ({"lr_mult": {0: jnp.array(1j)}}, TypeError, "SGD: lr_mult[0] must be a real number, got"),
        ({"lr_mult": {0: np.array(np.inf)}}, ValueError, "SGD: lr_mult[0] must be in (-inf, inf),"),
        ({"wd": np.array(-1.0)}, ValueError, "SGD: wd must be in [0, inf), got -1.0."),
        ({"momentum": np.array([0, 1])}, ValueError, "SGD: momentum must be in [0, 1), got 1.0."),
        ({"wd": np.array([0.1, np.nan])}, ValueError, "SGD: wd must be in [0, inf), got nan."),
        ({"wd": np.array("a")}, TypeError, "SGD: wd must be a real number, got dtype <U1."),
        ({"param_idx2name": ["w"]}, TypeError, "SGD: param_idx2name must be a mapping"),
        ({"param_idx2name": {0: 5}}, TypeError, "SGD: param_idx2name[0] must be a string, got 5."),
        (
            {"lr_scheduler": abs, "learning_rate": 0.1},
            ValueError,
            "SGD: learning_rate=0.1 cannot override <built-in function abs>",
        ),
    ],
)
def test_other_hyperparameters_of_the_base(changes, error, message):
    with pytest.raises(error, match=says(message)):
        mxopt.SGD(**changes)


def test_a_rate_beside_a_schedule_warns_and_overrides():
    with pytest.warns(
        UserWarning, match=r"SGD: learning_rate=0\.5 overrides base_lr=0\.1 of"
    ) as seen:
        opt = mxopt.SGD(learning_rate=0.5, lr_scheduler=CosineScheduler(9, base_lr=0.1))
    assert opt.lr_scheduler.base_lr == 0.5
    assert seen[0].filename == __file__


def test_the_base_is_abstract():
    with pytest.raises(TypeError, match="OptimizerDef is abstract: make one of its subclasses"):
        mxopt.OptimizerDef()


def test_a_field_needs_an_annotation():
    with pytest.raises(TypeError, match=r"Mine\.speed needs an annotation to be a field"):
        type("Mine", (mxopt.OptimizerDef,), {"speed": 0.1})
