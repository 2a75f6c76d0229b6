"""MXNet's files, part by part: bytes of arrays, lists of arrays, pickles, what they mean."""
