"""Hooks that are functions, for tests and simulations: they pass the same tests as those of a directory."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping

from pvcd.context import Context
from pvcd.errors import HookRefused
from pvcd.operations import NoHooks, Operation
from pvcd.sitehooks.envelope import Envelope, envelope
from pvcd.sitehooks.folder import FAIL, POST, PRE

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
            raise HookRefused(f"The hook {operation.name}.{PRE}.d/50-fake refused it: {sentence}.")

    async def tell(self, context: Context, operation: Operation) -> None:
        """Run the hook of `post` or `fail`."""
        phase = FAIL if operation.failure else POST
        if not operation.is_dry_run and (sentence := self._run(context, operation, phase)):
            log.error("the hook %s.%s.d/50-fake failed: %s", operation.name, phase, sentence)

    def _run(self, context: Context, operation: Operation, phase: str) -> str | None:
        kind, script = context.registry.known_operations[operation.name], self._scripts.get(f"{operation.name}.{phase}")
        if script is None or phase not in kind.phases:
            return None
        told = envelope(
            kind, operation, time=context.clock.time(), place=context.role.value, node=context.node, user=context.user
        )
        return script(told | {"phase": phase, "hook": "50-fake", "attempt": 1})

    @contextlib.asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[FakeHooks]:
        """What opens them in the place of those of a directory: `SimulatedCluster(replace={SITE_HOOKS: fake.open})`."""
        context.operations.hooks = self
        try:
            yield self
        finally:
            context.operations.hooks = NoHooks()
