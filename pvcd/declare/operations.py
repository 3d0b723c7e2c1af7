"""Operations: named acts on the cluster. Guards are asked before and may refuse; listeners are notified after.

An operation has the name of the route that asks for it (`vm-start`), or is an act of a daemon by itself, which
plugins declare (`guest-start`). Site hooks run around each of them; see pvcd/sitehooks.
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
    """The description of an operation; routes derive theirs."""

    name: str
    doc: str
    place: Place
    """The daemon that runs it and its site hooks."""
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name of an argument, as site hooks know it -> its JSON schema."""
    phases: tuple[Phase, ...] = ("pre", "post", "fail")
    """Phases of its site hooks; without `pre`, nothing can refuse or delay it."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Name in the code -> name for site hooks, of arguments where the two differ."""
    secrets: frozenset[str] = frozenset()
    """Arguments that no site hook gets."""
    redactions: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    """Name of an argument -> the function whose result site hooks get instead of its value."""


def kind_of(context: Context, operation: str) -> OperationKind:
    """Return the description of an operation. Raises `LookupError` for one that is not declared."""
    for kind in context.declared(OperationKind):
        if kind.name == operation:
            return kind
    raise LookupError(f"no plugin declares the operation {operation!r}")


@dataclass(frozen=True)
class Operation:
    """One act, as guards, listeners and site hooks see it."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    result: Any = None
    failure: Exception | None = None
    """The error that it ended with, for site hooks of the phase `fail`."""

    @property
    def is_dry_run(self) -> bool:
        """True if the operation changes nothing, and only reports what it would do."""
        return self.arguments.get("check") is True


@dataclass(frozen=True)
class Guard:
    """A check before an operation: if it raises `Refused` with a sentence, the operation is not done."""

    name: str
    operations: tuple[str, ...]
    """Names, or patterns such as `vm-*`."""
    check: Callable[[Context, Operation], Awaitable[None]]


@dataclass(frozen=True)
class Listener:
    """Called after an operation, or by an agent to do its part of one (`Operations.ask`)."""

    name: str
    operations: tuple[str, ...]
    notify: Callable[[Context, Operation], Awaitable[Any]]


class SiteHooks(Protocol):
    """The site hooks; see pvcd/sitehooks."""

    async def ask(self, context: Context, operation: Operation) -> None:
        """Run the site hooks of the phase `pre`. Raises `HookRefused` when one of them refuses."""

    async def notify(self, context: Context, operation: Operation) -> None:
        """Start the site hooks of the phase `post` or `fail`. It never raises."""


SITE_HOOKS: ComponentKey[SiteHooks] = ComponentKey("site-hooks")
"""If it is not open, operations have no site hooks."""
