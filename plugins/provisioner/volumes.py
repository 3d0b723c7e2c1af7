"""The volumes of a VM that is being built: created or cloned, mapped, and all of it undone.

Each undo takes the facts that were journaled before the act, may run twice, and touches no volume of another VM.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pvcd import Clock, Conflict, Failed, NotFound, PvcdError
from pvcd_plugins.ceph.service import DEAD_CLIENT_SECONDS

RELEASE_SECONDS = 15.0
"""How long the kernel may take to release the disks of a killed script."""
PASSING = ("volume-in-use", "ceph-unavailable")
"""The errors that go away while an undo is repeated."""

Intend = Callable[..., Awaitable[None]]
"""Journals facts: `await intend(volumes=[...])`."""
Fact = dict[str, str | None]


class HasId(Protocol):
    """A volume with an id that it keeps."""

    @property
    def id(self) -> str:
        """An id that no other volume of its pool ever has."""


class Cluster(Protocol):
    """The part of the door to Ceph that is needed here."""

    async def volume(self, pool: str, volume: str) -> HasId:
        """Return a volume."""

    async def create_volume(self, pool: str, volume: str, size: int) -> None:
        """Create an empty volume."""

    async def clone_volume(self, pool: str, source: str, volume: str) -> None:
        """Create a copy of a volume in its pool."""

    async def settle_volume(self, pool: str, volume: str, source: str | None = None) -> None:
        """Wait until nothing of an interrupted creation can take effect any more."""

    async def remove_volume(self, pool: str, volume: str) -> None:
        """Remove a volume."""


class IsMapped(Protocol):
    """A mapped volume."""

    @property
    def pool(self) -> str:
        """Its pool."""

    @property
    def volume(self) -> str:
        """Its name."""

    @property
    def device(self) -> Path | None:
        """None if the process that held it was killed."""


class Mapping(Protocol):
    """The part of the door to local devices that is needed here."""

    async def mapped(self) -> Sequence[IsMapped]:
        """Return the volumes that are mapped on this machine."""

    async def map(self, pool: str, volume: str) -> Path:
        """Map a volume, and return its device."""

    async def unmap(self, pool: str, volume: str) -> None:
        """Unmap a volume; does nothing if it is not mapped."""


class VolumeTaken(Conflict):
    """A volume of this name exists already."""

    code = "volume-exists"

    def __init__(self, pool: str, volume: str) -> None:
        super().__init__(f"Cannot create volume '{pool}/{volume}': it exists already.")


class Leftovers(Failed):
    """Something could not be undone."""

    code = "left-behind"

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__(" ".join(sentences))
        self.sentences = tuple(sentences)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A volume to create: empty and of a size, or a copy of another volume of its pool."""

    pool: str
    volume: str
    size_gb: int | None = None
    source: str | None = None


def volume_name(vm: str, disk_id: str) -> str:
    """Return the name of the volume of a VM's disk."""
    return f"{vm}_{disk_id}"


async def create(cluster: Cluster, wanted: Iterable[Wanted], intend: Intend) -> None:
    """Create volumes, one after the other, none of which may exist. The fact `volumes` is what `remove` takes."""
    facts: list[Fact] = []
    for each in wanted:
        await _refuse_taken(cluster, each)
        facts.append({"pool": each.pool, "volume": each.volume, "source": each.source, "id": None})
        await intend(volumes=[dict(fact) for fact in facts])
        try:
            await _make(cluster, each)
        except Conflict as error:
            if error.code == "volume-exists":  # created meanwhile by another client
                await intend(volumes=facts[:-1])
            raise
        facts[-1]["id"] = (await cluster.volume(each.pool, each.volume)).id
        await intend(volumes=[dict(fact) for fact in facts])


async def remove(
    cluster: Cluster, volumes: Sequence[Fact], clock: Clock, patience: float = DEAD_CLIENT_SECONDS
) -> None:
    """Remove what `create` has made, complete or not. Raises `Leftovers`."""

    async def remove_one(pool: str, volume: str, fact: Fact) -> None:
        if fact["id"] is None:  # its creation was interrupted, and may still take effect
            await cluster.settle_volume(pool, volume, fact.get("source"))
        else:
            with contextlib.suppress(NotFound):  # also an incomplete volume, which is removed below
                if fact["id"] != (await cluster.volume(pool, volume)).id:
                    return
        await cluster.remove_volume(pool, volume)

    await _undo_each(volumes, remove_one, clock, patience)


async def map_all(mapping: Mapping, volumes: Sequence[tuple[str, str]], intend: Intend) -> list[Path]:
    """Map volumes, and return their devices. The fact `mapped` is what `unmap_all` takes."""
    await intend(mapped=[{"pool": pool, "volume": volume} for pool, volume in volumes])
    return [await mapping.map(pool, volume) for pool, volume in volumes]


async def refuse_broken(mapping: Mapping, mapped: Sequence[Fact]) -> None:
    """Raise `Failed` for volumes whose mapping was killed: the last writes may be lost."""
    wanted = [(fact["pool"], fact["volume"]) for fact in mapped]
    whole = [(each.pool, each.volume) for each in await mapping.mapped() if each.device]
    broken = [f"{pool}/{volume}" for pool, volume in wanted if (pool, volume) not in whole]
    if broken:
        raise Failed(f"Cannot use {', '.join(map(repr, broken))}: mapping killed, the last writes may be lost.")


async def unmap_all(mapping: Mapping, mapped: Sequence[Fact], clock: Clock, patience: float = RELEASE_SECONDS) -> None:
    """Write everything to the volumes, and unmap them, on the node that mapped them. Raises `Leftovers`."""

    async def unmap_one(pool: str, volume: str, _: Fact) -> None:
        await mapping.unmap(pool, volume)

    await _undo_each(mapped, unmap_one, clock, patience)


async def _refuse_taken(cluster: Cluster, wanted: Wanted) -> None:
    try:
        await cluster.volume(wanted.pool, wanted.volume)
    except NotFound as error:
        if error.code == "volume-not-found":
            return
        raise
    raise VolumeTaken(wanted.pool, wanted.volume)


async def _make(cluster: Cluster, wanted: Wanted) -> None:
    if wanted.source is not None:
        await cluster.clone_volume(wanted.pool, wanted.source, wanted.volume)
    else:
        assert wanted.size_gb is not None  # noqa: S101
        await cluster.create_volume(wanted.pool, wanted.volume, wanted.size_gb * 1024**3)


async def _undo_each(
    facts: Sequence[Fact], undo: Callable[[str, str, Fact], Awaitable[None]], clock: Clock, patience: float
) -> None:
    """Undo in reverse, each even if another fails, and again while that may help. Raises `Leftovers`."""
    sentences, end = [], clock.monotonic() + patience
    for fact in reversed(facts):
        pool, volume = str(fact["pool"]), str(fact["volume"])
        try:
            await _retry(partial(undo, pool, volume, fact), clock, end)
        except NotFound:
            pass
        except PvcdError as error:
            sentences.append(f"{pool}/{volume}: {error.sentence}")
    if sentences:
        raise Leftovers(sentences)


async def _retry(act: Callable[[], Awaitable[Any]], clock: Clock, end: float) -> None:
    """Repeat an act while a killed client still counts as using the volume, or Ceph does not answer."""
    while True:
        try:
            await act()
            return
        except PvcdError as error:
            if error.code not in PASSING or clock.monotonic() >= end:
                raise
        await clock.sleep(1)
