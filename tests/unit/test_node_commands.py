"""NodeCommands: a command is run at most once, and the asker gets one clear answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from pvcd import Context, Create, Delete, Handlers
from pvcd.clock import settle
from pvcd.cluster.dispatcher import MAX_RECONCILES
from pvcd.cluster.lease import assign_primary
from pvcd.cluster.node_commands import GRACE_SECONDS, NodeCommand, NodeCommandResult, forget
from pvcd.errors import Failed, NotFound, StoreUnavailable, TimedOut
from pvcd.plugin.loading import Plugin
from pvcd.plugin.registry import collect
from pvcd.process import ProcessIdentity
from pvcd.store import Change
from pvcd.store.memory import MemoryTree
from pvcd.store.tree import MAX_DOCUMENT_BYTES
from pvcd.testing import SimulatedCluster

from .conftest import Thing, plugin

LEASE_LOST = "Cannot run 'lead' on node '{}': it lost the primary lease meanwhile."


class Node:
    """The answers of the nodes, and the questions to them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.gates: dict[int, asyncio.Event] = {}
        node, primary = Handlers(), Handlers(scope="primary")
        node.node_command("double")(self.double)
        node.node_command("fail")(self.fail)
        node.node_command("give")(self.give)
        primary.node_command("lead")(self.lead)
        self.tables = [node, primary]

    async def double(self, context: Context, number: int) -> int:
        self.asked.append((context.node, number))
        if number in self.gates:
            await self.gates[number].wait()
        return 2 * number

    async def fail(self, context: Context, how: str) -> None:
        raise NotFound("thing", how) if how == "refused" else RuntimeError(how)

    async def give(self, context: Context, what: str) -> object:
        values: dict[str, object] = {
            "object": object(),
            "large": "x" * (MAX_DOCUMENT_BYTES + 1),
            "uuid": UUID(int=1),
            "nothing": None,
            "deep": {"a": [1, {"b": None}]},
        }
        return values[what]

    async def lead(self, context: Context, lose: bool = False, number: int = 0) -> str:
        self.asked.append((context.node, "lead"))
        if number in self.gates:
            await self.gates[number].wait()
        if lose:
            await assign_primary(context.store, "hv2")
        await context.store.write(Create(Thing(name="led")))
        return context.node


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
async def cluster(node: Node) -> AsyncIterator[SimulatedCluster]:
    module = plugin(records=[Thing], handlers=node.tables)
    async with SimulatedCluster(["hv1", "hv2"], plugins=[module], without=["node", "vm"]) as cluster:
        yield cluster


def ask(cluster: SimulatedCluster, node: str, verb: str, **arguments: Any) -> asyncio.Future[Any]:
    return asyncio.ensure_future(cluster.api.node_commands.ask(node, verb, **arguments))


def left(cluster: SimulatedCluster) -> list[str]:
    return [path for path in cluster.server.documents if path.startswith("/node-commands/hv1/")]


async def test_answer_comes_from_the_asked_node(cluster: SimulatedCluster, node: Node) -> None:
    asking = ask(cluster, "hv2", "double", number=21)
    await settle()
    assert asking.done()
    assert asking.result() == 42
    assert node.asked == [("hv2", 21)]
    await settle()
    assert [path for path in cluster.server.documents if path.startswith("/node-commands/hv2/")] == []


@pytest.mark.parametrize(
    ("what", "answer"), [("uuid", str(UUID(int=1))), ("nothing", None), ("deep", {"a": [1, {"b": None}]})]
)
async def test_answer_may_be_any_json(cluster: SimulatedCluster, what: str, answer: Any) -> None:
    asking = ask(cluster, "hv1", "give", what=what)
    await settle()
    assert asking.result() == answer


async def test_refusal_is_passed_on_with_its_code(cluster: SimulatedCluster) -> None:
    asking = ask(cluster, "hv1", "fail", how="refused")
    await settle()
    error = asking.exception()
    assert isinstance(error, Failed)
    assert error.status == NotFound.status
    assert (error.sentence, error.code) == ("There is no thing 'refused'.", "thing-not-found")


async def test_internal_error_of_the_node_is_reported_without_details(
    cluster: SimulatedCluster, caplog: pytest.LogCaptureFixture
) -> None:
    asking = ask(cluster, "hv1", "fail", how="division by zero")
    await settle()
    error = asking.exception()
    assert isinstance(error, Failed)
    assert (error.sentence, error.code) == (
        "Cannot run 'fail' on node 'hv1': internal error. See the log of its agent.",
        "internal-error",
    )
    assert "RuntimeError: division by zero" in caplog.text


