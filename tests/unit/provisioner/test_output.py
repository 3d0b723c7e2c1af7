"""What a script writes becomes lines, whole ones, shown ones, and not too many."""

from __future__ import annotations

from pvcd_plugins.provisioner.installation.output import MAX_BYTES, MAX_LINE_CHARACTERS, MAX_LINES, Lines


def read(*chunks: bytes) -> list[str]:
    lines = Lines()
    return [line for chunk in chunks for line in lines.feed(chunk)] + lines.finish()


def test_lines_are_put_together_from_pieces_and_the_last_one_needs_no_end() -> None:
    assert read(b"on", b"e\ntw", b"o\n\nthr", b"ee") == ["one", "two", "", "three"]
    assert read(b"one\n") == ["one"]
    assert read() == []


def test_of_what_is_written_over_the_last_state_is_kept() -> None:
    assert read(b"10 %\r20 %\r100 %\n", b"done\r\n") == ["100 %", "done"]


def test_colours_are_left_out_and_what_cannot_be_shown_is_marked() -> None:
    assert read(b"\x1b[1;31mred\x1b[0m\ta\xc3\xa4\n\x00\xff\x07\n") == ["red\taä", "\ufffd\ufffd\ufffd"]


def test_a_line_is_cut_whatever_its_pieces_are() -> None:
    assert read(*[b"x" * 1000] * 10_000, b"\nend") == ["x" * MAX_LINE_CHARACTERS, "end"]


def test_beyond_the_bound_lines_are_counted_only() -> None:
    lines = read(b"x\n" * (MAX_LINES + 5), b"y\n" * 2)
    assert lines[MAX_LINES - 1 :] == ["x", "7 more lines were dropped."]


def test_beyond_as_many_bytes_as_well() -> None:
    lines = read(*[b"x" * MAX_LINE_CHARACTERS + b"\n"] * (MAX_BYTES // MAX_LINE_CHARACTERS + 10))
    assert len(lines) == MAX_BYTES // MAX_LINE_CHARACTERS + 2
    assert lines[-1] == "9 more lines were dropped."
