"""Node commands: ask a given node, or the primary, to do something and wait for its answer.

A command and its result are two records with one id. A node claims a command before it acts, so it runs at most once.
A command that was abandoned is failed by the process that finds it: an agent that was restarted or lost the lease in
between, or the next primary.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Literal
from uuid import UUID, uuid4

from pydantic import Field
from pydantic_core import to_jsonable_python

from pvcd.clock import Clock
from pvcd.cluster.lease import primary_of
from pvcd.cluster.presence import Presence
from pvcd.declare.context import Context
from pvcd.declare.handlers import Handlers, NodeCommandHandler, Requeue
from pvcd.errors import Changed, Failed, Invalid, Passed, PvcdError, StoreUnavailable, TimedOut
from pvcd.process import ProcessIdentity
from pvcd.records import Name, Record
from pvcd.store import Check, Create, Delete, Store, Upsert, retried

log = logging.getLogger(__name__)
GRACE_SECONDS = 60.0
"""The time that an asker has to read an answer."""
PAUSE_SECONDS = 0.5


class NodeCommand(Record, path="/node-commands/{node}/{id}"):
    """One command to a node."""

    node: Name
    id: UUID
    verb: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    asked: float
    seconds: float


class NodeCommandResult(Record, path="/node-commands/{node}/{id}/result"):
    """The claim of the node that runs a command, and then its answer."""

    node: Name
    id: UUID
    process: ProcessIdentity
    state: Literal["claimed", "done", "failed"] = "claimed"
    value: Any = None
    code: str = ""
    status: int = Failed.status
    sentence: str = ""
    ended: float | None = None


node_handlers = Handlers()
primary_handlers = Handlers(scope="primary")


class NodeCommands:
    """The side that asks."""

    def __init__(self, store: Store, clock: Clock, answers: Iterable[NodeCommandHandler]) -> None:
        self._store = store
        self._clock = clock
        self._verbs = frozenset(answer.name for answer in answers)

    async def ask_primary(self, verb: str, *, seconds: float = 10.0, **arguments: Any) -> Any:
        """Ask the primary, as `ask` asks a node."""
        node = primary_of(self._store)
        if node is None:
            raise Failed(f"Cannot run {verb!r}: no node is primary at the moment.", code="no-primary")
        return await self.ask(node, verb, seconds=seconds, **arguments)

    async def ask(self, node: str, verb: str, *, seconds: float = 10.0, **arguments: Any) -> Any:
        """Let a node run a command and return its answer, within `seconds`.

        Raises the error that the node answers, or `Failed` when it is not running, was restarted or does not answer.
        """
        if verb not in self._verbs:
            raise LookupError(f"no plugin declares the node command {verb!r}")
        if self._store.get(Presence, node) is None:
            raise Failed(f"Cannot run {verb!r} on node {node!r}: the node is not running.", code="node-not-running")
        command = NodeCommand(
            node=node, id=uuid4(), verb=verb, arguments=arguments, asked=self._clock.time(), seconds=seconds
        )
        await self._store.write(Create(command))
        try:
            await self._store.wait_for(lambda: self._is_over(command), seconds)
            return self._unpack(command)
        finally:
            await asyncio.shield(forget(self._store, command))

    def _result(self, command: NodeCommand) -> NodeCommandResult | None:
        result = self._store.get(NodeCommandResult, command.node, command.id)
        return result if result and result.state != "claimed" else None

    def _is_over(self, command: NodeCommand) -> bool:
        """Return whether no answer will come any more: it is there, or was swept while ZooKeeper was away from us."""
        swept = self._store.get(NodeCommand, command.node, command.id) is None
        return swept or self._result(command) is not None or self._is_away(command.node)

    def _is_away(self, node: str) -> bool:
        return self._store.get(Presence, node) is None

    def _unpack(self, command: NodeCommand) -> Any:
        result = self._result(command)
        if result is None and self._is_away(command.node):
            raise Failed(_cannot(command, "it stopped meanwhile"), code="node-not-running")
        if result is None and self._store.get(NodeCommand, command.node, command.id) is None:
            raise TimedOut(
                f"Cannot read the answer of node {command.node!r} to {command.verb!r}: ZooKeeper was away too long."
            )
        if result is None:
            raise TimedOut(f"Node {command.node!r} did not answer {command.verb!r} within {command.seconds:g} s.")
        if result.state == "failed":
            raise Passed(result.sentence, code=result.code, status=result.status)
        return result.value


async def forget(store: Store, command: NodeCommand) -> None:
    """Remove a command and its result; a node that answers later finds the command gone."""
    for _ in range(3):
        result = store.get(NodeCommandResult, command.node, command.id)
        current = store.get(NodeCommand, command.node, command.id)
        changes: list[Delete] = [Delete(record) for record in (result, current) if record]
        try:
            return await store.write(*changes) if changes else None
        except Changed:
            continue
        except PvcdError as error:
            return log.info("a finished node command is left for the primary to remove: %s", error)
    return None


@node_handlers.on(NodeCommand, takes_long=True)
async def answer(context: Context, command: NodeCommand) -> Requeue | None:
    """Answer a command of this node, unless it is left to `answer_as_primary`."""
    if command.node == context.node and not (_is_for_primary(context, command) and _is_primary(context)):
        await _answer(context, command)
    return None


@primary_handlers.on(NodeCommand, takes_long=True)
async def answer_as_primary(context: Context, command: NodeCommand) -> Requeue | None:
    """Answer what only the primary can do; its writes are fenced.

    A command to an earlier primary is failed: that was stopped in the middle, and its answer would be refused.
    """
    if _is_for_primary(context, command):
        await (_answer if command.node == context.node else _give_up)(context, command)
    return None


def _is_for_primary(context: Context, command: NodeCommand) -> bool:
    known = _answer_for(context, command)
    return known is not None and known.scope == "primary"


def _answer_for(context: Context, command: NodeCommand) -> NodeCommandHandler | None:
    return next((each for each in context.declared(NodeCommandHandler) if each.name == command.verb), None)


def _is_primary(context: Context) -> bool:
    return primary_of(context.store) == context.node


async def _answer(context: Context, command: NodeCommand) -> None:
    """Claim a command, run it, and write the answer. A claimed one was abandoned: no other reconcile of it runs."""
    if context.store.get(NodeCommandResult, command.node, command.id):
        return await _give_up(context, command)
    try:
        claim = NodeCommandResult(node=command.node, id=command.id, process=ProcessIdentity.current())
        await context.store.write(Check(command), Create(claim))
    except Changed:
        return None
    outcome = await _do(context, command)
    try:
        await _reply(context, command, outcome)
    except Invalid as error:  # the answer is too large
        await _reply(context, command, _failure(error.code, error.sentence))


async def _reply(context: Context, command: NodeCommand, outcome: dict[str, Any]) -> None:
    """Write the answer, and wait for the store as long as it takes."""
    while True:
        try:
            return await _finish(context, command, outcome)
        except StoreUnavailable:
            await context.clock.sleep(PAUSE_SECONDS)
            await context.store.live()


async def _give_up(context: Context, command: NodeCommand) -> None:
    """Fail an abandoned command."""
    result = context.store.get(NodeCommandResult, command.node, command.id)
    if result and command.node == context.node and result.process != ProcessIdentity.current():
        sentence = _cannot(command, "its agent was restarted meanwhile")
        outcome = _failure("agent-restarted", sentence)
    elif _is_for_primary(context, command):
        outcome = _not_primary(command)
    else:
        sentence = _cannot(command, "it lost its ZooKeeper session meanwhile")
        outcome = _failure(StoreUnavailable.code, sentence)
    await _finish(context, command, outcome)


@retried
async def _finish(context: Context, command: NodeCommand, outcome: dict[str, Any]) -> None:
    """Write the answer to a command, unless it has one or the asker has given up."""
    result = context.store.get(NodeCommandResult, command.node, command.id)
    if context.store.get(NodeCommand, command.node, command.id) is None or (result and result.state != "claimed"):
        return
    new = result or NodeCommandResult(node=command.node, id=command.id, process=ProcessIdentity.current())
    ended = context.clock.time()
    await context.store.write(Check(command), Upsert(new.changed(**outcome, ended=ended)))


async def _do(context: Context, command: NodeCommand) -> dict[str, Any]:
    known = _answer_for(context, command)
    if known is None:
        return _failure("command-unknown", _cannot(command, "no plugin of the node declares this command"))
    if known.scope == "primary" and not _is_primary(context):
        return _not_primary(command)
    try:
        async with asyncio.timeout(command.seconds):
            value = await known.function(context, **command.arguments)
            return {"state": "done", "value": to_jsonable_python(value)}
    except PvcdError as error:
        return _failure(error.code, error.sentence, error.status)
    except TimeoutError:
        return _failure(
            "timed-out", f"Node {context.node!r} did not finish {command.verb!r} within {command.seconds:g} s."
        )
    except Exception:
        log.exception("node command %s failed", command.verb)
        return _failure("internal-error", _cannot(command, "internal error") + " See the log of its agent.")


def _not_primary(command: NodeCommand) -> dict[str, Any]:
    return _failure("lease-lost", _cannot(command, "it lost the primary lease meanwhile"))


def _cannot(command: NodeCommand, reason: str) -> str:
    return f"Cannot run {command.verb!r} on node {command.node!r}: {reason}."


def _failure(code: str, sentence: str, status: int = Failed.status) -> dict[str, Any]:
    return {"state": "failed", "code": code, "sentence": sentence, "status": status}


@primary_handlers.on(NodeCommand)
async def sweep(context: Context, command: NodeCommand) -> Requeue | None:
    """Remove a command whose asker has died: it would have read the answer, or given up, long ago."""
    result = context.store.get(NodeCommandResult, command.node, command.id)
    over = (result and result.ended) or command.asked + command.seconds
    remaining = over + GRACE_SECONDS - context.clock.time()
    if remaining > 0:
        return Requeue(remaining)
    await forget(context.store, command)
    return None


@primary_handlers.on(NodeCommandResult)
async def sweep_answered(context: Context, result: NodeCommandResult) -> Requeue | None:
    """Remove a command that was answered, and whose asker has died."""
    command = context.store.get(NodeCommand, result.node, result.id)
    return await sweep(context, command) if command and result.ended else None
