"""NodeCommands: what a node is asked is done once at most, and whoever asks gets one clear answer."""

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
from pvcd.cluster.node_commands import NodeCommand, NodeCommandResult
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
    """What the nodes are told to answer, and what they were asked."""

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


async def test_an_answer_comes_from_the_node_that_was_asked(cluster: SimulatedCluster, node: Node) -> None:
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
async def test_an_answer_is_any_json(cluster: SimulatedCluster, what: str, answer: Any) -> None:
    asking = ask(cluster, "hv1", "give", what=what)
    await settle()
    assert asking.result() == answer


async def test_a_refusal_is_passed_on_with_its_code(cluster: SimulatedCluster) -> None:
    asking = ask(cluster, "hv1", "fail", how="refused")
    await settle()
    error = asking.exception()
    assert isinstance(error, Failed)
    assert error.status == NotFound.status
    assert (error.sentence, error.code) == ("There is no thing 'refused'.", "thing-not-found")


async def test_a_fault_of_the_node_is_told_without_its_inside(
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


async def test_an_answer_that_is_no_json_is_a_fault(cluster: SimulatedCluster) -> None:
    asking = ask(cluster, "hv1", "give", what="object")
    await settle()
    error = asking.exception()
    assert isinstance(error, Failed)
    assert error.code == "internal-error"


async def test_an_answer_that_is_too_large_is_told(cluster: SimulatedCluster) -> None:
    asking = ask(cluster, "hv1", "give", what="large")
    await settle()
    error = asking.exception()
    assert isinstance(error, Failed)
    assert "must have at most" in error.sentence
    await settle()
    assert left(cluster) == []


async def test_a_verb_that_no_plugin_answers_is_a_mistake_of_the_caller(cluster: SimulatedCluster) -> None:
    with pytest.raises(LookupError, match="no plugin declares the node command 'tripel'"):
        await cluster.api.node_commands.ask("hv1", "tripel")


async def test_a_verb_that_only_that_node_does_not_know_is_told(
    cluster: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
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


async def test_wrong_arguments_are_a_fault(cluster: SimulatedCluster) -> None:
    asking = ask(cluster, "hv1", "double", nmber=1)
    await settle()
    error = asking.exception()
    assert isinstance(error, Failed)
    assert error.code == "internal-error"


@pytest.mark.parametrize("name", ["hv9", "hv1"])
async def test_a_node_that_is_not_there_is_told_at_once(cluster: SimulatedCluster, name: str) -> None:
    await cluster.kill_agent("hv1")
    with pytest.raises(Failed, match=f"Cannot run 'double' on node '{name}': the node is not running") as failed:
        await cluster.api.node_commands.ask(name, "double", number=1)
    assert failed.value.code == "node-not-running"
    assert left(cluster) == []


async def test_a_node_that_goes_away_meanwhile_is_told_at_once(cluster: SimulatedCluster, node: Node) -> None:
    node.gates[1] = asyncio.Event()
    asking = ask(cluster, "hv1", "double", number=1, seconds=1000)
    await settle()
    assert node.asked == [("hv1", 1)]
    await cluster.kill_agent("hv1")
    await settle()
    error = asking.exception()
    assert isinstance(error, Failed)
    assert error.sentence == "Cannot run 'double' on node 'hv1': it stopped meanwhile."


async def test_a_node_that_does_not_answer_in_time_is_told(cluster: SimulatedCluster, node: Node) -> None:
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


async def test_an_agent_that_was_restarted_meanwhile_says_so_and_does_it_not_again(
    cluster: SimulatedCluster, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.gates[1] = asyncio.Event()
    asking = ask(cluster, "hv1", "double", number=1, seconds=1000)
    await settle()
    # Its successor finds the record of a dead process and takes its place before anybody sees it missing.
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


async def test_a_command_is_claimed_before_it_is_done_and_done_once(cluster: SimulatedCluster, node: Node) -> None:
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


async def test_two_at_once_never_mix_their_answers(cluster: SimulatedCluster, node: Node) -> None:
    node.gates = {number: asyncio.Event() for number in range(10)}
    asking = [ask(cluster, "hv1", "double", number=number) for number in range(10)]
    await settle()
    for number in reversed(range(10)):
        node.gates[number].set()
        await settle()
    assert [each.result() for each in asking] == [2 * number for number in range(10)]


async def test_who_stops_waiting_leaves_nothing(cluster: SimulatedCluster, node: Node) -> None:
    node.gates[1] = asyncio.Event()
    asking = ask(cluster, "hv1", "double", number=1)
    await settle()
    asking.cancel()
    await settle()
    assert asking.cancelled()
    assert left(cluster) == []


async def test_what_an_asker_left_behind_is_swept_by_the_primary(cluster: SimulatedCluster) -> None:
    now = cluster.clock.time()
    command = NodeCommand(node="hv1", id=UUID(int=3), verb="double", arguments={"number": 1}, asked=now, seconds=10)
    await cluster.api.store.write(Create(command))
    await cluster.advance(69)
    assert len(left(cluster)) == 2
    await cluster.advance(2)
    assert left(cluster) == []


async def test_the_primary_answers_what_only_it_can_do(cluster: SimulatedCluster, node: Node) -> None:
    asking = asyncio.ensure_future(cluster.api.node_commands.ask_primary("lead"))
    await settle()
    assert asking.result() == "hv1"
    assert node.asked == [("hv1", "lead")]


async def test_who_is_not_primary_refuses_what_only_the_primary_can_do(cluster: SimulatedCluster, node: Node) -> None:
    asking = ask(cluster, "hv2", "lead")
    await settle()
    error = asking.exception()
    assert isinstance(error, Failed)
    assert (error.sentence, error.code) == (LEASE_LOST.format("hv2"), "lease-lost")
    assert node.asked == []


async def test_what_the_primary_writes_for_a_command_is_fenced(cluster: SimulatedCluster) -> None:
    asking = ask(cluster, "hv1", "lead", lose=True, seconds=5)
    await cluster.advance(6)
    assert isinstance(asking.exception(), Failed)
    assert cluster.api.store.get(Thing, "led") is None


async def test_who_loses_the_lease_in_the_middle_is_given_up_by_the_next_primary(
    cluster: SimulatedCluster, node: Node
) -> None:
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


async def test_what_the_next_primary_finds_unclaimed_is_given_up_too(cluster: SimulatedCluster) -> None:
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
async def test_a_primary_that_lost_touch_goes_on_or_says_that_it_was_stopped(
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


async def test_an_answer_waits_until_the_store_is_back(cluster: SimulatedCluster, node: Node) -> None:
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


async def test_an_asker_that_went_away_before_the_claim_leaves_nothing_and_nothing_is_done(
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


async def test_any_number_of_long_ones_blocks_nobody(cluster: SimulatedCluster, node: Node) -> None:
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
        node.gates[1].clear()


async def test_without_a_primary_nobody_is_asked(cluster: SimulatedCluster) -> None:
    await cluster.kill_agent("hv2")
    await cluster.kill_agent("hv1")
    with pytest.raises(Failed, match="no node is primary at the moment") as failed:
        await cluster.api.node_commands.ask_primary("lead")
    assert failed.value.code == "no-primary"


async def test_a_store_that_is_away_is_told(cluster: SimulatedCluster) -> None:
    cluster.server.stop()
    with pytest.raises(StoreUnavailable):
        await cluster.api.node_commands.ask("hv1", "double", number=1)


def test_two_plugins_share_the_verbs() -> None:
    registry = collect([Plugin("x", plugin(handlers=Node().tables), "given to the test")])
    assert [answer.name for answer in registry.node_commands] == ["double", "fail", "give", "lead"]
