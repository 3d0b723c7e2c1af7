"""How templates, scripts and profiles are made, replaced and removed: none twice, and none away from under a profile.

Whoever makes anything writes the counter along, and a check of each thing that it refers to. Whoever removes something
reads the counter, then catches up with all that others have written, then sees who refers to it, and removes it
provided that the counter still stands. So a profile is either seen by the removal, or made anew without what is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from pvcd import Change, Changed, Check, Conflict, Context, Create, Delete, Exists, Invalid, Put, Record, retried
from pvcd_plugins.provisioner.records import Counter, Numbered, Profile

T = TypeVar("T", bound=Numbered)
Find = Callable[[Context, str], T]
"""The thing of this exact name, or `NotFound`."""
MAX_TEXT = 256 * 1024
SHOWN = 5


def refuse_large(text: str) -> None:
    """Refuse what should not be kept in the store."""
    size = len(text.encode())
    if size > MAX_TEXT:
        raise Invalid(f"data has {size} bytes; {MAX_TEXT} are possible.")


def counting(context: Context) -> tuple[int, Change]:
    """The next id, and what to write along with what gets it."""
    counter = context.store.get(Counter)
    if counter is None:
        return 1, Create(Counter(last=1))
    return counter.last + 1, Put(counter.changed(last=counter.last + 1))


async def make(context: Context, draft: Numbered, taken: Conflict, refers_to: Collection[Record] = ()) -> None:
    """Write what is drafted under the next id, provided that what it refers to stands; for a rule that is `retried`."""
    if context.store.find(draft.path) is not None:
        raise taken
    number, counted = counting(context)
    try:
        await context.store.write(Create(draft.changed(id=number)), counted, *map(Check, refers_to))
    except Exists as error:  # what somebody else has just made is known at the next attempt
        raise Changed(error.path) from None


@retried
async def replace(context: Context, find: Find[Any], name: str, **values: Any) -> None:
    """Give a thing other values."""
    await context.store.write(Put(find(context, name).changed(**values)))


@retried
async def remove(context: Context, find: Find[Any], name: str, field: str | None = None) -> None:
    """Remove a thing, unless a profile refers to it in this field."""
    thing, counter = find(context, name), context.store.get(Counter)
    if counter is None:
        raise Changed(Counter.at())
    await context.store.catch_up()
    users = [each.name for each in context.store.all(Profile) if field and getattr(each, field) == name]
    if users:
        shown = ", ".join(users[:SHOWN]) + (f" and {len(users) - SHOWN} more" if len(users) > SHOWN else "")
        raise Conflict(f"{name} is not removed, for it is used by profile {shown}.", code="used-by-profile")
    await context.store.write(Delete(thing), Check(counter))
