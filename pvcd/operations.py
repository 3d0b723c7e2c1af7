"""Operations: named acts on the cluster. Guards are asked before and may refuse; listeners are told after.

An operation's name is that of the route that asks for it (`vm-start`), or of what an agent does by itself
(`node-drain`). Site hooks will hang here too.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pvcd.context import Context

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Operation:
    """One act, as guards and listeners see it."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    result: Any = None


@dataclass(frozen=True)
class Guard:
    """Asked before an operation: raise `Refused` with a sentence and it does not happen."""

    name: str
    operations: tuple[str, ...]
    """Names, or patterns such as `vm-*`."""
    check: Callable[[Context, Operation], Awaitable[None]]


@dataclass(frozen=True)
class Listener:
    """Told after an operation, or asked by an agent to do its share of one (`Operations.ask`)."""

    name: str
    operations: tuple[str, ...]
    tell: Callable[[Context, Operation], Awaitable[Any]]


def _concerns(declared: Guard | Listener, name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in declared.operations)


class Operations:
    """Runs operations between the guards and listeners of all plugins."""

    def __init__(self, guards: tuple[Guard, ...], listeners: tuple[Listener, ...]) -> None:
        self._guards = guards
        self._listeners = listeners

    async def run(
        self, context: Context, name: str, arguments: Mapping[str, Any], act: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Ask the guards, act, tell the listeners; what a listener raises is only logged."""
        operation = Operation(name, arguments)
        for guard in self._guards:
            if _concerns(guard, name):
                await guard.check(context, operation)
        result = await act()
        done = Operation(name, arguments, result)
        for listener in self._listeners:
            if _concerns(listener, name):
                await self._tell(context, listener, done)
        return result

    async def ask(self, context: Context, name: str, **arguments: Any) -> list[Any]:
        """Let every listener do its share of an operation of this agent, and return what they answered.

        None is no answer: so answers a listener that only wants to be told.
        """
        operation = Operation(name, arguments)
        answers = [await listener.tell(context, operation) for listener in self._listeners if _concerns(listener, name)]
        return [answer for answer in answers if answer is not None]

    async def _tell(self, context: Context, listener: Listener, operation: Operation) -> None:
        try:
            await listener.tell(context, operation)
        except Exception:
            log.exception("listener %s failed after %s", listener.name, operation.name)
