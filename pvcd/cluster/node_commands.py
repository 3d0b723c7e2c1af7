"""NodeCommands: ask a given node, or the primary, to do something and wait for its answer.

The question and the answer are two records of one id. A node claims a command before it acts, so it is done once at
most. One that nobody does any more is failed by whoever finds it: an agent that was restarted in between or lost the
lease for a while, or the next primary.
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
GRACE = 60.0
PAUSE = 0.5


class NodeCommand(Record, path="/node-commands/{node}/{id}"):
    """What a node is asked to do."""

    node: Name
    id: UUID
    verb: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    asked: float
    seconds: float


class NodeCommandResult(Record, path="/node-commands/{node}/{id}/result"):
    """What the node says of it."""

    node: Name
    id: UUID
    process: ProcessIdentity
    state: Literal["claimed", "done", "failed"] = "claimed"
    value: Any = None
    code: str = ""
    status: int = Failed.status
    sentence: str = ""


node_handlers = Handlers()
primary_handlers = Handlers(scope="primary")


class NodeCommands:
    """The asking side."""

    def __init__(self, store: Store, clock: Clock, answers: Iterable[NodeCommandHandler]) -> None:
        self._store = store
        self._clock = clock
        self._verbs = frozenset(answer.name for answer in answers)

    async def ask_primary(self, verb: str, *, seconds: float = 10.0, **arguments: Any) -> Any:
        """Let the primary do something."""
        node = primary_of(self._store)
        if node is None:
            raise Failed(f"No node is primary just now, so nobody can do {verb}.", code="no-primary")
        return await self.ask(node, verb, seconds=seconds, **arguments)

    async def ask(self, node: str, verb: str, *, seconds: float = 10.0, **arguments: Any) -> Any:
        """Let a node do something and return what it answers, within `seconds`.

        Raises what the node says went wrong, or `Failed` when it is not running, was restarted or does not answer.
        """
        if verb not in self._verbs:
            raise LookupError(f"no plugin answers the command {verb!r}")
        if self._store.get(Presence, node) is None:
            raise Failed(f"Node {node} is not running, so it cannot do {verb}.", code="node-not-running")
        command = NodeCommand(
            node=node, id=uuid4(), verb=verb, arguments=arguments, asked=self._clock.time(), seconds=seconds
        )
        await self._store.write(Create(command))
        try:
            await self._store.wait_for(lambda: self._result(command) is not None or self._is_away(node), seconds)
            return self._unpack(command)
        finally:
            await asyncio.shield(forget(self._store, command))

    def _result(self, command: NodeCommand) -> NodeCommandResult | None:
        result = self._store.get(NodeCommandResult, command.node, command.id)
        return result if result and result.state != "claimed" else None

    def _is_away(self, node: str) -> bool:
        return self._store.get(Presence, node) is None

    def _unpack(self, command: NodeCommand) -> Any:
        result = self._result(command)
        if result is None and self._is_away(command.node):
            raise Failed(
                f"Node {command.node} went away while it was asked for {command.verb}.", code="node-not-running"
            )
        if result is None:
            raise TimedOut(f"Node {command.node} did not answer {command.verb} within {command.seconds:g} s.")
        if result.state == "failed":
            raise Passed(result.sentence, code=result.code, status=result.status)
        return result.value


async def forget(store: Store, command: NodeCommand) -> None:
    """Remove a command and its answer; a node that answers later finds it gone."""
    for _ in range(3):
        result = store.get(NodeCommandResult, command.node, command.id)
        current = store.get(NodeCommand, command.node, command.id)
        changes: list[Delete] = [Delete(record) for record in (result, current) if record]
        try:
            return await store.write(*changes) if changes else None
        except Changed:
            continue
        except PvcdError as error:
            return log.info("a finished command is left for the primary to remove: %s", error)
    return None


@node_handlers.on(NodeCommand, takes_long=True)
async def answer(context: Context, command: NodeCommand) -> Requeue | None:
    """Answer a command of this node, unless it is left to `answer_as_primary`."""
    if command.node == context.node and not (_is_for_primary(context, command) and _is_primary(context)):
        await _answer(context, command)
    return None


@primary_handlers.on(NodeCommand, takes_long=True)
async def answer_as_primary(context: Context, command: NodeCommand) -> Requeue | None:
    """Answer what only the primary can do; whatever that writes is fenced.

    What an earlier primary was asked is given up: it was stopped in the middle, and its answer would be refused.
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
    """Claim a command, do it, and write the answer. This turn is the only one at it: one that is claimed was left."""
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
    except Invalid as error:  # it is too large
        await _reply(context, command, _failure(error.code, error.sentence))


async def _reply(context: Context, command: NodeCommand, outcome: dict[str, Any]) -> None:
    """Write the answer, however long it takes until the store can be reached."""
    while True:
        try:
            return await _finish(context, command, outcome)
        except StoreUnavailable:
            await context.clock.sleep(PAUSE)
            await context.store.live()


async def _give_up(context: Context, command: NodeCommand) -> None:
    """Fail a command that nobody does any more."""
    result = context.store.get(NodeCommandResult, command.node, command.id)
    if result and command.node == context.node and result.process != ProcessIdentity.current():
        sentence = f"The agent of node {command.node} was restarted while it did {command.verb}."
        outcome = _failure("agent-restarted", sentence)
    elif _is_for_primary(context, command):
        outcome = _not_primary(command)
    else:
        sentence = f"Node {command.node} lost touch with ZooKeeper when it was asked for {command.verb}."
        outcome = _failure(StoreUnavailable.code, sentence)
    await _finish(context, command, outcome)


@retried
async def _finish(context: Context, command: NodeCommand, outcome: dict[str, Any]) -> None:
    """Write the answer to a command, unless it has one or nobody waits for it any more."""
    result = context.store.get(NodeCommandResult, command.node, command.id)
    if context.store.get(NodeCommand, command.node, command.id) is None or (result and result.state != "claimed"):
        return
    new = result or NodeCommandResult(node=command.node, id=command.id, process=ProcessIdentity.current())
    await context.store.write(Check(command), Upsert(new.changed(**outcome)))


async def _do(context: Context, command: NodeCommand) -> dict[str, Any]:
    known = _answer_for(context, command)
    if known is None:
        return _failure("command-unknown", f"Node {context.node} does not know the command {command.verb}.")
    if known.scope == "primary" and not _is_primary(context):
        return _not_primary(command)
    try:
        async with asyncio.timeout(command.seconds):
            value = await known.function(context, **command.arguments)
            return {"state": "done", "value": to_jsonable_python(value)}
    except PvcdError as error:
        return _failure(error.code, error.sentence, error.status)
    except TimeoutError:
        return _failure("timed-out", f"Node {context.node} did not finish {command.verb} within {command.seconds:g} s.")
    except Exception:
        log.exception("command %s failed", command.verb)
        return _failure("internal-error", f"Command {command.verb} failed on node {context.node}: see its agent's log.")


def _not_primary(command: NodeCommand) -> dict[str, Any]:
    sentence = f"Node {command.node} lost the lease of the primary while it was asked for {command.verb}."
    return _failure("lease-lost", sentence)


def _failure(code: str, sentence: str, status: int = Failed.status) -> dict[str, Any]:
    return {"state": "failed", "code": code, "sentence": sentence, "status": status}


@primary_handlers.on(NodeCommand)
async def sweep(context: Context, command: NodeCommand) -> Requeue | None:
    """Remove a command whose asker has gone away."""
    left = command.asked + command.seconds + GRACE - context.clock.time()
    if left > 0:
        return Requeue(left)
    await forget(context.store, command)
    return None
