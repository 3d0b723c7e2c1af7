"""The changes that a transaction is made of, and the retries of a rule when another writer was first."""

from __future__ import annotations

import functools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar, cast

from pvcd.clock import Clock
from pvcd.errors import Changed
from pvcd.records import Record
from pvcd.store.locks import KeyedLocks
from pvcd.store.tree import CheckNode, CreateNode, DeleteNode, NodeChange, SetNode

ATTEMPTS = 10
FIRST_PAUSE_SECONDS = 0.01
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Create:
    """Write a record that is not in the store yet."""

    record: Record


@dataclass(frozen=True, slots=True)
class Put:
    """Replace the version that was read."""

    record: Record


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the version that was read."""

    record: Record


@dataclass(frozen=True, slots=True)
class Check:
    """Change nothing, but fail the transaction unless this version is still the newest."""

    record: Record


@dataclass(frozen=True, slots=True)
class Upsert:
    """Create the record if it was never read from the store, else replace the version that was read."""

    record: Record


Change = Create | Put | Delete | Check | Upsert


def encode(change: Change) -> NodeChange:
    """Return the change of the tree that a change of a record is."""
    record = change.record
    if isinstance(change, Create) or (isinstance(change, Upsert) and record.version is None):
        return CreateNode(record.path, record.encode(), record.ephemeral)
    if record.version is None:
        raise TypeError(f"{type(change).__name__} needs a record that was read from the store: {record.path}")
    match change:
        case Put() | Upsert():
            return SetNode(record.path, record.encode(), record.version)
        case Delete():
            return DeleteNode(record.path, record.version)
        case Check():
            return CheckNode(record.path, record.version)


class _HasLocks(Protocol):
    @property
    def locks(self) -> KeyedLocks: ...


class HasStore(Protocol):
    """The part of a context that `retried` needs."""

    @property
    def clock(self) -> Clock:
        """Measures the pauses."""

    @property
    def store(self) -> _HasLocks:
        """Where the rule writes."""


def retried(rule: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Make a rule, whose first argument is the context, run again from its first read when another writer was first."""

    @functools.wraps(rule)
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        context = cast(HasStore, args[0])
        return await retry(context.store.locks, context.clock, functools.partial(rule, *args, **kwargs))

    return run


async def retry(locks: KeyedLocks, clock: Clock, rule: Callable[[], Awaitable[T]]) -> T:
    """Run a rule until its write is accepted, at most `ATTEMPTS` times.

    The first run starts at once. Later ones queue within this process for the record that was contended, so that many
    changes of one record cost two writes each instead of one for every other change.
    """
    try:
        return await rule()
    except Changed as error:
        contended = error.path
    async with locks.hold(contended):
        for attempt in range(ATTEMPTS - 1):
            try:
                return await rule()
            except Changed:
                # Growing pauses, because another process may have a whole queue to work off.
                await clock.sleep(random.uniform(0.0, FIRST_PAUSE_SECONDS * 2**attempt))  # noqa: S311 (jitter)
        return await rule()
