"""The output of a script as lines, printable and limited."""

from __future__ import annotations

from pvcd_plugins.provisioner.installation.output import MAX_BYTES, MAX_LINE_CHARACTERS, MAX_LINES, Lines


def read(*chunks: bytes) -> list[str]:
    lines = Lines()
    return [line for chunk in chunks for line in lines.feed(chunk)] + lines.finish()


def test_chunks_are_joined_into_lines_and_the_last_needs_no_newline() -> None:
    assert read(b"on", b"e\ntw", b"o\n\nthr", b"ee") == ["one", "two", "", "three"]
    assert read(b"one\n") == ["one"]
    assert read() == []


def test_the_last_state_of_an_overwritten_line_is_kept() -> None:
    assert read(b"10 %\r20 %\r100 %\n", b"done\r\n") == ["100 %", "done"]


def test_colors_are_removed_and_unprintable_characters_are_marked() -> None:
    assert read(b"\x1b[1;31mred\x1b[0m\ta\xc3\xa4\n\x00\xff\x07\n") == ["red\taä", "\ufffd\ufffd\ufffd"]


def test_a_long_line_is_cut_regardless_of_its_chunks() -> None:
    assert read(*[b"x" * 1000] * 10_000, b"\nend") == ["x" * MAX_LINE_CHARACTERS, "end"]


def test_lines_beyond_the_limit_are_only_counted() -> None:
    lines = read(b"x\n" * (MAX_LINES + 5), b"y\n" * 2)
    assert lines[MAX_LINES - 1 :] == ["x", "7 more lines were dropped."]


def test_lines_beyond_the_byte_limit_are_only_counted() -> None:
    lines = read(*[b"x" * MAX_LINE_CHARACTERS + b"\n"] * (MAX_BYTES // MAX_LINE_CHARACTERS + 10))
    assert len(lines) == MAX_BYTES // MAX_LINE_CHARACTERS + 2
    assert lines[-1] == "9 more lines were dropped."
