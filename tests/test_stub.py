"""What editors and type checkers read of MXNet's classes is what the table makes."""

import stub_of_optimizers


def test_the_stub_is_that_of_the_table() -> None:
    assert stub_of_optimizers.STUB.read_text() == stub_of_optimizers.text(), (
        "run: PYTHONPATH=. python tests/stub_of_optimizers.py"
    )
