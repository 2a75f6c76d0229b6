"""One file an algorithm: its mathematics and its documentation."""
