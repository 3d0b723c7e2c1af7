"""Find, create, replace and remove templates, scripts and profiles: no name twice, nothing removed that a profile uses.

Each creation also writes the counter and checks the records that it refers to. A removal reads the counter, catches up
with the store, looks for profiles that use the record, and deletes it only if the counter is unchanged. So a removal
sees every new profile, and no profile is created of something that is being removed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

from pvcd import (
    Change,
    Changed,
    Check,
    Conflict,
    Context,
    Create,
    Delete,
    Invalid,
    NotFound,
    Put,
    Record,
    Upsert,
    retried,
)
from pvcd_plugins.provisioner.records import EMPTY, Counter, Numbered, Profile

T = TypeVar("T", bound=Numbered)
MAX_TEXT_BYTES = 256 * 1024
MAX_SHOWN = 5


def find(context: Context, kind: type[T], name: str) -> T:
    """Return the record of this kind and exact name; the userdata template `empty` always exists."""
    if isinstance(EMPTY, kind) and name == EMPTY.name:
        return EMPTY
    found = context.store.get(kind, name)
    if found is None:
        raise NotFound(kind.kind, name)
    return found


def refuse_large(text: str) -> None:
    """Raise `Invalid` for a text that is too large for the store."""
    size = len(text.encode())
    if size > MAX_TEXT_BYTES:
        raise Invalid(f"data must have at most {MAX_TEXT_BYTES} bytes; got {size} bytes.")


def next_id(context: Context) -> tuple[int, Change]:
    """Return the next id, and the change of the counter to write together with the record that gets it."""
    counter = context.store.get(Counter) or Counter(last=0)
    number = counter.last + 1
    return number, Upsert(counter.changed(last=number))


async def make(context: Context, draft: Numbered, refers_to: Collection[Record] = ()) -> None:
    """Write a draft under the next id, if all that it refers to is unchanged. The caller is `retried`."""
    if context.store.find(draft.path) is not None:
        code = f"{draft.kind.replace(' ', '-')}-exists"
        raise Conflict(f"Cannot create {draft.kind} {draft.name!r}: it exists already.", code=code)
    number, counted = next_id(context)
    await context.store.write(Create(draft.changed(id=number)), counted, *map(Check, refers_to))


@retried
async def create(context: Context, draft: Numbered) -> None:
    """Create a record that refers to no other."""
    await make(context, draft)


@retried
async def replace(context: Context, kind: type[T], name: str, **values: Any) -> None:
    """Give a record other values."""
    await context.store.write(Put(find(context, kind, name).changed(**values)))


@retried
async def remove(context: Context, kind: type[T], name: str) -> None:
    """Remove a record that no profile refers to."""
    record, counter = find(context, kind, name), context.store.get(Counter)
    if counter is None:
        raise Changed(Counter.at())
    await context.store.catch_up()
    field = kind.kind.replace(" ", "_")  # of a profile
    users = [each.name for each in context.store.all(Profile) if getattr(each, field, None) == name]
    if users:
        plural = "" if len(users) == 1 else "s"
        more = f" and {len(users) - MAX_SHOWN} more" if len(users) > MAX_SHOWN else ""
        raise Conflict(
            f"Cannot remove {kind.kind} {name!r}: in use by profile{plural} "
            f"{', '.join(map(repr, users[:MAX_SHOWN]))}{more}. Remove the profile{plural} first.",
            code="used-by-profile",
        )
    await context.store.write(Delete(record), Check(counter))
