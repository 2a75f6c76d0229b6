"""The public names, their documentation, and which module may import which."""

import importlib
import inspect
import pathlib
import subprocess
import sys

import pytest

import jaxmxopt

PACKAGE = pathlib.Path(jaxmxopt.__file__).parent
ALGORITHMS = [
    "AdaBelief",
    "Adafactor",
    "AdaDelta",
    "AdaGrad",
    "Adam",
    "AdamW",
    "AdEMAMix",
    "Adamax",
    "BERTAdam",
    "DCASGD",
    "FTML",
    "Ftrl",
    "GroupAdaGrad",
    "LAMB",
    "LANS",
    "LARS",
    "LBSGD",
    "Lion",
    "Muon",
    "NAG",
    "Nadam",
    "RAdam",
    "RMSProp",
    "SGD",
    "SGLD",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "SOAP",
    "Signum",
    "Test",
    "ccSGD",
]
OTHERS = [
    "Accumulate",
    "Cautious",
    "ClipGlobalNorm",
    "EMA",
    "Groups",
    "Optimizer",
    "OptimizerDef",
    "Prodigy",
    "RowSparse",
    "State",
    "Trainer",
    "Updater",
    "averaged",
    "by_kind",
    "create",
    "get_updater",
    "value_and_row_grad",
]
# Imported on demand, or as part of something else.
MODULES = {
    "algorithm",
    "amp",
    "checkpoint",
    "interop",
    "lr_scheduler",
    "mxnet_files",
    "ops",
    "optimizer",
    "sharding",
}


def public(module):
    return {name for name in dir(module) if not name.startswith("_")}


def test_names_at_the_top():
    assert public(jaxmxopt) - MODULES == {*ALGORITHMS, *OTHERS}
    assert jaxmxopt.__version__.count(".") == 2


def test_modules():
    files = {path.stem for path in PACKAGE.glob("[a-z]*.py")}
    folders = {path.parent.name for path in PACKAGE.glob("[a-z]*/__init__.py")}
    assert files | folders == MODULES


def named():
    """Every public class and function, and the modules, by full name."""
    yield "jaxmxopt", jaxmxopt
    for name in [*ALGORITHMS, *OTHERS]:
        yield f"jaxmxopt.{name}", getattr(jaxmxopt, name)
    for module_name in sorted(MODULES - {"interop"}):
        module = importlib.import_module(f"jaxmxopt.{module_name}")
        yield module.__name__, module
        for name in sorted(getattr(module, "__all__", public(module))):
            yield f"{module.__name__}.{name}", getattr(module, name)


NAMED = dict(named())


@pytest.mark.parametrize("name", NAMED)
def test_every_public_name_is_documented(name):
    value = NAMED[name]
    assert inspect.getdoc(value)
    if not inspect.isclass(value):
        return
    assert "__doc__" in vars(value)
    for method, function in vars(value).items():
        if not method.startswith("_") and inspect.isfunction(function):
            assert inspect.getdoc(getattr(value, method)), f"{name}.{method}"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_signatures_are_whole_and_by_keyword(name):
    cls = getattr(jaxmxopt, name)
    parameters = inspect.signature(cls).parameters
    assert {"learning_rate", "lr_scheduler", "wd", "rescale_grad", "clip_gradient"} <= set(
        parameters
    )
    assert {kind.kind for kind in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert not any(default.default is inspect.Parameter.empty for default in parameters.values())
    assert cls.__module__.startswith("jaxmxopt._algorithms.")


def test_importing_needs_jax_and_numpy_alone():
    """And makes no array, so it starts no device."""
    program = (
        "import sys, jaxmxopt; from jax._src import xla_bridge; "
        "assert not xla_bridge.backends_are_initialized(); "
        "print(*{'optax', 'flax', 'orbax', 'torch', 'matplotlib', 'sklearn', 'tqdm', 'mxnet'}"
        " & {name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
