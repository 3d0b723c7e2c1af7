"""An OSD that holds back requests, by its own list of those in flight, in the form that Ceph 16 gives it."""

from __future__ import annotations

from typing import Any

import pytest

from pvcd_plugins.sandbox.ceph import lets_requests_wait


def in_flight(*events: str) -> dict[str, Any]:
    """An OSD's answer with one request that has come so far."""
    request = {"age": 31.0, "type_data": {"flag_point": "delayed", "events": [{"event": event} for event in events]}}
    return {"ops": [request], "num_ops": 1}


@pytest.mark.parametrize(
    ("answer", "waits"),
    [
        ({}, False),
        ({"ops": [], "num_ops": 0}, False),
        (in_flight("initiated", "queued_for_pg", "reached_pg", "waiting for readable"), True),
        (in_flight("reached_pg", "waiting for readable", "reached_pg", "started"), False),
        (in_flight("reached_pg", "waiting for active"), False),
    ],
)
def test_an_osd_that_waits_for_a_read_lease_is_seen(answer: dict[str, Any], waits: bool) -> None:
    assert lets_requests_wait(answer) is waits
