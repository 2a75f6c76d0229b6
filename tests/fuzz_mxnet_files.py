"""Changes real files of MXNet: whatever comes out is read, or refused with a ValueError.

Bytes are mutated; and optimizers and states inside are changed and written as whole files again,
for what is made of them.

    python tests/fuzz_mxnet_files.py --seconds 600 [--seed N]

Says how many files were read and refused; a file that did anything else is kept, and fails it.
"""

import argparse
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxmxopt
from jaxmxopt._mxnet.pickle import write_pickle
from jaxmxopt._mxnet.record import MXNetRecord
from jaxmxopt._mxnet.states import read_states
from jaxmxopt._stateful.mxnet_optimizers import restored
from jaxmxopt._stateful.optimizer import Optimizer
from jaxmxopt.mxnet_files import load_params, load_states

FILES = Path(__file__).parent / "reference" / "files"
SLOWEST = 5.0
# What reading a file never does. Imports are left out: codecs are imported when first used.
FORBIDDEN = ("exec", "os.system", "os.exec", "os.fork", "subprocess.Popen", "pickle.find_class")
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
# Opcodes of pickles and numbers that structure the files, for splicing.
WORDS = [bytes([code]) for code in range(256)]
WORDS += [b"cos\nsystem\n", b"(S'true'\n", b"\x80\x04\x95", b"PK\x01\x02", b"\x93NUMPY"]
WORDS += [magic.to_bytes(4, "little") for magic in (0xF993FAC8, 0xF993FAC9, 0xF993FACA)]

# What may stand in the place of an attribute, or of a state.
VALUES: list[Any] = [None, True, 0, 1, -1, 50, 0.5, -0.5, 1e-300, 1e300, "", "x", "linear", (), []]
VALUES += [float("nan"), float("inf"), 2**31, -(2**62), [1], [3, 2], [1, "a"], {}, {0: 1}]
VALUES += [{"a": -1.0}, {0: {0: 1}}, {0: {"a": 2**40}}, {0: "w"}, {0: {"num_cums": 3}}]
VALUES += [{0: {"cum_grad": jnp.ones(3), "num_cums": 1.5}}, ({"a": {"b": "c"}}, ["a"])]
VALUES += [jnp.ones(shape, kind) for shape in ((1,), (3,), (4, 3)) for kind in ("f4", "f2", "i4")]
VALUES += [jaxmxopt.RowSparse(jnp.array([1]), jnp.ones((1, 3)), (4, 3))]
NAMES = ("Adam", "SGD", "RMSProp", "LARS", "State", "OptimizerDef", "Mine")

Load = Callable[[bytes], Any]
_watching = False


class Finding(NamedTuple):
    """A file that did something else, and what."""

    name: str
    data: bytes
    what: str


def corpus() -> list[tuple[str, bytes, Load]]:
    """The real files, and how each is read."""
    found: list[tuple[str, bytes, Load]] = []
    for path in sorted(FILES.glob("*/*")):
        if path.parent.name == "training":
            with np.load(path) as file:
                keys = [key for key in file if key.endswith(("/states", "/params"))]
                for key in keys:
                    load: Load = load_states if key.endswith("states") else load_params
                    found.append((f"{path.name}/{key}", file[key].tobytes(), load))
        elif path.stem != "expected":
            load = load_states if path.suffix == ".states" else load_params
            found.append((path.name, path.read_bytes(), load))
    return found


