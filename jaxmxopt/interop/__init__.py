"""optax, both ways: definitions as gradient transformations, and those as definitions."""

import importlib.util

if importlib.util.find_spec("optax") is None:
    raise ModuleNotFoundError(
        "jaxmxopt.interop needs optax, which is not installed: pip install optax", name="optax"
    )

from jaxmxopt.interop._as_optax import apply_updates as apply_updates
from jaxmxopt.interop._as_optax import as_optax as as_optax
from jaxmxopt.interop._from_optax import FromOptax as FromOptax
from jaxmxopt.interop._from_optax import from_optax as from_optax

__all__ = ["FromOptax", "apply_updates", "as_optax", "from_optax"]
