"""The lanes in which tests run side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lanes import EACH, LANES, lane_of

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("part", [part for parts in LANES.values() for part in parts])
def test_what_a_lane_names_is_there(part: str) -> None:
    assert list(TESTS.glob(f"{part}*"))


def test_the_longest_name_counts() -> None:
    assert lane_of("tests/contract/test_mapping.py::test_x[a/b]") == "Ceph"
    assert lane_of("tests/contract/test_tree.py::test_x") == EACH
    assert lane_of("tests/integration/test_worker.py::test_x") == lane_of("tests/integration/test_workers.py::test_x")


def test_what_none_names_is_by_itself() -> None:
    assert lane_of("tests/new/test_x.py::test_y") == lane_of("test_x.py::test_y") == EACH