def mutated(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A file with a few changes."""
    content = bytearray(data)
    for _ in range(1 + int(rng.geometric(0.4))):
        size = len(content)
        at = int(rng.integers(size + 1))
        kind = int(rng.integers(9))
        if kind == 0 and at < size:
            content[at] ^= 1 << int(rng.integers(8))
        elif kind == 1 and at < size:
            content[at] = int(rng.integers(256))
        elif kind == 2:
            del content[at : at + int(rng.geometric(0.1))]
        elif kind == 3:
            content[at:at] = WORDS[int(rng.integers(len(WORDS)))]
        elif kind == 4:
            width = int(rng.choice([1, 2, 4, 8]))
            extreme = EXTREMES[int(rng.integers(len(EXTREMES)))] % 256**width
            content[at : at + width] = extreme.to_bytes(width, "little")
        elif kind == 5:
            start, length = int(rng.integers(size + 1)), int(rng.geometric(0.03))
            content[at:at] = content[start : start + length]
        elif kind == 6:
            start, length = int(rng.integers(len(other) + 1)), int(rng.geometric(0.02))
            content[at : at + length] = other[start : start + length]
        elif kind == 7 and at < size:
            word = WORDS[int(rng.integers(len(WORDS)))]
            content[at : at + len(word)] = word
        elif kind == 8 and rng.random() < 0.2:
            del content[at:]
    return bytes(content)


def changed(data: bytes, rng: np.random.Generator) -> bytes:
    """A `.states` file with other values at a few places."""

    def drawn(some: Any) -> Any:
        return some[int(rng.integers(len(some)))]

    def altered(record: MXNetRecord) -> MXNetRecord:
        attributes = dict(record.attributes)
        schedule = attributes.get("lr_scheduler")
        name = drawn(list(attributes))
        if schedule is not None and rng.random() < 0.4:
            attributes["lr_scheduler"] = altered(schedule)
        elif rng.random() < 0.1:
            del attributes[name]
        else:
            attributes[name] = drawn(VALUES)
        other = drawn(NAMES) if rng.random() < 0.1 else record.name
        return MXNetRecord(record.module, other, attributes)

    states, optimizer, _ = read_states(data)
    if rng.random() < 0.5:
        several = tuple(drawn(VALUES) for _ in range(int(rng.integers(4))))
        states = {**states, drawn(list(states)): drawn([*several, several, (several, *several)])}
    return write_pickle(states if optimizer is None else (states, altered(optimizer)))


def go_on(data: bytes) -> None:
    """Makes an optimizer and states of a file."""
    restored(read_states(data), Optimizer(jaxmxopt.SGD(momentum=0.9, multi_precision=True)))


def watch() -> None:
    """Makes what is forbidden an error while a file is read."""
    # What is imported when first needed is imported now.
    for _, data, load in corpus():
        load(data)
        if load is load_states:
            attempt(go_on, data)

    def hook(event: str, args: Any) -> None:
        if _watching and event in FORBIDDEN:
            raise AssertionError(f"{event}{args!r:.200}")

    sys.addaudithook(hook)


def attempt(load: Load, data: bytes) -> str:
    """Reads one file: `"read"`, `"refused"`, or what happened instead."""
    global _watching
    start = time.perf_counter()
    _watching = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load(data)
        outcome = "read"
    except ValueError as error:
        outcome = "refused" if type(error) is ValueError else repr(error)
    except BaseException:
        outcome = traceback.format_exc()
    finally:
        _watching = False
    seconds = time.perf_counter() - start
    return outcome if seconds < SLOWEST else f"took {seconds:.1f} s"


def fuzz(seconds: float, seed: int) -> tuple[Counter[str], list[Finding]]:
    """Mutates files for a while.

    Args:
        seconds: for how long.
        seed: of the mutations; the same seed gives the same files in the same order.

    Returns:
        How many were read and refused, and those that did anything else.
    """
    rng = np.random.default_rng(seed)
    files = corpus()
    outcomes: Counter[str] = Counter()
    findings: list[Finding] = []

    def note(name: str, data: bytes, load: Load) -> str:
        outcome = attempt(load, data)
        if outcome in ("read", "refused"):
            outcomes[outcome] += 1
        else:
            findings.append(Finding(name, data, outcome))
        return outcome

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        name, data, load = files[int(rng.integers(len(files)))]
        if load is load_states and rng.random() < 0.1:
            note(name, changed(data, rng), go_on)
            continue
        other = files[int(rng.integers(len(files)))][1]
        data = mutated(data, other, rng)
        # Some are read as what they are not.
        if rng.random() < 0.02:
            load = load_params if load is load_states else load_states
        if note(name, data, load) == "read" and load is load_states:
            note(name, data, go_on)
    return outcomes, findings


def main() -> int:
    """Mutates files for as long as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    watch()
    outcomes, findings = fuzz(arguments.seconds, arguments.seed)
    sys.stdout.write(f"{outcomes['read']} read, {outcomes['refused']} refused\n")
    for finding in findings:
        with tempfile.NamedTemporaryFile(prefix="finding-", delete=False) as file:
            file.write(finding.data)
        sys.stdout.write(f"{file.name} from {finding.name}:\n{finding.what}\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
