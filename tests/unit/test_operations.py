"""Operations between their guards and listeners."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pvcd.cluster.operations import Operations
from pvcd.declare.operations import SITE_HOOKS, Guard, Listener, Operation
from pvcd.errors import Failed, HookRefused, Refused

CONTEXT: Any = SimpleNamespace(components={})
KNOWN = ("vm-start", "node-drain")


class Log:
    """The events, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def guard(self, name: str, *operations: str, refuses: str = "") -> Guard:
        async def check(context: Any, operation: Operation) -> None:
            self.lines.append(f"{name} is asked for {operation.name} of {dict(operation.arguments)}")
            if refuses:
                raise Refused(refuses)

        return Guard(name, operations, check)

    def listener(self, name: str, *operations: str, answer: Any = None, fails: bool = False) -> Listener:
        async def notify(context: Any, operation: Operation) -> Any:
            assert context is CONTEXT
            self.lines.append(f"{name} is told of {operation.name}: {operation.result}")
            if fails:
                raise OSError("no such host")
            return answer

        return Listener(name, operations, notify)

    async def act(self) -> str:
        self.lines.append("act")
        return "done"


@pytest.fixture
def log() -> Log:
    return Log()


async def test_guards_run_before_and_listeners_after(log: Log) -> None:
    operations = Operations((log.guard("g", "vm-start"),), (log.listener("l", "vm-start"),), KNOWN)
    assert await operations.run(CONTEXT, "vm-start", {"vm": "web1"}, log.act) == "done"
    assert log.lines == ["g is asked for vm-start of {'vm': 'web1'}", "act", "l is told of vm-start: done"]


async def test_refusal_of_a_guard_prevents_the_operation(log: Log) -> None:
    guards = (log.guard("a", "*", refuses="Not on a Friday."), log.guard("b", "*"))
    operations = Operations(guards, (log.listener("l", "*"),), KNOWN)
    with pytest.raises(Refused, match="Not on a Friday"):
        await operations.run(CONTEXT, "vm-start", {}, log.act)
    assert log.lines == ["a is asked for vm-start of {}"]


@pytest.mark.parametrize(
    ("pattern", "concerned"),
    [("vm-start", True), ("vm-*", True), ("*", True), ("VM-*", False), ("vm", False), ("node-*", False)],
)
async def test_pattern_selects_operations_of_guards_and_listeners(log: Log, pattern: str, concerned: bool) -> None:
    operations = Operations((log.guard("g", pattern),), (log.listener("l", "x", pattern),), KNOWN)
    await operations.run(CONTEXT, "vm-start", {}, log.act)
    assert len(log.lines) == (3 if concerned else 1)


async def test_several_matching_patterns_notify_once(log: Log) -> None:
    await Operations((), (log.listener("l", "vm-*", "*-start"),), KNOWN).run(CONTEXT, "vm-start", {}, log.act)
    assert log.lines == ["act", "l is told of vm-start: done"]


async def test_error_of_a_listener_is_only_logged(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    operations = Operations((), (log.listener("bad", "*", fails=True), log.listener("good", "*")), KNOWN)
    assert await operations.run(CONTEXT, "vm-start", {}, log.act) == "done"
    assert log.lines[-1] == "good is told of vm-start: done"
    assert "listener bad failed after vm-start" in caplog.text


async def test_listeners_are_not_notified_of_failures(log: Log) -> None:
    async def act() -> None:
        raise Failed("no")

    with pytest.raises(Failed):
        await Operations((), (log.listener("l", "*"),), KNOWN).run(CONTEXT, "vm-start", {}, act)
    assert log.lines == []


async def test_ask_returns_answers_other_than_none(log: Log) -> None:
    listeners = (
        log.listener("audit", "*"),
        log.listener("nothing-left", "node-drain", answer=[]),
        log.listener("vms", "node-drain", answer=["web1"]),
        log.listener("other", "vm-start", answer=["x"]),
    )
    assert await Operations((), listeners, KNOWN).ask(CONTEXT, "node-drain", node="hv1") == [[], ["web1"]]


async def test_ask_raises_the_error_of_a_listener(log: Log) -> None:
    with pytest.raises(OSError, match="no such host"):
        await Operations((), (log.listener("vms", "*", fails=True),), KNOWN).ask(CONTEXT, "node-drain")


async def test_undeclared_operation_is_a_lookup_error(log: Log) -> None:
    operations = Operations((), (), KNOWN)
    with pytest.raises(LookupError, match="no plugin declares the operation 'vm-explode'"):
        await operations.run(CONTEXT, "vm-explode", {}, log.act)
    with pytest.raises(LookupError, match="vm-explode"):
        await operations.notify(CONTEXT, "vm-explode", {})
    assert log.lines == []


class Hooks:
    """Hooks that say what they are asked for and told of."""

    def __init__(self, log: Log, refuses: str = "") -> None:
        self.log, self.refuses = log, refuses

    async def ask(self, context: Any, operation: Operation) -> None:
        self.log.lines.append(f"hooks are asked for {operation.name}")
        if self.refuses:
            raise HookRefused(self.refuses)

    async def notify(self, context: Any, operation: Operation) -> None:
        self.log.lines.append(f"hooks are told of {operation.name}: {operation.failure or operation.result}")


@pytest.fixture
def hooked(log: Log, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Operations]:
    def make(refuses: str = "") -> Operations:
        monkeypatch.setitem(CONTEXT.components, SITE_HOOKS, Hooks(log, refuses))
        return Operations((log.guard("g", "*"),), (log.listener("l", "*"),), KNOWN)

    return make


async def test_site_hooks_run_after_guards_and_after_listeners(log: Log, hooked: Callable[..., Operations]) -> None:
    await hooked().run(CONTEXT, "vm-start", {}, log.act)
    assert [line.split(" of ")[0] for line in log.lines] == [
        "g is asked for vm-start",
        "hooks are asked for vm-start",
        "act",
        "l is told",
        "hooks are told",
    ]


async def test_refusal_of_a_site_hook_prevents_the_operation_and_is_notified(
    log: Log, hooked: Callable[..., Operations]
) -> None:
    with pytest.raises(HookRefused, match="No licence"):
        await hooked("No licence.").run(CONTEXT, "vm-start", {}, log.act)
    assert log.lines[1:] == ["hooks are asked for vm-start", "hooks are told of vm-start: No licence."]


async def test_failure_notifies_site_hooks_but_not_listeners(log: Log, hooked: Callable[..., Operations]) -> None:
    async def act() -> None:
        raise Failed("The disk is full.")

    with pytest.raises(Failed):
        await hooked().run(CONTEXT, "vm-start", {}, act)
    assert log.lines[1:] == ["hooks are asked for vm-start", "hooks are told of vm-start: The disk is full."]


async def test_acts_of_daemons_are_notified_without_asking(log: Log, hooked: Callable[..., Operations]) -> None:
    operations = hooked()
    await operations.notify(CONTEXT, "node-drain", {"node": "hv1"})
    await operations.notify(CONTEXT, "node-drain", {"node": "hv1"}, Failed("It hangs."))
    assert log.lines == [
        "l is told of node-drain: None",
        "hooks are told of node-drain: None",
        "hooks are told of node-drain: It hangs.",
    ]
