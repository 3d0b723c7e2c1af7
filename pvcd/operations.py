"""Operations: named acts on the cluster. Guards are asked before and may refuse; listeners are told after.

An operation's name is that of the route that asks for it (`vm-start`), or of what a daemon does by itself, which
plugins declare (`guest-start`). The site's own hooks run around each of them: see pvcd/sitehooks.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from pvcd.context import Context

log = logging.getLogger(__name__)
Phase = Literal["pre", "post", "fail"]
Place = Literal["api", "node", "primary", "worker"]


@dataclass(frozen=True)
class OperationKind:
    """What there is to know of an operation: that of a route is derived from it."""

    name: str
    doc: str
    place: Place
    """The daemon in which it is done, and its hooks are run."""
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The JSON schema of each, by the name that hooks know it by."""
    phases: tuple[Phase, ...] = ("pre", "post", "fail")
    """Of its hooks: without `pre`, nothing can refuse or delay it."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The names that hooks know arguments by that the code calls otherwise."""
    secrets: frozenset[str] = frozenset()
    """Arguments that are shown to no hook."""


@dataclass(frozen=True)
class Operation:
    """One act, as guards, listeners and hooks see it."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    result: Any = None
    failure: Exception | None = None
    """Why it was not done, for hooks of the phase `fail`."""

    @property
    def is_dry_run(self) -> bool:
        """Whether it only says what it would do."""
        return self.arguments.get("check") is True


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


class SiteHooks(Protocol):
    """The site's own hooks: see pvcd/sitehooks."""

    async def ask(self, context: Context, operation: Operation) -> None:
        """Run those of the phase `pre`. Raises `HookRefused` when one of them refuses."""

    async def tell(self, context: Context, operation: Operation) -> None:
        """Let those of `post`, or of `fail`, be run from now on. It never raises."""


class NoHooks:
    """Of a process that runs none."""

    async def ask(self, context: Context, operation: Operation) -> None:
        """Refuse nothing."""

    async def tell(self, context: Context, operation: Operation) -> None:
        """Tell nobody."""


def _concerns(declared: Guard | Listener, name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in declared.operations)


class Operations:
    """Runs operations between the guards, the listeners and the site's hooks."""

    def __init__(self, guards: tuple[Guard, ...], listeners: tuple[Listener, ...], known: Collection[str]) -> None:
        self.hooks: SiteHooks = NoHooks()
        """What runs the site's hooks, as long as that is open."""
        self._guards = guards
        self._listeners = listeners
        self._known = known

    async def run(
        self, context: Context, name: str, arguments: Mapping[str, Any], act: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Ask the guards and the hooks, act, tell the listeners and the hooks; what these raise is only logged."""
        operation = self._operation(name, arguments)
        for guard in self._guards:
            if _concerns(guard, name):
                await guard.check(context, operation)
        try:
            await self.hooks.ask(context, operation)
            result = await act()
        except Exception as error:
            await self.hooks.tell(context, dataclasses.replace(operation, failure=error))
            raise
        await self._done(context, dataclasses.replace(operation, result=result))
        return result

    async def tell(
        self, context: Context, name: str, arguments: Mapping[str, Any], failure: Exception | None = None
    ) -> None:
        """Tell the listeners and the hooks of what was done, or happened by itself; of a failure only the hooks."""
        operation = dataclasses.replace(self._operation(name, arguments), failure=failure)
        if failure is None:
            await self._done(context, operation)
        else:
            await self.hooks.tell(context, operation)

    async def ask(self, context: Context, name: str, **arguments: Any) -> list[Any]:
        """Let every listener do its share of an operation of this agent, and return what they answered.

        None is no answer: so answers a listener that only wants to be told.
        """
        operation = Operation(name, arguments)
        answers = [await listener.tell(context, operation) for listener in self._listeners if _concerns(listener, name)]
        return [answer for answer in answers if answer is not None]

    def _operation(self, name: str, arguments: Mapping[str, Any]) -> Operation:
        if name not in self._known:
            raise LookupError(f"no plugin declares the operation {name!r}")
        return Operation(name, arguments)

    async def _done(self, context: Context, operation: Operation) -> None:
        for listener in self._listeners:
            if _concerns(listener, operation.name):
                await self._tell(context, listener, operation)
        await self.hooks.tell(context, operation)

    async def _tell(self, context: Context, listener: Listener, operation: Operation) -> None:
        try:
            await listener.tell(context, operation)
        except Exception:
            log.exception("listener %s failed after %s", listener.name, operation.name)
