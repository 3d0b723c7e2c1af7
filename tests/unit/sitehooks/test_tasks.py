"""Hooks are told how a task has ended, on the worker that ran it."""

from __future__ import annotations

from typing import Any

import pytest

from pvcd import Failed, Outcome, Role, Run, Step, tasks
from pvcd.daemon.components import make_context
from pvcd.daemon.worker import worker
from pvcd.declare.operations import SITE_HOOKS
from pvcd.process import ProcessIdentity
from pvcd.sitehooks.fake import FakeHooks
from pvcd.store.memory import MemoryTree
from pvcd.testing import SimulatedCluster
from tests.unit.conftest import plugin


@pytest.mark.parametrize("fails", [False, True])
async def test_hooks_are_notified_of_the_end_of_a_task(fails: bool) -> None:
    told: list[Any] = []

    async def bake(run: Run) -> Outcome:
        if fails:
            raise Failed("The oven is cold.")
        return Outcome("changed", "Baked.")

    hooks = FakeHooks({f"task-baking.{phase}": lambda document: told.append(document) for phase in ("post", "fail")})
    steps = [Step("baking", "bake", 10, "Bake", bake)]
    others = ("ceph", "network", "node", "provisioner", "vm")
    async with SimulatedCluster([], [plugin(steps=steps)], {SITE_HOOKS: hooks.open}, others) as cluster:
        registry, settings = cluster.registry, cluster.settings
        context = make_context(Role.WORKER, settings, registry, MemoryTree(cluster.server), cluster.clock)
        async with worker(context, ProcessIdentity.current()):
            task = await tasks.submit(cluster.api.derive(user="cook"), "baking", "cake", {"size": 3})
            await cluster.advance(5)
    (document,) = told
    assert document["arguments"] == {"task": str(task.id), "subject": "cake", "values": {"size": 3}, "leftovers": []}
    assert (document["phase"], document["place"], document["user"]) == ("fail" if fails else "post", "worker", "cook")
    if fails:
        assert document["failure"] == {"message": "Bake: The oven is cold.", "code": "task-failure"}
