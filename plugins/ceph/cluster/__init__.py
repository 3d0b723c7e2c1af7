"""The door to Ceph: what may be asked of the cluster, and of the disks of the node that we run on.

    Cluster     pools, volumes, snapshots, options and OSDs, from wherever Ceph can be reached
    OsdHost     the part of adding and removing an OSD that only the node with the device can do

Errors: what cannot be done as asked is a `Refused` and changed nothing (`NotFound` with the code <kind>-not-found,
`AlreadyThere` with <kind>-exists, `InUse` with <kind>-in-use, `Invalid` for a name or number, `CephRefused` for what
only Ceph itself knows). `CephError` says that Ceph failed at it, `CephUnavailable` that nobody answered in time, so
that what was asked may still happen. <kind> is pool, volume, snapshot or osd.

All sizes are bytes. A name is one of `pvcd.records.Name`; what others named otherwise is left out of every list.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Protocol

from pvcd import NAME_PATTERN, Conflict, Failed, Invalid
from pvcd_plugins.ceph.cluster.facts import (
    Device,
    ListedVolume,
    Lock,
    Monitors,
    Osd,
    Pool,
    Snapshot,
    Status,
    Utilization,
    Volume,
    Watcher,
)

__all__ = (
    "LEFTOVER",
    "OPEN",
    "OPTIONS",
    "AlreadyThere",
    "CephError",
    "CephRefused",
    "CephUnavailable",
    "Cluster",
    "Device",
    "DeviceRefused",
    "HasSnapshots",
    "InUse",
    "Incomplete",
    "ListedVolume",
    "Lock",
    "Monitors",
    "Osd",
    "OsdHost",
    "Pool",
    "Shrinks",
    "Snapshot",
    "Status",
    "Utilization",
    "Volume",
    "Watcher",
    "check_name",
    "check_option",
    "check_pool",
    "check_size",
    "check_snapshot",
    "check_weight",
    "is_name",
)

OPTIONS = (
    *("nobackfill", "nodeep-scrub", "nodown", "noin", "noout", "norebalance", "norecover"),
    *("noscrub", "nosnaptrim", "notieragent", "noup", "pause"),
)
"""The flags that people set and unset on all OSDs."""

LEFTOVER = "pvcd-clone-"
"""How the names of the snapshots begin that exist while a volume is cloned."""

OPEN = "a client has it open, or had half a minute ago"
"""Why a volume is in use."""

_NAME = re.compile(NAME_PATTERN)
_MAX_PGS = 65536
_MAX_COPIES = 10
_MAX_WEIGHT = 10000
_MAX_SIZE = 2**49  # whose map of objects librbd can still make
_MAX_NAME = 128  # as Name has it; Ceph's own limit for images is 96


class CephError(Failed):
    """Ceph did not do what it was asked; the sentence has its own words."""

    code = "ceph-failed"


class CephUnavailable(Failed):
    """Ceph cannot be reached or does not answer: what was asked of it may still happen."""

    code = "ceph-unavailable"


class CephRefused(Conflict):
    """Ceph will not do it as asked; the sentence has its own words."""

    code = "ceph-refused"


class AlreadyThere(Conflict):
    """There is one of that name already."""

    def __init__(self, kind: str, name: object) -> None:
        super().__init__(f"There is a {kind} {str(name)!r} already.", code=f"{kind.lower()}-exists")


class InUse(Conflict):
    """Something uses it; `why` ends the sentence."""

    def __init__(self, kind: str, name: object, why: str) -> None:
        super().__init__(f"The {kind} {str(name)!r} is in use: {why}.", code=f"{kind.lower()}-in-use")


class HasSnapshots(Conflict):
    """A volume cannot be removed before its snapshots."""

    code = "volume-has-snapshots"

    def __init__(self, volume: str) -> None:
        super().__init__(f"The volume {volume!r} has snapshots: remove them first.")


class Incomplete(Conflict):
    """A volume has a name but is not all there, as after the death of whoever made or removed it."""

    code = "volume-incomplete"

    def __init__(self, volume: str) -> None:
        super().__init__(f"The volume {volume!r} was made or removed by half only: remove it, and repeat the request.")


class Shrinks(Conflict):
    """A volume would lose what lies behind its new end."""

    code = "volume-shrinks"

    def __init__(self, volume: str) -> None:
        super().__init__(f"The volume {volume!r} is larger than that, and what lies behind the new end would be lost.")


class DeviceRefused(Conflict):
    """A path is not an unused block device of this node; the sentence says why."""

    code = "device-refused"


class Cluster(Protocol):
    """A Ceph cluster. Every verb has a deadline; those marked *long* one of an hour, while Ceph goes on answering."""

    async def status(self) -> Status:
        """How it is."""

    async def utilization(self) -> Utilization:
        """How full it is."""

    async def options(self) -> frozenset[str]:
        """Those of `OPTIONS` that are set."""

    async def set_option(self, option: str) -> None:
        """Set one of `OPTIONS`; fine when it is."""

    async def unset_option(self, option: str) -> None:
        """Unset one of `OPTIONS`; fine when it is not set."""

    async def auth_key(self, user: str) -> str:
        """The secret key of `client.<user>`, in base64."""

    async def monitors(self) -> Monitors:
        """Which cluster it is, and where clients find it."""

    async def osds(self) -> list[Osd]:
        """All OSDs, by id."""

    async def osd_in(self, osd: int) -> None:
        """Let it take data; fine when it does."""

    async def osd_out(self, osd: int) -> None:
        """Let its data move elsewhere, and return at once; fine when it is out."""

    async def safe_to_destroy(self, osds: Collection[int]) -> frozenset[int]:
        """Those of them that Ceph calls safe to destroy; one that there is not counts as safe.

        That is no promise for an OSD that is out: it has no placement groups any more, so it is called safe at once,
        while objects wait to be copied from it. Who destroys it must also see all placement groups active and clean.
        """

    async def purge_osd(self, osd: int) -> None:
        """Forget one that is down and safe to destroy, with its key; fine when it is forgotten."""

    async def pools(self) -> list[Pool]:
        """All pools, by name."""

    async def create_pool(self, pool: str, pgs: int, copies: int, mincopies: int) -> None:
        """Make a pool for volumes; when a later step fails, it is removed again."""

    async def remove_pool(self, pool: str) -> None:
        """Remove a pool with everything in it."""

    async def volumes(self, pool: str) -> list[ListedVolume]:
        """The volumes of a pool with their snapshots, by name. One without an `id` is `Incomplete`."""

    async def volume(self, pool: str, volume: str) -> Volume:
        """One volume."""

    async def create_volume(self, pool: str, volume: str, size: int) -> None:
        """Make an empty volume."""

    async def clone_volume(self, pool: str, source: str, volume: str) -> None:
        """Make a copy of a volume as it is now, in its pool, that needs the source no more. *Long.*

        The new volume is whole from its first moment: it begins as a clone of a snapshot and is then flattened. When
        that is interrupted it has a `parent` until `flatten_volume`.
        """

    async def flatten_volume(self, pool: str, volume: str) -> None:
        """Let a clone need its source no more; fine when it does not. *Long.*"""

    async def resize_volume(self, pool: str, volume: str, size: int, *, shrink: bool = False) -> None:
        """Change its size. Less than it has is refused unless `shrink` says that what lies behind may go. *Long.*"""

    async def rename_volume(self, pool: str, volume: str, new: str) -> None:
        """Give it another name."""

    async def remove_volume(self, pool: str, volume: str) -> None:
        """Remove it. Refused while it has snapshots or somebody has it open. *Long.*"""

    async def snapshots(self, pool: str, volume: str) -> list[Snapshot]:
        """Those of a volume, by name."""

    async def create_snapshot(self, pool: str, volume: str, snapshot: str) -> None:
        """Take one."""

    async def rename_snapshot(self, pool: str, volume: str, snapshot: str, new: str) -> None:
        """Give it another name."""

    async def remove_snapshot(self, pool: str, volume: str, snapshot: str) -> None:
        """Remove it."""

    async def rollback(self, pool: str, volume: str, snapshot: str) -> None:
        """Let a volume that nobody has open be again what it was. *Long.*"""

    async def locks(self, pool: str, volume: str) -> list[Lock]:
        """Its locks."""

    async def remove_lock(self, pool: str, volume: str, lock: Lock) -> None:
        """Break a lock, and keep its holder from writing ever again; fine when it is gone."""

    async def watchers(self, pool: str, volume: str) -> list[Watcher]:
        """Who has it open."""


class OsdHost(Protocol):
    """The disks of this node and the OSDs on them."""

    async def devices(self) -> list[Device]:
        """All block devices of this node, by path."""

    async def check_device(self, path: str) -> str:
        """The true path of an unused block device; raises `DeviceRefused` for anything else."""

    async def prepare_osd(self, device: str, weight: float) -> int:
        """Make a new OSD of an unused device and start it; returns its id as soon as it is up.

        Nothing of it stays when it fails. What a call left that never ended is cleaned by the next one.
        """

    async def undo_interrupted(self) -> None:
        """Undo what calls of `prepare_osd` left that never ended, as the next one would."""

    async def local_osds(self) -> list[int]:
        """Those that have their data on devices of this node, by id."""

    async def osd_running(self, osd: int) -> bool:
        """Whether its daemon runs here."""

    async def start_osd(self, osd: int) -> None:
        """Start one that was prepared here; fine when it runs."""

    async def remove_osd(self, osd: int) -> None:
        """Stop it, wipe its device and forget it here; fine when that is done, also when the device is broken.

        Whether it is safe to destroy is for the caller to know, and to purge it from the cluster afterwards.
        """


def is_name(name: str) -> bool:
    """Whether a name may go into a command."""
    return len(name) <= _MAX_NAME and _NAME.fullmatch(name) is not None


def check_name(kind: str, name: str) -> str:
    """A name that may go into a command; raises `Invalid` for any other."""
    if not is_name(name):
        raise Invalid(
            f"{name[:_MAX_NAME]!r} is no name for a {kind}: it begins with a letter or digit, has letters, digits "
            f"and any of ._+- after that, and at most {_MAX_NAME} characters."
        )
    return name


def check_option(option: str) -> str:
    """One of `OPTIONS`; raises `Invalid` for any other."""
    if option not in OPTIONS:
        raise Invalid(f"{option!r} is no option of the cluster: valid are {', '.join(OPTIONS)}.")
    return option


def check_pool(pool: str, pgs: int, copies: int, mincopies: int) -> None:
    """Raises `Invalid` for what is no pool."""
    check_name("pool", pool)
    if not 1 <= pgs <= _MAX_PGS:
        raise Invalid(f"A pool has 1 to {_MAX_PGS} placement groups, not {pgs}.")
    if not 1 <= copies <= _MAX_COPIES:
        raise Invalid(f"A pool keeps 1 to {_MAX_COPIES} copies, not {copies}.")
    if not 1 <= mincopies <= copies:
        raise Invalid(f"The least copies of a pool that keeps {copies} are 1 to {copies}, not {mincopies}.")


def check_size(size: int) -> int:
    """The size of a volume; raises `Invalid` for one that none can have."""
    if not 1 <= size <= _MAX_SIZE:
        raise Invalid(f"A volume has 1 to {_MAX_SIZE} bytes, not {size}.")
    return size


def check_weight(weight: float) -> float:
    """The weight of an OSD; raises `Invalid` for one that none can have."""
    if not 0 <= weight <= _MAX_WEIGHT:  # which no NaN is
        raise Invalid(f"The weight of an OSD is a number from 0 to {_MAX_WEIGHT}, usually 1, not {weight}.")
    return weight


def check_snapshot(snapshot: str) -> str:
    """A name for a new snapshot; raises `Invalid` for any other."""
    if snapshot.startswith(LEFTOVER):
        raise Invalid(f"Names of snapshots that begin with {LEFTOVER!r} are not for people: choose another one.")
    return check_name("snapshot", snapshot)
