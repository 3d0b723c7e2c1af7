"""How the end of a program reads."""

import pytest

from pvcd.programs.runner import Result, _sentence


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (Result(2, b"", b"\n  no such pool\nmore"), "rbd failed with exit status 2: no such pool"),
        (Result(2, b"out", b""), "rbd failed with exit status 2."),
        (Result(-9, b"", b""), "rbd was killed by SIGKILL."),
        (Result(1, b"", b"\xff" * 1000), "rbd failed with exit status 1: " + "\ufffd" * 300),
    ],
)
def test_a_failure_names_the_program_its_end_and_the_first_line_of_its_stderr(result, sentence):
    assert _sentence("/usr/bin/rbd", result) == sentence
