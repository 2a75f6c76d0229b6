"""The command line: look into files of states and weights, convert them, port, report a bug.

There are four commands::

    python -m jaxmxopt inspect FILE
    python -m jaxmxopt convert IN OUT
    python -m jaxmxopt port PROGRAM.py
    python -m jaxmxopt info
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence

from jaxmxopt._cli import convert as _convert
from jaxmxopt._cli import inspect as _inspect
from jaxmxopt._cli import port as _port
from jaxmxopt._cli.inspect import info
from jaxmxopt._core import __version__

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: those after the program's name; by default the process's.

    Returns:
        0 if all went well, 1 if a file cannot be read, is not what it should be, or is in the
        way; argparse exits with 2 where the call is wrong.
    """
    given = _parser().parse_args(arguments)
    try:
        for line in _lines(given):
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has enough, such as head. Python would complain when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        shown = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _failed(shown)
    except (ValueError, TypeError) as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def _lines(given: argparse.Namespace) -> Iterable[str]:
    """Run a command; return what is to be printed."""
    if given.command == "info":
        return info()
    if given.command == "inspect":
        return _inspect.lines(given.file)
    if given.command == "port":
        return _port.lines(given.file)
    done = _convert.convert(given.source, given.target, given.optimizer, given.force)
    return [_inspect.printable(done)]


def _failed(message: str) -> int:
    # A message may name what stands in a file.
    shown = "\n".join(map(_inspect.printable, message.splitlines()))
    print(f"jaxmxopt: {shown}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxmxopt",
        description="Look into files of optimizer states and weights, ours and MXNet's, and "
        "convert them. Nothing in a file is ever executed.",
    )
    parser.add_argument("--version", action="version", version=f"jaxmxopt {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    inspect = commands.add_parser(
        "inspect",
        help="print what a file holds",
        description="Print what kind of file it is, the optimizer in it, and of every array name, "
        "shape, dtype, norm, and how many elements are not finite.",
    )
    inspect.add_argument("file", metavar="FILE", help="ours (.npz), or MXNet's .states or .params")
    convert = commands.add_parser(
        "convert",
        help="make our file of one of MXNet's, or the other way round",
        description="Convert MXNet's .states and .params files into ours, and ours into MXNet's. "
        "Which way is told by IN.",
    )
    convert.add_argument("source", metavar="IN", help="the file to read")
    convert.add_argument("target", metavar="OUT", help="the file to write")
    convert.add_argument(
        "--optimizer",
        metavar="NAME[,KEY=NUMBER...]",
        help="of which optimizer the states are, where IN does not say: sgd,momentum=0.9",
    )
    convert.add_argument("--force", action="store_true", help="replace OUT if it exists")
    port = commands.add_parser(
        "port",
        help="list the lines of a program for MXNet that must change, and what to write",
        description="Read a program for MXNet as text, run nothing of it, and print the lines that "
        "must change, each with the advice of its row in docs/porting.md.",
    )
    port.add_argument("file", metavar="PROGRAM.py", help="in Python 3")
    commands.add_parser(
        "info",
        help="print the versions and devices here, for a report of a bug",
        description="Print the versions of jaxmxopt, jax, jaxlib, NumPy and Python, the devices, "
        "whether 64-bit types are on, and which of the extras are installed.",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
