"""Hooks that are functions, for tests and simulations: they pass the same tests as those of a directory."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping

from pvcd.declare.context import Context
from pvcd.declare.operations import FAIL, POST, PRE, Operation, kind_of
from pvcd.errors import HookRefused
from pvcd.sitehooks.envelope import Envelope, told_of
from pvcd.sitehooks.folder import place_of

log = logging.getLogger(__name__)
Script = Callable[[Envelope], str | None]
"""Given what a hook is told; returns why it refuses, or None."""


class FakeHooks:
    """One hook for each of some operations and phases, such as `vm-start.pre`."""

    def __init__(self, scripts: Mapping[str, Script]) -> None:
        self._scripts = scripts

    async def ask(self, context: Context, operation: Operation) -> None:
        """Run the hook of `pre`."""
        if sentence := self._run(context, operation, PRE):
            hook = f"{place_of(operation.name, PRE)}/50-fake"
            raise HookRefused(f"Cannot do {operation.name!r}: site hook {hook!r} refused it: {sentence}.")

    async def notify(self, context: Context, operation: Operation) -> None:
        """Run the hook of `post` or `fail`."""
        phase = FAIL if operation.failure else POST
        if not operation.is_dry_run and (sentence := self._run(context, operation, phase)):
            log.error("the hook %s/50-fake failed: %s", place_of(operation.name, phase), sentence)

    def _run(self, context: Context, operation: Operation, phase: str) -> str | None:
        script = self._scripts.get(f"{operation.name}.{phase}")
        if script is None or phase not in kind_of(context, operation.name).phases:
            return None
        return script(told_of(context, operation) | {"phase": phase, "hook": "50-fake", "attempt": 1})

    @contextlib.asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[FakeHooks]:
        """What opens them in the place of those of a directory: `SimulatedCluster(replace={SITE_HOOKS: fake.open})`."""
        yield self
