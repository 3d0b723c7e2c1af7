"""Notes in a simulated cluster: the API and the agents are real, the store and time are not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import pvcd_notes
from pvcd import Failed
from pvcd.sitehooks import SITE_HOOKS
from pvcd.sitehooks.fake import FakeHooks
from pvcd.testing import SimulatedCluster, conformance
from pvcd_notes.board import BOARD, FakeBoard, FileBoard
from pvcd_notes.cli import command
from pvcd_notes.filters import comment
from pvcd_notes.selectors import figure
from pvcd_plugins.node.service import report_of


@pytest.fixture
async def cluster() -> AsyncIterator[SimulatedCluster]:
    """Two nodes."""
    async with SimulatedCluster(["hv1", "hv2"], [pvcd_notes]) as cluster:
        await cluster.advance(10)
        yield cluster


async def ask(cluster: SimulatedCluster, method: str, path: str, status: int = 200, /, **values: str) -> Any:
    reply = await cluster.request(method, f"/api/v1/{path}", **values)
    assert reply.status == status, reply.body
    return reply.json


async def test_a_node_reads_its_note(cluster: SimulatedCluster) -> None:
    await cluster.stop_agent("hv2")
    for node in ("hv1", "hv2"):
        await ask(cluster, "POST", f"notes/{node}", text="Hello")
    await cluster.advance(1)
    assert await ask(cluster, "GET", "notes") == [
        {"node": "hv1", "text": "Hello", "hold": False, "read": True},
        {"node": "hv2", "text": "Hello", "hold": False, "read": False},
    ]
    await cluster.start_agent("hv2")
    assert [note["read"] for note in await ask(cluster, "GET", "notes")] == [True, True]


async def test_site_hooks_are_notified_when_a_node_reads_its_note() -> None:
    told: list[Any] = []
    hooks = FakeHooks({"notes-read.post": lambda document: told.append(document["arguments"])})
    async with SimulatedCluster(["hv1"], [pvcd_notes], {SITE_HOOKS: hooks.open}) as cluster:
        await ask(cluster, "POST", "notes/hv1", text="Hello")
        await cluster.advance(40)
    assert told == [{"node": "hv1", "text": "Hello"}]


async def test_a_node_shows_its_note_until_it_is_erased(cluster: SimulatedCluster) -> None:
    board = cluster.agents["hv1"][BOARD]
    await ask(cluster, "POST", "notes/hv1", text="Hello")
    await cluster.advance(1)
    assert await board.shown() == "Hello"
    await cluster.advance(10)
    assert report_of(cluster.api, "hv1").facts["notes"] == "Hello"
    await ask(cluster, "DELETE", "notes/hv1")
    await cluster.advance(1)
    assert await board.shown() is None


async def test_a_held_node_cannot_be_changed(cluster: SimulatedCluster) -> None:
    state = {"domain-state": "flush"}
    await ask(cluster, "POST", "notes/hv1", text="Fans.", hold="yes")
    refused = await ask(cluster, "POST", "node/hv1/domain-state", 510, **state)
    assert refused == {"message": "Cannot change node 'hv1': held by its note 'Fans.'.", "code": "node-held"}
    await ask(cluster, "POST", "node/hv2/domain-state", **state)


async def test_a_node_that_becomes_ready_loses_its_note(cluster: SimulatedCluster) -> None:
    await ask(cluster, "POST", "notes/hv1", text="Fans.")
    await ask(cluster, "POST", "node/hv1/domain-state", **{"domain-state": "ready"})
    assert await ask(cluster, "GET", "notes") == []


async def test_both_boards_show_a_text(tmp_path: Path) -> None:
    for board in (FakeBoard(), FileBoard(tmp_path / "motd.d" / "notes")):
        assert await board.shown() is None
        await board.show(None)
        await board.show("Hello")
        await board.show("Fans.")
        assert await board.shown() == "Fans."
        await board.show(None)
        assert await board.shown() is None


async def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "motd.d").write_text("in the way")
    with pytest.raises(Failed, match="Cannot write"):
        await FileBoard(tmp_path / "motd.d" / "notes").show("Hello")


async def test_a_note_can_be_erased(cluster: SimulatedCluster) -> None:
    await ask(cluster, "POST", "notes/hv1", text="Hello")
    await ask(cluster, "DELETE", "notes/hv1")
    assert await ask(cluster, "GET", "notes") == []
    assert (await ask(cluster, "DELETE", "notes/hv1", 510))["code"] == "note-not-found"
    assert (await ask(cluster, "POST", "notes/hv9", 510, text="Hello"))["code"] == "node-not-found"


async def test_a_task_writes_a_note_for_each_node_without_one(cluster: SimulatedCluster) -> None:
    await ask(cluster, "POST", "notes/hv1", text="Mine")
    task = await ask(cluster, "POST", "notes", text="Everybody")
    await cluster.finish_tasks()
    assert (await ask(cluster, "GET", f"notes/task/{task['id']}"))["state"] == "success"
    assert [note["text"] for note in await ask(cluster, "GET", "notes")] == ["Mine", "Everybody"]


async def test_an_unread_note_is_a_warning(cluster: SimulatedCluster) -> None:
    async def state() -> str:
        checks = (await ask(cluster, "GET", "health"))["checks"]
        return next(check["state"] for check in checks if check["name"] == "notes")

    await cluster.stop_agent("hv2")
    await ask(cluster, "POST", "notes/hv2", text="Hello")
    assert await state() == "warning"
    await cluster.start_agent("hv2")
    assert await state() == "ok"


async def test_a_node_without_a_note_is_preferred(cluster: SimulatedCluster) -> None:
    await ask(cluster, "POST", "notes/hv1", text="Hello")
    assert figure(cluster.api, "hv1") > figure(cluster.api, "hv2")


def test_a_comment_has_the_same_number_of_lines() -> None:
    assert comment("one\n\ntwo") == "# one\n#\n# two"
    assert CliRunner().invoke(command, ["Hello"]).stdout == "# Hello\n"


def test_it_keeps_the_rules() -> None:
    assert conformance.complaints(pvcd_notes) == []
