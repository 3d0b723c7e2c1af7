"""The volumes of a VM that is being made: created or cloned, mapped, formatted, and all of it undone.

What undoes takes the facts that what did it wrote down before, does nothing twice, and touches nobody else's volumes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pvcd import Clock, Conflict, Failed, Invalid, NotFound, PvcdError, programs
from pvcd_plugins.provisioner.grammar import read_filesystem_arg

MKFS = {
    **{kind: (f"mkfs.{kind}", "-q", "-F") for kind in ("ext2", "ext3", "ext4")},
    **{kind: (f"mkfs.{kind}", "-q", "-f") for kind in ("xfs", "btrfs")},
    "vfat": ("mkfs.vfat", "-I"),
    "swap": ("mkswap", "-f"),
}
"""What makes each file system, also where the device looks as if it had one."""
FORMAT_SECONDS = 600.0
DEAD_CLIENT = 40.0
"""Seconds after which Ceph has forgotten a client that was killed, so that its volume can be removed (it says 30)."""
LET_GO = 15.0
"""Seconds after which the kernel has let go of the disks of a script that was killed."""

Intend = Callable[..., Awaitable[None]]
"""Writes facts down for good: `await intend(volumes=[...])`."""
Fact = dict[str, str | None]


class HasId(Protocol):
    """A volume, which keeps its id for as long as it is there."""

    @property
    def id(self) -> str:
        """No other volume of its pool ever has it."""


class Cluster(Protocol):
    """What is needed of the door to Ceph."""

    async def volume(self, pool: str, volume: str) -> HasId:
        """One volume."""

    async def create_volume(self, pool: str, volume: str, size: int) -> None:
        """Make an empty volume."""

    async def clone_volume(self, pool: str, source: str, volume: str) -> None:
        """Make a copy of a volume in its pool."""

    async def remove_volume(self, pool: str, volume: str) -> None:
        """Remove it."""


class IsMapped(Protocol):
    """A volume that is mapped."""

    @property
    def pool(self) -> str:
        """Its pool."""

    @property
    def volume(self) -> str:
        """Its name."""

    @property
    def device(self) -> Path | None:
        """None when what held it was killed."""


class Mapping(Protocol):
    """What is needed of the door to volumes as local devices."""

    async def mapped(self) -> Sequence[IsMapped]:
        """What is mapped here."""

    async def map(self, pool: str, volume: str) -> Path:
        """The device that is the volume from now on."""

    async def unmap(self, pool: str, volume: str) -> None:
        """Take its device away; fine when it is not mapped."""


class Left(Failed):
    """Something could not be undone."""

    code = "left-behind"

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__(" ".join(sentences))
        self.sentences = tuple(sentences)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A volume that shall be: of a size, or a copy of another one of its pool."""

    pool: str
    volume: str
    size_gb: int | None = None
    source: str | None = None


def volume_name(vm: str, disk_id: str) -> str:
    """What the volume of a VM's disk is called."""
    return f"{vm}_{disk_id}"


async def create(cluster: Cluster, wanted: Iterable[Wanted], intend: Intend) -> None:
    """Make volumes, one after the other, none of which may be there. The fact `volumes` is what `remove` takes."""
    facts: list[Fact] = []
    for each in wanted:
        await _refuse_taken(cluster, each)
        facts.append({"pool": each.pool, "volume": each.volume, "id": None})
        await intend(volumes=[dict(fact) for fact in facts])
        try:
            await _make(cluster, each)
        except Conflict as error:
            if error.code == "volume-exists":  # it is somebody else's, who was faster
                await intend(volumes=facts[:-1])
            raise
        facts[-1]["id"] = (await cluster.volume(each.pool, each.volume)).id
        await intend(volumes=[dict(fact) for fact in facts])


async def remove(cluster: Cluster, volumes: Sequence[Fact], clock: Clock, patience: float = DEAD_CLIENT) -> None:
    """Remove what `create` made, whatever of it is there. Raises `Left`."""
    end = clock.monotonic() + patience

    async def remove_one(pool: str, volume: str, fact: Fact) -> None:
        try:
            if fact["id"] not in (None, (await cluster.volume(pool, volume)).id):
                return
        except Conflict:  # it is there by half only
            pass
        await _patiently(lambda: cluster.remove_volume(pool, volume), clock, end)

    await _undo_each(volumes, remove_one)


