"""What a transaction is made of, and how a rule is run again when another writer was first."""

from __future__ import annotations

import functools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar, cast

from pvcd.clock import Clock
from pvcd.errors import Changed
from pvcd.records import Record
from pvcd.store.queues import Queues
from pvcd.store.tree import CheckNode, CreateNode, DeleteNode, NodeChange, SetNode

ATTEMPTS = 10
FIRST_PAUSE = 0.01
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Create:
    """A record that is not there yet."""

    record: Record


@dataclass(frozen=True, slots=True)
class Put:
    """A changed record, in place of the version that was read."""

    record: Record


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the version that was read."""

    record: Record


@dataclass(frozen=True, slots=True)
class Check:
    """Let the transaction fail unless this version is still the newest."""

    record: Record


Change = Create | Put | Delete | Check


def encode(change: Change) -> NodeChange:
    """A change of a record as a change of the tree."""
    record = change.record
    if isinstance(change, Create):
        return CreateNode(record.path, record.encode(), record.ephemeral)
    if record.version is None:
        raise TypeError(f"{type(change).__name__} needs a record that was read from the store: {record.path}")
    match change:
        case Put():
            return SetNode(record.path, record.encode(), record.version)
        case Delete():
            return DeleteNode(record.path, record.version)
        case Check():
            return CheckNode(record.path, record.version)


class _HasQueues(Protocol):
    @property
    def queues(self) -> Queues: ...


class HasStore(Protocol):
    """What `retried` needs of the first argument of a rule, which is a context."""

    @property
    def clock(self) -> Clock:
        """Measures the pauses."""

    @property
    def store(self) -> _HasQueues:
        """Where the rule writes."""


def retried(rule: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Run a rule again, from its first read on, when another writer was first; its first argument is the context.

    The first run goes ahead at once; later ones queue within this process for the record that was contended, so that
    many changes of one record cost two writes each and not one for every other.
    """

    @functools.wraps(rule)
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await rule(*args, **kwargs)
        except Changed as error:
            contended = error.path
        context = cast(HasStore, args[0])
        async with context.store.queues.hold(contended):
            for attempt in range(ATTEMPTS - 1):
                try:
                    return await rule(*args, **kwargs)
                except Changed:
                    # Longer and longer, since another process may have a whole queue to work off.
                    await context.clock.sleep(random.uniform(0.0, FIRST_PAUSE * 2**attempt))  # noqa: S311 (jitter)
            return await rule(*args, **kwargs)

    return run
