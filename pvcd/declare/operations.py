"""Operations: named acts on the cluster. Guards are asked before and may refuse; listeners are told after.

An operation's name is that of the route that asks for it (`vm-start`), or of what a daemon does by itself, which
plugins declare (`guest-start`). The site's own hooks run around each of them: see pvcd/sitehooks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pvcd.declare.context import ComponentKey, Context

Phase = Literal["pre", "post", "fail"]
PRE: Phase = "pre"
POST: Phase = "post"
FAIL: Phase = "fail"
PHASES = (PRE, POST, FAIL)
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


def kind_of(context: Context, operation: str) -> OperationKind:
    """What there is to know of an operation by its name. Raises `LookupError` for one that is not declared."""
    for kind in context.declared(OperationKind):
        if kind.name == operation:
            return kind
    raise LookupError(f"no plugin declares the operation {operation!r}")


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
    notify: Callable[[Context, Operation], Awaitable[Any]]


class SiteHooks(Protocol):
    """The site's own hooks: see pvcd/sitehooks."""

    async def ask(self, context: Context, operation: Operation) -> None:
        """Run those of the phase `pre`. Raises `HookRefused` when one of them refuses."""

    async def notify(self, context: Context, operation: Operation) -> None:
        """Start those of the phase `post`, or of `fail`. It never raises."""


SITE_HOOKS: ComponentKey[SiteHooks] = ComponentKey("site-hooks")
"""Where it is not open, operations have no site hooks."""
