"""Run operations between guards, listeners and site hooks."""

from __future__ import annotations

import dataclasses
import fnmatch
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from pvcd.declare.context import Context
from pvcd.declare.operations import SITE_HOOKS, Guard, Listener, Operation

log = logging.getLogger(__name__)


def _concerns(declared: Guard | Listener, name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in declared.operations)


class Operations:
    """Runs operations between guards, listeners and site hooks."""

    def __init__(self, guards: tuple[Guard, ...], listeners: tuple[Listener, ...], known: Collection[str]) -> None:
        self._guards = guards
        self._listeners = listeners
        self._known = known

    async def run(
        self, context: Context, name: str, arguments: Mapping[str, Any], act: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Ask the guards and site hooks, act, notify listeners and site hooks; errors of listeners are only logged."""
        operation = self._operation(name, arguments)
        for guard in self._guards:
            if _concerns(guard, name):
                await guard.check(context, operation)
        hooks = context.components.get(SITE_HOOKS)
        try:
            if hooks:
                await hooks.ask(context, operation)
            result = await act()
        except Exception as error:
            if hooks:
                await hooks.notify(context, dataclasses.replace(operation, failure=error))
            raise
        await self._done(context, dataclasses.replace(operation, result=result))
        return result

    async def notify(
        self, context: Context, name: str, arguments: Mapping[str, Any], failure: Exception | None = None
    ) -> None:
        """Notify listeners and site hooks of an act of this daemon; of a failure, site hooks only."""
        operation = dataclasses.replace(self._operation(name, arguments), failure=failure)
        if failure is None:
            await self._done(context, operation)
        elif hooks := context.components.get(SITE_HOOKS):
            await hooks.notify(context, operation)

    async def ask(self, context: Context, name: str, **arguments: Any) -> list[Any]:
        """Let every listener do its part of an operation of this agent; return their answers.

        None is no answer: listeners that only take notice return it.
        """
        operation = Operation(name, arguments)
        answers = [
            await listener.notify(context, operation) for listener in self._listeners if _concerns(listener, name)
        ]
        return [answer for answer in answers if answer is not None]

    def _operation(self, name: str, arguments: Mapping[str, Any]) -> Operation:
        if name not in self._known:
            raise LookupError(f"no plugin declares the operation {name!r}")
        return Operation(name, arguments)

    async def _done(self, context: Context, operation: Operation) -> None:
        for listener in self._listeners:
            if _concerns(listener, operation.name):
                await self._notify(context, listener, operation)
        if hooks := context.components.get(SITE_HOOKS):
            await hooks.notify(context, operation)

    async def _notify(self, context: Context, listener: Listener, operation: Operation) -> None:
        try:
            await listener.notify(context, operation)
        except Exception:
            log.exception("listener %s failed after %s", listener.name, operation.name)
