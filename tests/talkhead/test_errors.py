from __future__ import annotations

from talkhead.errors import MAX_ERROR_CHARS, PackageError, one_line


def test_errors_are_one_line_and_unexpected_ones_name_their_type() -> None:
    long = "x " * MAX_ERROR_CHARS
    assert one_line(PackageError(f"a.zip:\n  damaged {long}")) == f"a.zip: damaged {long}".strip()
    assert one_line(KeyError("x")) == "KeyError: 'x'"
    assert one_line(RuntimeError()) == "RuntimeError"
    line = one_line(RuntimeError(f"stack:\n{long}"))
    assert line.startswith("RuntimeError: stack: x x") and line.endswith("x ...")
    assert len(line) <= MAX_ERROR_CHARS + len("RuntimeError: ")
