"""Notes in a simulated cluster: the API and the agents are real, the store and time are not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from click.testing import CliRunner

import pvcd_skeleton
from pvcd.testing import SimulatedCluster, conformance
from pvcd_skeleton.cli import command
from pvcd_skeleton.filters import comment
from pvcd_skeleton.selectors import figure


@pytest.fixture
async def cluster() -> AsyncIterator[SimulatedCluster]:
    """Two nodes."""
    async with SimulatedCluster(["hv1", "hv2"], [pvcd_skeleton]) as cluster:
        await cluster.advance(10)
        yield cluster


async def ask(cluster: SimulatedCluster, method: str, path: str, status: int = 200, /, **values: str) -> Any:
    reply = await cluster.request(method, f"/api/v1/{path}", **values)
    assert reply.status == status, reply.body
    return reply.json


async def test_a_node_reads_its_note(cluster: SimulatedCluster) -> None:
    await cluster.stop_agent("hv2")
    for node in ("hv1", "hv2"):
        await ask(cluster, "POST", f"skeleton/{node}", text="Hello")
    await cluster.advance(1)
    assert await ask(cluster, "GET", "skeleton") == [
        {"node": "hv1", "text": "Hello", "read": True},
        {"node": "hv2", "text": "Hello", "read": False},
    ]
    await cluster.start_agent("hv2")
    assert [note["read"] for note in await ask(cluster, "GET", "skeleton")] == [True, True]


async def test_a_note_can_be_erased(cluster: SimulatedCluster) -> None:
    await ask(cluster, "POST", "skeleton/hv1", text="Hello")
    await ask(cluster, "DELETE", "skeleton/hv1")
    assert await ask(cluster, "GET", "skeleton") == []
    assert (await ask(cluster, "DELETE", "skeleton/hv1", 510))["code"] == "note-not-found"
    assert (await ask(cluster, "POST", "skeleton/hv9", 510, text="Hello"))["code"] == "node-not-found"


async def test_a_task_writes_a_note_for_each_node_without_one(cluster: SimulatedCluster) -> None:
    await ask(cluster, "POST", "skeleton/hv1", text="Mine")
    task = await ask(cluster, "POST", "skeleton", text="Everybody")
    await cluster.finish_tasks()
    assert (await ask(cluster, "GET", f"skeleton/task/{task['id']}"))["state"] == "success"
    assert [note["text"] for note in await ask(cluster, "GET", "skeleton")] == ["Mine", "Everybody"]


async def test_an_unread_note_is_a_warning(cluster: SimulatedCluster) -> None:
    async def state() -> str:
        checks = (await ask(cluster, "GET", "health"))["checks"]
        return next(check["state"] for check in checks if check["name"] == "skeleton")

    await cluster.stop_agent("hv2")
    await ask(cluster, "POST", "skeleton/hv2", text="Hello")
    assert await state() == "warning"
    await cluster.start_agent("hv2")
    assert await state() == "ok"


async def test_a_node_without_a_note_is_preferred(cluster: SimulatedCluster) -> None:
    await ask(cluster, "POST", "skeleton/hv1", text="Hello")
    assert figure(cluster.api, "hv1") > figure(cluster.api, "hv2")


def test_a_comment_has_the_same_number_of_lines() -> None:
    assert comment("one\n\ntwo") == "# one\n#\n# two"
    assert CliRunner().invoke(command, ["Hello"]).stdout == "# Hello\n"


def test_it_keeps_the_rules() -> None:
    assert conformance.complaints(pvcd_skeleton) == []
