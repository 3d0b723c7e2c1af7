"""The door to Ceph: the requests to the cluster, and to the disks of this node.

    Cluster     pools, volumes, snapshots, options and OSDs, from wherever Ceph can be reached
    OsdHost     the part of adding and removing an OSD that only the node with the device can do

Errors: a request that cannot be carried out raises a `Refused` and changes nothing (`NotFound` with the code
<kind>-not-found, `AlreadyThere` with <kind>-exists, `InUse` with <kind>-in-use, `Invalid` for a name or number,
`CephRefused` for what only Ceph itself knows). `CephError` means that Ceph failed, `CephUnavailable` that it did not
finish in time, so that the request may still take effect. <kind> is pool, volume, snapshot or osd.

All sizes are in bytes. Lists leave out everything whose name is not a `pvcd.Name`.
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

# fmt: off
__all__ = [
    "Device", "ListedVolume", "Lock", "Monitors", "Osd", "Pool", "Snapshot", "Status", "Utilization", "Volume",
    "Watcher",
]
# fmt: on

OPTIONS = (
    *("nobackfill", "nodeep-scrub", "nodown", "noin", "noout", "norebalance", "norecover"),
    *("noscrub", "nosnaptrim", "notieragent", "noup", "pause"),
)
"""The flags of all OSDs that can be set and unset."""

DEAD_CLIENT_SECONDS = 40.0
"""Time after which Ceph no longer lists a killed client; its own limit is 30 s."""

LEFTOVER = "pvcd-clone-"
"""The prefix of the snapshots that exist only while a volume is cloned."""

OPEN = "a client has it open, or had it open in the last 30 s"
"""Why a volume is in use; Ceph notices the death of a client only after that time."""

_NAME = re.compile(NAME_PATTERN)
_MAX_PGS = 65536
_MAX_COPIES = 10
_MAX_WEIGHT = 10000
_MAX_SIZE = 2**49  # the most for which librbd can still create an object map
_MAX_NAME = 128  # as Name has it; Ceph's own limit for images is 96


class CephError(Failed):
    """Ceph failed to carry out a request; the sentence quotes it."""

    code = "ceph-failed"


class CephUnavailable(Failed):
    """Ceph cannot be reached or did not finish in time: the request may still take effect."""

    code = "ceph-unavailable"


class CephRefused(Conflict):
    """Ceph refused a request; the sentence quotes it."""

    code = "ceph-refused"


class AlreadyThere(Conflict):
    """The name is taken; `act` is a verb with its object, such as `add pool 'vms'`."""

    def __init__(self, kind: str, act: str) -> None:
        super().__init__(f"Cannot {act}: a {kind} of this name already exists.", code=f"{kind.lower()}-exists")


class InUse(Conflict):
    """Something uses it; `act` is a verb with its object, such as `remove volume 'vms/a'`."""

    def __init__(self, kind: str, act: str, reason: str) -> None:
        super().__init__(f"Cannot {act}: {reason}.", code=f"{kind.lower()}-in-use")


class HasSnapshots(Conflict):
    """A volume cannot be removed before its snapshots."""

    code = "volume-has-snapshots"

    def __init__(self, volume: str) -> None:
        super().__init__(f"Cannot remove volume {volume!r}: it has snapshots. Remove them first.")


class Incomplete(Conflict):
    """An incomplete volume has the name: its creation or removal was interrupted."""

    code = "volume-incomplete"

    def __init__(self, act: str) -> None:
        super().__init__(
            f"Cannot {act}: an incomplete volume has this name. Remove it, or repeat the request in two minutes."
        )


class Shrinks(Conflict):
    """A volume would lose the data beyond its new end."""

    code = "volume-shrinks"

    def __init__(self, volume: str) -> None:
        super().__init__(
            f"Cannot resize volume {volume!r}: it is larger, and data beyond the new end would be lost. "
            "Add the flag shrink if that is intended."
        )


class DeviceRefused(Conflict):
    """A path is not an unused block device of this node."""

    code = "device-refused"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"Cannot use device {path[:256]!r}: {reason}.")


class Cluster(Protocol):
    """A Ceph cluster. Every call has a deadline; for those marked *long* it is an hour, while Ceph keeps answering."""

    async def status(self) -> Status:
        """Return the output of `ceph status`."""

    async def utilization(self) -> Utilization:
        """Return the output of `rados df`."""

    async def options(self) -> frozenset[str]:
        """Return the members of `OPTIONS` that are set."""

    async def set_option(self, option: str) -> None:
        """Set one of `OPTIONS`; no error if it is set."""

    async def unset_option(self, option: str) -> None:
        """Unset one of `OPTIONS`; no error if it is not set."""

    async def auth_key(self, user: str) -> str:
        """Return the secret key of `client.<user>`, in base64."""

    async def monitors(self) -> Monitors:
        """Return the id of the cluster and the addresses of its monitors."""

    async def osds(self) -> list[Osd]:
        """Return all OSDs, by id."""

    async def osd_in(self, osd: int) -> None:
        """Set an OSD in; no error if it is."""

    async def osd_out(self, osd: int) -> None:
        """Set an OSD out and return at once, while Ceph moves its data; no error if it is out."""

    async def safe_to_destroy(self, osds: Collection[int]) -> frozenset[int]:
        """Return those that Ceph calls safe to destroy, nonexistent ones included.

        That does not suffice for an OSD that is out: it has no placement groups, so Ceph calls it safe at once, while
        objects still wait to be copied from it. All placement groups must be active and clean as well.
        """

    async def purge_osd(self, osd: int) -> None:
        """Purge an OSD that is down and safe to destroy, with its key; no error if there is none."""

    async def pools(self) -> list[Pool]:
        """Return all pools, by name."""

    async def create_pool(self, pool: str, pgs: int, copies: int, mincopies: int) -> None:
        """Create a pool for volumes; it is removed again when a later step fails."""

    async def remove_pool(self, pool: str) -> None:
        """Remove a pool with everything in it."""

    async def volumes(self, pool: str) -> list[ListedVolume]:
        """Return the volumes of a pool with their snapshots, by name. One without an `id` is incomplete."""

    async def volume(self, pool: str, volume: str) -> Volume:
        """Return one volume."""

    async def create_volume(self, pool: str, volume: str, size: int) -> None:
        """Create an empty volume."""

    async def clone_volume(self, pool: str, source: str, volume: str) -> None:
        """Create an independent copy of a volume in the same pool. *Long.*

        The copy is complete at once: it starts as a clone of a snapshot and is then flattened. When that is
        interrupted, it has a `parent` until `flatten_volume`.
        """

    async def settle_volume(self, pool: str, volume: str, source: str | None = None) -> None:
        """Wait until nothing of an interrupted creation can take effect any more, and remove its hidden parts.

        Afterwards the volume is there, complete or not, or it is not. `source` is what it was to be a copy of.
        """

    async def discard_volume(self, pool: str, volume: str) -> None:
        """Remove an incomplete volume, of which only the name exists; no error if it is complete or gone."""

    async def flatten_volume(self, pool: str, volume: str) -> None:
        """Make a clone independent of its source; no error if it is. *Long.*"""

    async def resize_volume(self, pool: str, volume: str, size: int, *, shrink: bool = False) -> None:
        """Change the size. Raises `Shrinks` for a smaller size unless `shrink` is set. *Long.*"""

    async def rename_volume(self, pool: str, volume: str, new: str) -> None:
        """Rename a volume."""

    async def remove_volume(self, pool: str, volume: str) -> None:
        """Remove a volume that has no snapshots and that no client has open. *Long.*"""

    async def snapshots(self, pool: str, volume: str) -> list[Snapshot]:
        """Return the snapshots of a volume, by name."""

    async def create_snapshot(self, pool: str, volume: str, snapshot: str) -> None:
        """Take a snapshot."""

    async def rename_snapshot(self, pool: str, volume: str, snapshot: str, new: str) -> None:
        """Rename a snapshot."""

    async def remove_snapshot(self, pool: str, volume: str, snapshot: str) -> None:
        """Remove a snapshot."""

    async def rollback(self, pool: str, volume: str, snapshot: str) -> None:
        """Roll a volume that no client has open back to a snapshot. *Long.*"""

    async def locks(self, pool: str, volume: str) -> list[Lock]:
        """Return the locks of a volume."""

    async def remove_lock(self, pool: str, volume: str, lock: Lock) -> None:
        """Break a lock and block its holder from ever writing again; no error if it is gone."""

    async def watchers(self, pool: str, volume: str) -> list[Watcher]:
        """Return the clients that have a volume open."""


class OsdHost(Protocol):
    """The disks of this node and the OSDs on them."""

    async def devices(self) -> list[Device]:
        """Return all block devices of this node, by path."""

    async def check_device(self, path: str) -> str:
        """Return the real path of an unused block device; raises `DeviceRefused` for anything else."""

    async def prepare_osd(self, device: str, weight: float) -> int:
        """Make an OSD of an unused device and start it; returns its id as soon as it is up.

        A failure leaves nothing behind. The next call cleans up after one that was interrupted.
        """

    async def undo_interrupted(self) -> None:
        """Clean up after interrupted calls of `prepare_osd`, as the next one would."""

    async def local_osds(self) -> list[int]:
        """Return the OSDs that have their data on devices of this node, by id."""

    async def osd_running(self, osd: int) -> bool:
        """Tell whether the daemon of an OSD runs here."""

    async def start_osd(self, osd: int) -> None:
        """Start an OSD that was prepared here; no error if it runs."""

    async def remove_osd(self, osd: int) -> None:
        """Stop an OSD, wipe its device and delete its folder; no error if that is done or if the device is broken.

        The caller makes sure that it is safe to destroy, and purges it from the cluster afterwards.
        """


def is_name(name: str) -> bool:
    """Tell whether a name may go into a command."""
    return len(name) <= _MAX_NAME and _NAME.fullmatch(name) is not None


def check_name(kind: str, name: str) -> str:
    """Return a name that may go into a command; raises `Invalid` for any other."""
    if not is_name(name):
        raise Invalid(
            f"{kind} must begin with a letter or digit and hold at most {_MAX_NAME} letters, digits and characters of "
            f"._+-; got {name[:_MAX_NAME]!r}."
        )
    return name


def check_option(option: str) -> str:
    """Return one of `OPTIONS`; raises `Invalid` for any other."""
    if option not in OPTIONS:
        raise Invalid(f"option must be one of {', '.join(OPTIONS)}; got {option!r}.")
    return option


def check_pool(pool: str, pgs: int, copies: int, mincopies: int) -> None:
    """Raise `Invalid` for a pool that cannot exist."""
    check_name("pool", pool)
    if not 1 <= pgs <= _MAX_PGS:
        raise Invalid(f"pgs must be from 1 to {_MAX_PGS}; got {pgs}.")
    if not 1 <= copies <= _MAX_COPIES:
        raise Invalid(f"copies must be from 1 to {_MAX_COPIES}; got {copies}.")
    if not 1 <= mincopies <= copies:
        raise Invalid(f"mincopies must be from 1 to copies ({copies}); got {mincopies}.")


def check_size(size: int) -> int:
    """Return the size of a volume; raises `Invalid` for an impossible one."""
    if not 1 <= size <= _MAX_SIZE:
        raise Invalid(f"size must be from 1 to {_MAX_SIZE} bytes; got {size}.")
    return size


def check_weight(weight: float) -> float:
    """Return the weight of an OSD; raises `Invalid` for an impossible one."""
    if not 0 <= weight <= _MAX_WEIGHT:  # false for NaN
        raise Invalid(f"weight must be from 0 to {_MAX_WEIGHT}; got {weight}.")
    return weight


def check_snapshot(snapshot: str) -> str:
    """Return a name for a new snapshot; raises `Invalid` for any other."""
    if snapshot.startswith(LEFTOVER):
        raise Invalid(f"snapshot must not begin with {LEFTOVER!r}, which is reserved for copies; got {snapshot!r}.")
    return check_name("snapshot", snapshot)