async def test_answer_that_is_not_json_is_an_internal_error(cluster: SimulatedCluster) -> None:
    asking = ask(cluster, "hv1", "give", what="object")
    await settle()
    error = asking.exception()
    assert isinstance(error, Failed)
    assert error.code == "internal-error"


async def test_too_large_answer_is_reported(cluster: SimulatedCluster) -> None:
    asking = ask(cluster, "hv1", "give", what="large")
    await settle()
    error = asking.exception()
    assert isinstance(error, Failed)
    assert "must have at most" in error.sentence
    await settle()
    assert left(cluster) == []


async def test_undeclared_verb_is_a_lookup_error(cluster: SimulatedCluster) -> None:
    with pytest.raises(LookupError, match="no plugin declares the node command 'tripel'"):
        await cluster.api.node_commands.ask("hv1", "tripel")


async def test_verb_unknown_to_the_node_is_reported(cluster: SimulatedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = cluster.agents["hv1"]
    monkeypatch.setattr(type(agent), "declared", lambda *_: ())
    asking = ask(cluster, "hv1", "double", number=1)
    await settle()
    error = asking.exception()
    assert isinstance(error, Failed)
    assert (error.sentence, error.code) == (
        "Cannot run 'double' on node 'hv1': no plugin of the node declares this command.",
        "command-unknown",
    )


async def test_wrong_arguments_are_an_internal_error(cluster: SimulatedCluster) -> None:
    asking = ask(cluster, "hv1", "double", nmber=1)
    await settle()
    error = asking.exception()
    assert isinstance(error, Failed)
    assert error.code == "internal-error"


@pytest.mark.parametrize("name", ["hv9", "hv1"])
async def test_absent_node_is_reported_at_once(cluster: SimulatedCluster, name: str) -> None:
    await cluster.kill_agent("hv1")
    with pytest.raises(Failed, match=f"Cannot run 'double' on node '{name}': the node is not running") as failed:
        await cluster.api.node_commands.ask(name, "double", number=1)
    assert failed.value.code == "node-not-running"
    assert left(cluster) == []


async def test_node_that_stops_meanwhile_is_reported_at_once(cluster: SimulatedCluster, node: Node) -> None:
    node.gates[1] = asyncio.Event()
    asking = ask(cluster, "hv1", "double", number=1, seconds=1000)
    await settle()
    assert node.asked == [("hv1", 1)]
    await cluster.kill_agent("hv1")
    await settle()
    error = asking.exception()
    assert isinstance(error, Failed)
    assert error.sentence == "Cannot run 'double' on node 'hv1': it stopped meanwhile."


async def test_node_that_does_not_answer_in_time_is_reported(cluster: SimulatedCluster, node: Node) -> None:
    node.gates[1] = asyncio.Event()
    asking = ask(cluster, "hv1", "double", number=1, seconds=3)
    await cluster.advance(2.9)
    assert not asking.done()
    await cluster.advance(0.2)
    error = asking.exception()
    assert isinstance(error, TimedOut)
    assert error.sentence == "Node 'hv1' did not answer 'double' within 3 s."
    assert left(cluster) == []
    node.gates[1].set()
    await cluster.advance(60)
    assert left(cluster) == [], "a late answer should not be written"


async def test_restarted_agent_fails_the_command_and_does_not_repeat_it(
    cluster: SimulatedCluster, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.gates[1] = asyncio.Event()
    asking = ask(cluster, "hv1", "double", number=1, seconds=1000)
    await settle()
    # Its successor finds the record of a dead process and takes its place before any reader sees it missing.
    old = cluster.agents["hv1"].store.tree
    assert isinstance(old, MemoryTree)
    cluster.server.cut(old)
    await settle()
    another = ProcessIdentity.current().model_copy(update={"pid": 1})
    monkeypatch.setattr(ProcessIdentity, "current", classmethod(lambda cls: another))
    monkeypatch.setattr(ProcessIdentity, "has_ended", lambda process: process != another)
    killed = cluster._agents.pop("hv1")
    killed.cancel()
    cluster._ends.pop("hv1")
    await asyncio.gather(killed, return_exceptions=True)
    await cluster.start_agent("hv1")
    await settle()
    error = asking.exception()
    assert isinstance(error, Failed)
    assert (error.sentence, error.code) == (
        "Cannot run 'double' on node 'hv1': its agent was restarted meanwhile.",
        "agent-restarted",
    )
    assert node.asked == [("hv1", 1)]
    cluster.server.expire(old.session)


async def test_command_is_claimed_before_it_is_run_and_run_once(cluster: SimulatedCluster, node: Node) -> None:
    node.gates[1] = asyncio.Event()
    asking = ask(cluster, "hv1", "double", number=1, seconds=1000)
    await settle()
    (result,) = cluster.api.store.all(NodeCommandResult)
    assert (result.state, result.process) == ("claimed", ProcessIdentity.current())
    await cluster.advance(100)  # over which everything is looked at again
    node.gates[1].set()
    await settle()
    assert asking.result() == 2
    assert node.asked == [("hv1", 1)]


async def test_concurrent_commands_do_not_mix_their_answers(cluster: SimulatedCluster, node: Node) -> None:
    node.gates = {number: asyncio.Event() for number in range(10)}
    asking = [ask(cluster, "hv1", "double", number=number) for number in range(10)]
    await settle()
    for number in reversed(range(10)):
        node.gates[number].set()
        await settle()
    assert [each.result() for each in asking] == [2 * number for number in range(10)]


async def test_cancelled_asker_leaves_no_records(cluster: SimulatedCluster, node: Node) -> None:
    node.gates[1] = asyncio.Event()
    asking = ask(cluster, "hv1", "double", number=1)
    await settle()
    asking.cancel()
    await settle()
    assert asking.cancelled()
    assert left(cluster) == []


async def test_primary_removes_unanswered_commands_of_dead_askers(cluster: SimulatedCluster, node: Node) -> None:
    node.gates[1] = asyncio.Event()
    now = cluster.clock.time()
    command = NodeCommand(node="hv1", id=UUID(int=3), verb="double", arguments={"number": 1}, asked=now, seconds=10)
    await cluster.api.store.write(Create(command))
    await cluster.advance(9)
    assert len(left(cluster)) == 2
    await cluster.advance(10 + GRACE_SECONDS)
    assert left(cluster) == []


async def test_primary_removes_answers_that_nobody_reads_a_minute_later(cluster: SimulatedCluster) -> None:
    now = cluster.clock.time()
    command = NodeCommand(node="hv1", id=UUID(int=3), verb="double", arguments={"number": 1}, asked=now, seconds=7200)
    await cluster.api.store.write(Create(command))
    await settle()
    await cluster.advance(GRACE_SECONDS - 1)
    assert len(left(cluster)) == 2
    await cluster.advance(2)
    assert left(cluster) == []


async def test_asker_whose_answer_was_removed_does_not_wait_for_it(cluster: SimulatedCluster, node: Node) -> None:
    node.gates[1] = asyncio.Event()
    asking = ask(cluster, "hv1", "double", number=1)
    await settle()
    command = cluster.api.store.all(NodeCommand)[0]
    await forget(cluster.agents["hv1"].store, command)
    await settle()
    error = asking.exception()
    assert isinstance(error, TimedOut)
    assert error.sentence == "Cannot read the answer of node 'hv1' to 'double': ZooKeeper was away too long."


async def test_primary_answers_commands_for_the_primary(cluster: SimulatedCluster, node: Node) -> None:
    asking = asyncio.ensure_future(cluster.api.node_commands.ask_primary("lead"))
    await settle()
    assert asking.result() == "hv1"
    assert node.asked == [("hv1", "lead")]


async def test_other_nodes_refuse_commands_for_the_primary(cluster: SimulatedCluster, node: Node) -> None:
    asking = ask(cluster, "hv2", "lead")
    await settle()
    error = asking.exception()
    assert isinstance(error, Failed)
    assert (error.sentence, error.code) == (LEASE_LOST.format("hv2"), "lease-lost")
    assert node.asked == []


async def test_writes_of_a_command_for_the_primary_are_fenced(cluster: SimulatedCluster) -> None:
    asking = ask(cluster, "hv1", "lead", lose=True, seconds=5)
    await cluster.advance(6)
    assert isinstance(asking.exception(), Failed)
    assert cluster.api.store.get(Thing, "led") is None


async def test_next_primary_fails_a_command_whose_node_lost_the_lease(cluster: SimulatedCluster, node: Node) -> None:
    node.gates[1] = asyncio.Event()
    asking = asyncio.ensure_future(cluster.api.node_commands.ask_primary("lead", number=1, seconds=7 * 86400))
    await settle()
    assert node.asked == [("hv1", "lead")]
    await assign_primary(cluster.api.store, "hv2")
    await cluster.advance(1)
    error = asking.exception()
    assert isinstance(error, Failed)
    assert (error.sentence, error.code) == (LEASE_LOST.format("hv1"), "lease-lost")
    assert left(cluster) == []
    node.gates[1].set()
    await cluster.advance(60)
    assert node.asked == [("hv1", "lead")], "it should be done once at most"
    assert cluster.api.store.get(Thing, "led") is None
    assert left(cluster) == []


async def test_next_primary_fails_an_unclaimed_command(cluster: SimulatedCluster) -> None:
    await cluster.kill_agent("hv1")
    await cluster.advance(1)
    now = cluster.clock.time()
    command = NodeCommand(node="hv1", id=UUID(int=5), verb="lead", asked=now, seconds=1000)
    await cluster.api.store.write(Create(command))
    await settle()
    result = cluster.api.store.get(NodeCommandResult, "hv1", command.id)
    assert result is not None
    assert (result.state, result.code) == ("failed", "lease-lost")


@pytest.mark.parametrize("seconds", [1.0, 6.0])
async def test_suspended_primary_answers_or_reports_that_it_lost_the_lease(
    cluster: SimulatedCluster, node: Node, seconds: float
) -> None:
    node.gates[1] = asyncio.Event()
    asking = asyncio.ensure_future(cluster.api.node_commands.ask_primary("lead", number=1, seconds=7 * 86400))
    await settle()
    tree = cluster.agents["hv1"].store.tree
    assert isinstance(tree, MemoryTree)
    cluster.server.cut(tree)
    await cluster.advance(seconds)
    assert not asking.done()
    cluster.server.heal(tree)
    await cluster.advance(6)
    if seconds < 5:
        node.gates[1].set()
        await settle()
        assert asking.result() == "hv1"
    else:
        error = asking.exception()
        assert isinstance(error, Failed)
        assert (error.sentence, error.code) == (LEASE_LOST.format("hv1"), "lease-lost")
    assert node.asked == [("hv1", "lead")]
    assert left(cluster) == []


async def test_answer_waits_until_the_store_is_back(cluster: SimulatedCluster, node: Node) -> None:
    node.gates[1] = asyncio.Event()
    asking = ask(cluster, "hv2", "double", number=1, seconds=1000)
    await settle()
    tree = cluster.agents["hv2"].store.tree
    assert isinstance(tree, MemoryTree)
    cluster.server.cut(tree)
    node.gates[1].set()
    await cluster.advance(2)
    assert not asking.done()
    cluster.server.heal(tree)
    await cluster.advance(5)
    assert asking.result() == 2


async def test_asker_that_died_before_the_claim_leaves_no_records_and_no_act(
    cluster: SimulatedCluster, node: Node
) -> None:
    store = cluster.agents["hv1"].store
    command = NodeCommand(node="hv1", id=UUID(int=4), verb="double", arguments={"number": 1}, asked=0.0, seconds=10)
    write = store.write
    claims: list[object] = []

    async def late(*changes: Change) -> None:
        if any(isinstance(change.record, NodeCommandResult) for change in changes) and not claims:
            claims.append(changes)
            stored = cluster.api.store.get(NodeCommand, "hv1", command.id)
            assert stored is not None
            await cluster.api.store.write(Delete(stored))
        await write(*changes)

    store.write = late  # type: ignore[method-assign]
    await cluster.api.store.write(Create(command))
    await settle()
    assert claims
    assert node.asked == []
    assert left(cluster) == []


async def test_long_commands_do_not_block_others(cluster: SimulatedCluster, node: Node) -> None:
    node.gates[1] = asyncio.Event()
    for verb, values in (("lead", {"number": 1}), ("double", {"number": 1})):
        asking = [ask(cluster, "hv1", verb, seconds=1000, **values) for _ in range(2 * MAX_RECONCILES)]
        await settle(200)
        other = ask(cluster, "hv1", "double", number=2)
        await settle(200)
        assert other.done() and other.result() == 4
        node.gates[1].set()
        await settle(500)
        assert all(each.done() for each in asking)


async def test_asking_without_a_primary_fails(cluster: SimulatedCluster) -> None:
    await cluster.kill_agent("hv2")
    await cluster.kill_agent("hv1")
    with pytest.raises(Failed, match="no node is primary at the moment") as failed:
        await cluster.api.node_commands.ask_primary("lead")
    assert failed.value.code == "no-primary"


async def test_unavailable_store_is_reported(cluster: SimulatedCluster) -> None:
    cluster.server.stop()
    with pytest.raises(StoreUnavailable):
        await cluster.api.node_commands.ask("hv1", "double", number=1)


def test_registry_has_the_node_commands_of_a_plugin() -> None:
    registry = collect([Plugin("x", plugin(handlers=Node().tables), "given to the test")])
    assert [answer.name for answer in registry.node_commands] == ["double", "fail", "give", "lead"]
