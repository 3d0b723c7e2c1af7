"""Every way to run the site's hooks answers alike: functions, and programs in a directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pvcd.declare.operations import SITE_HOOKS, Operation
from pvcd.errors import Failed, HookRefused
from pvcd.testing import SimulatedCluster
from tests.contract.sitehooks import Bench, FakeBench, FolderBench, folder, until

__all__ = ["folder"]
OTHERS = ("ceph", "network", "provisioner", "vm")
STATE = "/api/v1/node/hv1/domain-state"


@pytest.fixture(params=["fake", "folder"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """Both."""
    if request.param == "fake":
        return FakeBench()
    programs: FolderBench = request.getfixturevalue("folder")
    return programs


@pytest.fixture
async def cluster(bench: Bench) -> AsyncIterator[SimulatedCluster]:
    """An API and a node with these hooks."""
    replace = {SITE_HOOKS: bench.open}
    sections = {"keepalive": {"interval": 1}, "hooks": bench.settings}
    async with SimulatedCluster(["hv1"], [], replace, OTHERS, **sections) as cluster:
        await cluster.advance(2)
        yield cluster


async def flush(cluster: SimulatedCluster) -> tuple[int, Any]:
    reply = await cluster.request("POST", STATE, **{"domain-state": "flush"})
    return reply.status, reply.json


async def state(cluster: SimulatedCluster) -> str:
    return str((await cluster.request("GET", STATE)).json["domain_state"])


async def test_an_accepting_hook_is_called_before_and_after(bench: Bench, cluster: SimulatedCluster) -> None:
    bench.add("node-flush.pre")
    bench.add("node-flush.post")
    bench.add("node-flush.fail")
    bench.add("node-ready.pre")
    assert (await flush(cluster))[0] == 200
    await until(lambda: len(bench.told()) == 2)
    before, after = bench.told()
    assert (before["phase"], after["phase"]) == ("pre", "post")
    assert before["arguments"] == after["arguments"] == {"node": "hv1", "domain-state": "flush"}
    assert "result" not in before
    assert after["result"]["message"].startswith("Domain state 'flush' requested for node 'hv1'.")
    for told in bench.told():
        assert (told["api"], told["operation"], told["hook"], told["attempt"]) == (1, "node-flush", "50-fake", 1)
        assert (told["place"], told["node"], told["user"], told["dry_run"]) == ("api", "", None, False)
        assert len(told["request"]) == len(told["event"]) == 32


async def test_a_refusing_hook_is_quoted_and_nothing_is_done(bench: Bench, cluster: SimulatedCluster) -> None:
    bench.add("node-flush.pre", refuses="Not on a Friday")
    bench.add("node-flush.post")
    bench.add("node-flush.fail")
    status, reply = await flush(cluster)
    sentence = "Cannot do 'node-flush': site hook 'node-flush.pre.d/50-fake' refused it: Not on a Friday."
    assert (status, reply) == (510, {"message": sentence, "code": "hook-refused"})
    assert await state(cluster) == "ready"
    await until(lambda: len(bench.told()) == 2)
    assert bench.told()[1]["phase"] == "fail"
    assert bench.told()[1]["failure"] == {"message": sentence, "code": "hook-refused"}


@pytest.mark.parametrize("phase", ["post", "fail"])
async def test_hooks_after_an_operation_cannot_refuse_it(bench: Bench, cluster: SimulatedCluster, phase: str) -> None:
    bench.add(f"node-flush.{phase}", refuses="Too late")
    if phase == "fail":
        bench.add("node-flush.pre", refuses="No")
    status, reply = await flush(cluster)
    assert status == (200 if phase == "post" else 510) and "Too late" not in str(reply)


async def test_hooks_for_operations_of_daemons_run_on_their_node(bench: Bench, cluster: SimulatedCluster) -> None:
    bench.add("node-settled.post")
    assert (await flush(cluster))[0] == 200
    await cluster.advance(3)
    await until(lambda: len(bench.told()) == 1)
    (told,) = bench.told()
    assert (told["place"], told["node"]) == ("node", "hv1")
    assert told["arguments"] == {"node": "hv1", "domain_state": "flushed"}


async def test_an_operation_without_a_phase_calls_no_hook(bench: Bench, cluster: SimulatedCluster) -> None:
    bench.add("node-dead.pre", refuses="Never")
    await cluster.api[SITE_HOOKS].ask(cluster.api, Operation("node-dead", {"node": "hv1"}))
    assert bench.told() == []


async def test_a_dry_run_calls_only_the_hooks_before(bench: Bench, cluster: SimulatedCluster) -> None:
    bench.add("node-flush.pre", refuses="Not on a Friday")
    bench.add("node-flush.post")
    bench.add("node-flush.fail")
    dry = Operation("node-flush", {"node": "hv1", "check": True})
    with pytest.raises(HookRefused, match="Friday"):
        await cluster.api[SITE_HOOKS].ask(cluster.api, dry)
    await cluster.api[SITE_HOOKS].notify(cluster.api, dry)
    await cluster.api[SITE_HOOKS].notify(cluster.api, Operation(dry.name, dry.arguments, failure=Failed("x")))
    assert [told["dry_run"] for told in bench.told()] == [True]


async def test_the_death_of_a_node_is_notified_once_by_the_primary(bench: Bench) -> None:
    bench.add("node-dead.post")
    sections = {"keepalive": {"interval": 1}, "hooks": bench.settings}
    async with SimulatedCluster(["hv1", "hv2"], [], {SITE_HOOKS: bench.open}, OTHERS, **sections) as cluster:
        await cluster.advance(2)
        await cluster.stop_agent("hv2")
        await cluster.advance(70)
        assert bench.told() == []  # it took its leave
        await cluster.start_agent("hv2")
        await cluster.kill_agent("hv2")
        await cluster.advance(70)
        await until(lambda: len(bench.told()) == 1)
        await cluster.start_agent("hv2")
        await cluster.advance(5)
        await cluster.kill_agent("hv1")
        await cluster.advance(70)
        await until(lambda: len(bench.told()) == 2)
        places = [(told["place"], told["node"], told["arguments"]["node"]) for told in bench.told()]
        assert places == [("primary", "hv1", "hv2"), ("primary", "hv2", "hv1")]