async def map_all(mapping: Mapping, volumes: Sequence[tuple[str, str]], intend: Intend) -> list[Path]:
    """Their devices. The fact `mapped` is what `unmap_all` takes."""
    await intend(mapped=[{"pool": pool, "volume": volume} for pool, volume in volumes])
    return [await mapping.map(pool, volume) for pool, volume in volumes]


async def refuse_broken(mapping: Mapping, mapped: Sequence[Fact]) -> None:
    """Raise what has become of volumes whose mapping was killed: of what was written last nobody knows."""
    wanted = [(fact["pool"], fact["volume"]) for fact in mapped]
    whole = [(each.pool, each.volume) for each in await mapping.mapped() if each.device]
    broken = [f"{pool}/{volume}" for pool, volume in wanted if (pool, volume) not in whole]
    if broken:
        raise Failed(f"The mapping of {', '.join(broken)} was killed, and what was written last may be lost.")


async def unmap_all(mapping: Mapping, mapped: Sequence[Fact], clock: Clock, patience: float = LET_GO) -> None:
    """Let all that was written reach the volumes, and take their devices away, on the node that mapped them."""
    end = clock.monotonic() + patience

    async def unmap_one(pool: str, volume: str, _: Fact) -> None:
        await _patiently(lambda: mapping.unmap(pool, volume), clock, end)

    await _undo_each(mapped, unmap_one)


def mkfs(device: Path, filesystem: str, arguments: Iterable[str]) -> list[str]:
    """The program that formats a device, and its arguments: of each `--option=value` two."""
    if filesystem not in MKFS:
        raise Invalid(f"{filesystem[:40]!r} is no file system that can be made here: valid are {', '.join(MKFS)}.")
    argv = list(MKFS[filesystem])
    for argument in arguments:
        try:
            option, _, value = read_filesystem_arg(argument).partition("=")
        except ValueError as error:
            raise Invalid(f"filesystem_arg {argument[:60]!r} is not valid: {error}.") from None
        argv += [option, value]
    return [*argv, str(device)]


async def make_filesystem(
    device: Path, filesystem: str, arguments: Iterable[str], timeout: float = FORMAT_SECONDS
) -> None:
    """Format a device. Whatever it held is lost."""
    await programs.run(mkfs(device, filesystem, arguments), timeout=timeout)


async def _refuse_taken(cluster: Cluster, wanted: Wanted) -> None:
    try:
        await cluster.volume(wanted.pool, wanted.volume)
    except NotFound as error:
        if error.code == "volume-not-found":
            return
        raise
    raise Conflict(f"There is a volume {wanted.pool}/{wanted.volume} already.", code="volume-exists")


async def _make(cluster: Cluster, wanted: Wanted) -> None:
    if wanted.source is not None:
        await cluster.clone_volume(wanted.pool, wanted.source, wanted.volume)
    else:
        assert wanted.size_gb is not None  # noqa: S101
        await cluster.create_volume(wanted.pool, wanted.volume, wanted.size_gb * 1024**3)


async def _undo_each(facts: Sequence[Fact], undo: Callable[[str, str, Fact], Awaitable[None]]) -> None:
    """Undo the last one first, and each also if another one fails."""
    sentences = []
    for fact in reversed(facts):
        pool, volume = str(fact["pool"]), str(fact["volume"])
        try:
            await undo(pool, volume, fact)
        except NotFound:
            pass
        except PvcdError as error:
            sentences.append(f"{pool}/{volume}: {error.sentence}")
    if sentences:
        raise Left(sentences)


async def _patiently(act: Callable[[], Awaitable[Any]], clock: Clock, end: float) -> None:
    """Do what is refused for as long as somebody who was killed still counts as using the volume."""
    while True:
        try:
            await act()
            return
        except Conflict as error:
            if error.code != "volume-in-use" or clock.monotonic() >= end:
                raise
        await clock.sleep(1)
