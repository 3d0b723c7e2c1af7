"""The programs of Ceph: a request that is not finished in time is told from a Ceph that does not answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pvcd import TimedOut, programs
from pvcd.programs.runner import Result
from pvcd_plugins.ceph.cluster import CephUnavailable
from pvcd_plugins.ceph.cluster.programs import Programs


@pytest.mark.parametrize(
    ("program", "answers", "sentence"),
    [
        ("rbd", True, "Ceph did not finish within 30 s; it reports HEALTH_ERR 1 pool(s) full."),
        ("rbd", False, "Ceph did not answer within 30 s."),
        ("ceph", True, "Ceph did not answer within 30 s."),
    ],
)
async def test_a_timeout_names_its_cause(
    monkeypatch: pytest.MonkeyPatch, program: str, answers: bool, sentence: str
) -> None:
    async def run(argv: Sequence[str], **options: Any) -> Result:
        if argv[-1] == "health" and answers:
            return Result(0, b"HEALTH_ERR 1 pool(s) full\n", b"")
        raise TimedOut(f"{argv[0]} did not finish in time.")

    monkeypatch.setattr(programs, "run", run)
    with pytest.raises(CephUnavailable) as caught:
        await getattr(Programs("ceph.conf", "admin", 30.0), program)("status")
    assert caught.value.sentence == sentence
