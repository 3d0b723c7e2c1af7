"""The manual's fuzzy limit."""

from __future__ import annotations

import time

import pytest

from pvcd.errors import Invalid
from pvcd.http.matching import matcher

NAMES = ["hv1", "hv10", "web1", "WEB2", "a.b"]


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        (None, NAMES),
        ("", NAMES),
        ("hv", ["hv1", "hv10"]),
        ("^hv1$", ["hv1"]),
        ("1", ["hv1", "hv10", "web1"]),
        ("1$", ["hv1", "web1"]),
        ("(?i)web", ["web1", "WEB2"]),
        (r"a\.b", ["a.b"]),
        ("^(hv|web)1$", ["hv1", "web1"]),
        ("nothing", []),
    ],
)
def test_a_limit_matches_anywhere_unless_it_is_anchored(limit: str | None, found: list[str]) -> None:
    assert [name for name in NAMES if matcher(limit)((name,))] == found


@pytest.mark.parametrize("limit", ["(", "[a", "*", "a(?=b)", r"(a)\1", "a{1001}", "\\"])
def test_an_invalid_regular_expression_is_refused_with_its_reason(limit: str) -> None:
    with pytest.raises(Invalid, match=r"must be a regular expression; got .+") as refused:
        matcher(limit)
    assert repr(limit) in refused.value.sentence


@pytest.mark.parametrize(
    ("limit", "matched"),
    [("web", True), ("^7", True), ("^web1$", True), ("web17", False), ("1.7", False), ("^1", False)],
)
def test_one_of_several_names_must_match_alone(limit: str, matched: bool) -> None:
    assert matcher(limit)(["web1", "7ab"]) is matched


def test_a_long_limit_is_refused() -> None:
    matcher("a" * 256)
    with pytest.raises(Invalid, match="at most 256 characters; got 257"):
        matcher("a" * 257)


def test_a_limit_that_backtracks_elsewhere_is_fast() -> None:
    matches = matcher("^(a+)+$")
    begun = time.monotonic()
    assert not any(matches(["a" * 100 + "b"]) for _ in range(1000))
    assert time.monotonic() - begun < 1.0


def test_a_limit_that_would_need_much_memory_is_refused() -> None:
    with pytest.raises(Invalid):
        matcher("(((a{30}){30}){30})")
