"""State that the tests of a module share: a change is a failure, and the next test finds it as it was."""

from __future__ import annotations

import pytest

from tests.kept import Kept


def test_a_test_that_changes_it_fails_and_the_next_gets_a_new_one() -> None:
    things: list[str] = []
    kept = Kept(lambda: things.append("web1"), things.clear, lambda: list(things))
    with kept.unchanged():
        assert things == ["web1"]
    with pytest.raises(AssertionError), kept.unchanged():
        things.append("db1")
    with kept.unchanged():
        assert things == ["web1"]
    kept.remove()
    assert things == []


def test_what_no_test_needed_is_not_removed() -> None:
    things = ["of another test"]
    Kept(things.clear, things.clear, lambda: list(things)).remove()
    assert things == ["of another test"]
