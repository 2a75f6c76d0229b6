"""Write the tables of docs/porting.md anew.

    python docs/write_porting.py

They are those that `python -m jaxmxopt port` takes its advice from: `jaxmxopt/_cli/porting.py`.
"""

import pathlib

import plan

from jaxmxopt._cli.porting import ROWS, table

PAGE = pathlib.Path(__file__).parent / "porting.md"


def written(text: str) -> str:
    """Return the page with its tables as they are to be."""
    return plan.written(text, {name: table(name) for name in ROWS})


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
