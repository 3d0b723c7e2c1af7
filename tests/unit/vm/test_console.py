"""The last lines of a console log and its rotated file."""

from pathlib import Path

import pytest

from pvcd_plugins.vm.console import read_console


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "vm.log"


def before(log: Path) -> Path:
    return Path(f"{log}.0")


def test_a_missing_log_has_no_lines(log: Path) -> None:
    assert read_console(log, 10) == []


def test_an_empty_log_has_no_lines(log: Path) -> None:
    log.touch()
    assert read_console(log, 10) == []


def test_the_last_lines_are_read(log: Path) -> None:
    log.write_bytes(b"one\r\ntwo\r\n\r\nthree\r\n")
    assert read_console(log, 2) == ["", "three"]
    assert read_console(log, 10) == ["one", "two", "", "three"]
    assert read_console(log, 0) == []


def test_a_line_that_is_being_written_is_the_last(log: Path) -> None:
    log.write_bytes(b"one\nlogin: ")
    assert read_console(log, 10) == ["one", "login: "]


def test_bytes_that_are_not_text_are_replaced(log: Path) -> None:
    log.write_bytes(b"caf\xff\n")
    assert read_console(log, 1) == ["caf\ufffd"]


def test_the_rotated_file_is_read_too_and_a_line_across_both_is_whole(log: Path) -> None:
    before(log).write_bytes(b"one\ntw")
    log.write_bytes(b"o\nthree\n")
    assert read_console(log, 10) == ["one", "two", "three"]


def test_a_log_that_was_just_rotated_is_still_read(log: Path) -> None:
    before(log).write_bytes(b"one\n")
    assert read_console(log, 10) == ["one"]


def test_a_file_that_is_rotated_while_it_is_read_is_not_read_twice(log: Path) -> None:
    log.write_bytes(b"one\n")
    before(log).hardlink_to(log)
    assert read_console(log, 10) == ["one"]


def test_no_more_than_the_limit_is_read_and_a_cut_line_is_left_out(log: Path) -> None:
    before(log).write_bytes(b"0123456789\n" * 10)
    log.write_bytes(b"abcdefghi\n" * 10)
    assert read_console(log, 100, limit=55) == ["abcdefghi"] * 5
    assert read_console(log, 100, limit=115) == ["0123456789", *["abcdefghi"] * 10]


def test_a_single_line_beyond_the_limit_is_shown_by_its_end(log: Path) -> None:
    log.write_bytes(b"x" * 1000)
    assert read_console(log, 10, limit=8) == ["x" * 8]
