"""Health: each check says its part, and one that fails or hangs is itself reported."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pvcd import Conflict, Context, Health, HealthCheck
from pvcd.http import health_routes as health
from pvcd.plugin.loading import RefusedPlugin
from pvcd.plugin.registry import Registry
from pvcd.testing import SimulatedCluster

from .conftest import plugin


def returning(found: Any) -> Any:
    async def check(context: Context) -> Any:
        if isinstance(found, BaseException):
            raise found
        return found

    return check


async def hang(context: Context) -> Health:
    await asyncio.Event().wait()
    raise AssertionError


async def hold_on(context: Context) -> Health:
    """Not even a cancellation ends it."""
    for _ in range(5):
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            continue
    return Health("ok", "Late.")


async def reported(found: Any) -> dict[str, Any]:
    """Return the reply of the API about a check, and assert that the others are there."""
    check = HealthCheck("mine", "Something", found if callable(found) else returning(found))
    async with SimulatedCluster([], [plugin(health_checks=[check])], without=["vm", "ceph"]) as cluster:
        reply = await cluster.request("GET", "/api/v1/health")
    assert reply.status == 200
    checks = {each["name"]: each for each in reply.json["checks"]}
    assert list(checks) == ["mine", "nodes", "plugins", "zookeeper"]
    assert checks["zookeeper"]["state"] == checks["plugins"]["state"] == "ok"
    states = [each["state"] for each in checks.values()]
    assert reply.json["state"] == ("failed" if "failed" in states else "warning" if "warning" in states else "ok")
    return dict(checks["mine"])


@pytest.mark.parametrize("state", ["ok", "warning", "failed"])
async def test_the_result_of_a_check_is_reported(state: Any) -> None:
    assert await reported(Health(state, "So it is.")) == {
        "name": "mine",
        "about": "Something",
        "state": state,
        "sentence": "So it is.",
    }


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (RuntimeError("it is broken"), "The check itself failed: RuntimeError: it is broken."),
        (Conflict("It is in the way."), "It is in the way."),
        (asyncio.CancelledError(), "The check did not finish within 0.05 s."),
        (None, "The check itself failed: TypeError: it must return a Health; got None."),
        ("ok", "The check itself failed: TypeError: it must return a Health; got 'ok'."),
        (hang, "The check did not finish within 0.05 s."),
        (hold_on, "The check did not finish within 0.05 s."),
        (lambda context: 1 / 0, "The check itself failed: ZeroDivisionError: division by zero."),
        (lambda context: None, "The check itself failed: TypeError: object NoneType can't be used in"),
    ],
)
async def test_a_failing_check_is_reported_as_failed(
    found: Any, sentence: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.05)
    told = await reported(found)
    assert told["state"] == "failed"
    assert told["sentence"].startswith(sentence)
    assert ("health check mine of plugin 'example' failed" in caplog.text) is ("The check itself" in sentence)


async def test_an_unavailable_zookeeper_is_reported() -> None:
    async with SimulatedCluster([], without=["vm"]) as cluster:
        cluster.server.cut(cluster.api.store.tree)
        await cluster.advance(5)
        (link,) = [check for check in health.CHECKS if check.name == "zookeeper"]
        found = await link.check(cluster.api)
    assert found.state == "failed"
    assert found.sentence == "ZooKeeper has not answered for 5 s: no change is possible."


async def test_a_refused_plugin_is_reported() -> None:
    registry = Registry(refused=(RefusedPlugin("bad", "somewhere", "Plugin 'bad' is bad."),))
    async with SimulatedCluster([], without=["vm"]) as cluster:
        (plugins,) = [check for check in health.CHECKS if check.name == "plugins"]
        found = await plugins.check(cluster.api.derive(declarations=registry))
    assert found == Health("warning", "Plugin 'bad' is bad.")
