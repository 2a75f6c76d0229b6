"""Trains a flax linen module in bfloat16 with `TrainState`, and float32 masters.

    python examples/flax_linen.py          # a few seconds; --quick for a taste

`TrainState` adds updates to weights. Four lines make it take the masters, rounded, instead: then no
update is too small for bfloat16.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

import jaxmxopt as mxopt
from jaxmxopt.interop import apply_updates, as_optax

BATCH = 128


class Network(nn.Module):
    """Two dense layers, in bfloat16 throughout."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the logits of a batch of images, in float32."""
        half = {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16}
        x = nn.relu(nn.Dense(128, **half)(images))
        return nn.Dense(10, **half)(x).astype(jnp.float32)


class ExactTrainState(TrainState):
    """A `TrainState` whose weights are their masters, rounded."""

    def apply_gradients(self, *, grads: Any, **kwargs: Any) -> "ExactTrainState":
        """One update of weights and states."""
        updates, opt_state = self.tx.update(grads, self.opt_state, self.params)
        params = apply_updates(self.params, updates, opt_state)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **kwargs)


@jax.jit
def train_step(
    state: TrainState, images: jax.Array, labels: jax.Array
) -> tuple[TrainState, jax.Array]:
    """One update; returns the new state and the loss."""

    def loss_of(params: Any) -> jax.Array:
        logits = state.apply_fn({"params": params}, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    loss, grads = jax.value_and_grad(loss_of)(state.params)
    return state.apply_gradients(grads=grads), loss


def main(arguments: list[str] | None = None) -> float:
    """Trains; returns the held-out accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 steps only")
    steps = 100 if parser.parse_args(arguments).quick else 600

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = (images[order] / 16).astype(np.float32), labels[order]

    network = Network()
    params = network.init(jax.random.key(0), images[:1])["params"]
    opt = mxopt.Adam(learning_rate=2e-3, wd=1e-4, wd_mult={"*/bias": 0}, multi_precision=True)
    # optax's own transformations go before it, as anywhere.
    tx = optax.chain(optax.clip_by_global_norm(1.0), as_optax(opt))
    state = ExactTrainState.create(apply_fn=network.apply, params=params, tx=tx)

    draw = np.random.default_rng(1)
    for step in range(steps):
        batch = draw.integers(0, 1440, BATCH)
        state, loss = train_step(state, images[batch], labels[batch])
        if step % 50 == 49:
            print(f"step {step + 1}: loss {loss:.4f}")

    kinds = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(state.params)})
    print(f"weights in {', '.join(kinds)}")
    logits = state.apply_fn({"params": state.params}, images[1440:])
    accuracy = float(jnp.mean(jnp.argmax(logits, axis=1) == labels[1440:]))
    print(f"held out: {accuracy:.2%}")
    return accuracy


if __name__ == "__main__":
    main()
