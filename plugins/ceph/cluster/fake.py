"""A Ceph in memory, for tests and simulations. Public members beyond the protocol are for scripting it."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from pvcd import Clock, Context, NotFound, SystemClock
from pvcd_plugins.ceph.cluster import (
    AlreadyThere,
    CephUnavailable,
    Device,
    DeviceRefused,
    InUse,
    Monitors,
    Osd,
    Pool,
    Status,
    Utilization,
    check_name,
    check_option,
    check_pool,
    check_weight,
)
from pvcd_plugins.ceph.cluster.fake_volumes import FakePool, FakeVolumes

KEY = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="
OSD_BYTES = 8 * 1024**3
MONITORS = Monitors("6a7d0a0e-3c1f-4e5a-9b0c-7f2d1e8c4b5a", (("127.0.0.1", 3300),))


@dataclass
class FakeOsd:
    """An OSD."""

    id: int
    node: str | None
    weight: float
    up: bool
    uuid: str = field(default_factory=lambda: str(uuid4()))
    in_: bool = True
    drained: float = 0.0
    """The time at which its data has moved elsewhere, if it stays out."""


class FakeCluster(FakeVolumes):
    """Pools, OSDs and volumes, which keep the data that is written into them."""

    def __init__(self, clock: Clock | None = None, *, drain_seconds: float = 0.0) -> None:
        super().__init__(clock or SystemClock())
        self.drain_seconds = drain_seconds
        """Time in which the data of an OSD moves elsewhere."""
        self._osds: dict[int, FakeOsd] = {}
        self._options: set[str] = set()
        self._users = {"admin": KEY, "libvirt": KEY}

    def add_osd(self, node: str | None, weight: float = 1.0, *, up: bool = True) -> int:
        """Add an OSD and return its id, which like that of Ceph is the first free one."""
        osd = next(number for number in itertools.count() if number not in self._osds)
        self._osds[osd] = FakeOsd(osd, node, weight, up)
        return osd

    def mark(self, osd: int, *, up: bool) -> None:
        """Set the daemon of an OSD up or down."""
        self._osd(osd).up = up

    def is_up(self, osd: int) -> bool:
        """Tell whether the daemon of an OSD is up."""
        return osd in self._osds and self._osds[osd].up

    def finish_drain(self, osd: int) -> None:
        """Move the data of an OSD that is out at once."""
        self._osd(osd).drained = self._clock.monotonic()

    async def status(self) -> Status:
        """Return the output of `ceph status`."""
        self._enter("status")
        used, total = self._used(), self._total()
        pgs = sum(pool.pgs for pool in self._pools.values())
        up = sum(osd.up for osd in self._osds.values())
        checks = {"OSD_DOWN": f"{len(self._osds) - up} osds down"} if up < len(self._osds) else {}
        if self._options:
            checks["OSDMAP_FLAGS"] = f"{','.join(sorted(self._options))} flag(s) set"
        health = "HEALTH_WARN" if checks else "HEALTH_OK"
        return Status(
            text=f"  cluster:\n    health: {health}\n \n  services:\n    osd: {len(self._osds)} osds: {up} up\n",
            health=health,
            checks=checks,
            monitors=1,
            monitors_in_quorum=1,
            osds=len(self._osds),
            osds_up=up,
            osds_in=sum(osd.in_ for osd in self._osds.values()),
            pgs=pgs,
            pgs_by_state={"active+clean": pgs} if pgs else {},
            used_bytes=used,
            available_bytes=total - used,
            total_bytes=total,
            degraded=0.0,
            misplaced=0.0,
        )

    async def utilization(self) -> Utilization:
        """Return the output of `rados df`."""
        self._enter("utilization")
        used, total = self._used(), self._total()
        objects = sum(_objects(pool) for pool in self._pools.values())
        text = "".join(f"{line}\n" for line in ("POOL_NAME USED", *sorted(self._pools), f"total_objects {objects}"))
        return Utilization(text, used, total - used, total, objects)

    async def options(self) -> frozenset[str]:
        """Return the members of `OPTIONS` that are set."""
        self._enter("options")
        return frozenset(self._options)

    async def set_option(self, option: str) -> None:
        """Set one of `OPTIONS`; no error if it is set."""
        self._enter("set_option")
        self._options.add(check_option(option))

    async def unset_option(self, option: str) -> None:
        """Unset one of `OPTIONS`; no error if it is not set."""
        self._enter("unset_option")
        self._options.discard(check_option(option))

    async def auth_key(self, user: str) -> str:
        """Return the secret key of `client.<user>`, in base64."""
        self._enter("auth_key")
        if check_name("user", user) not in self._users:
            raise NotFound("Ceph user", user)
        return self._users[user]

    async def monitors(self) -> Monitors:
        """Return the id of the cluster and the addresses of its monitors."""
        self._enter("monitors")
        return MONITORS

    async def osds(self) -> list[Osd]:
        """Return all OSDs, by id."""
        self._enter("osds")
        return [self._facts(osd) for _, osd in sorted(self._osds.items())]

    def _facts(self, osd: FakeOsd) -> Osd:
        used = self._used() // max(1, sum(each.in_ for each in self._osds.values())) if osd.in_ else 0
        return Osd(
            id=osd.id,
            uuid=osd.uuid,
            node=osd.node,
            up=osd.up,
            in_=osd.in_,
            primary_affinity=1.0,
            utilization=100 * used / OSD_BYTES,
            var=1.0 if osd.in_ else 0.0,
            pgs=self._pgs(osd),
            kb=OSD_BYTES // 1024,
            weight=osd.weight,
            reweight=1.0 if osd.in_ else 0.0,
            used_bytes=used,
            available_bytes=OSD_BYTES - used,
            write_ops=0.0 if osd.up else None,
            write_bytes=0.0 if osd.up else None,
            read_ops=0.0 if osd.up else None,
            read_bytes=0.0 if osd.up else None,
            state=("exists", "up") if osd.up else ("exists",),
        )

    def _pgs(self, osd: FakeOsd) -> int:
        """Return the number of placement groups that an OSD still holds."""
        if self._is_empty(osd):
            return 0
        return max(1, sum(pool.pgs * pool.copies for pool in self._pools.values()) // len(self._osds))

    def _is_empty(self, osd: FakeOsd) -> bool:
        elsewhere = any(each.in_ and each.up for each in self._osds.values() if each is not osd)
        drained = not osd.in_ and elsewhere and self._clock.monotonic() >= osd.drained
        return drained or not self._pools

    async def osd_in(self, osd: int) -> None:
        """Set an OSD in; no error if it is."""
        self._enter("osd_in")
        self._osd(osd).in_ = True

    async def osd_out(self, osd: int) -> None:
        """Set an OSD out and return at once, while Ceph moves its data; no error if it is out."""
        self._enter("osd_out")
        found = self._osd(osd)
        if found.in_:
            found.in_, found.drained = False, self._clock.monotonic() + self.drain_seconds

    async def safe_to_destroy(self, osds: Collection[int]) -> frozenset[int]:
        """Return those that hold no data or do not exist."""
        self._enter("safe_to_destroy")
        return frozenset(osd for osd in osds if osd not in self._osds or self._is_empty(self._osds[osd]))

    async def purge_osd(self, osd: int) -> None:
        """Purge an OSD that is down and safe to destroy, with its key; no error if there is none."""
        self._enter("purge_osd")
        found = self._osds.get(osd)
        if found is not None and (found.up or not self._is_empty(found)):
            raise InUse("OSD", f"purge OSD {osd}", "it is not down, or data would lose a copy")
        self._osds.pop(osd, None)

    async def pools(self) -> list[Pool]:
        """Return all pools, by name."""
        self._enter("pools")
        return [self._pool_facts(name, pool) for name, pool in sorted(self._pools.items())]

    def _pool_facts(self, name: str, pool: FakePool) -> Pool:
        free, used, objects = (self._total() - self._used()) // pool.copies, _bytes(pool), _objects(pool)
        return Pool(
            name=name,
            id=pool.id,
            pgs=pool.pgs,
            copies=pool.copies,
            mincopies=pool.mincopies,
            applications=("rbd",),
            free_bytes=free,
            used_bytes=used,
            used_percent=used / (used + free) if used else 0.0,
            num_objects=objects,
            num_object_clones=0,
            num_object_copies=objects * pool.copies,
            num_objects_missing_on_primary=0,
            num_objects_unfound=0,
            num_objects_degraded=0,
            read_ops=0,
            read_bytes=0,
            write_ops=0,
            write_bytes=0,
        )

    async def create_pool(self, pool: str, pgs: int, copies: int, mincopies: int) -> None:
        """Create a pool for volumes."""
        self._enter("create_pool")
        check_pool(pool, pgs, copies, mincopies)
        if pool in self._pools:
            raise AlreadyThere("pool", f"add pool {pool!r}")
        self._pools[pool] = FakePool(next(self._numbers), pgs, copies, mincopies)

    async def remove_pool(self, pool: str) -> None:
        """Remove a pool with everything in it."""
        self._enter("remove_pool")
        self._pool(pool)
        del self._pools[pool]

    def _osd(self, osd: int) -> FakeOsd:
        if osd not in self._osds:
            raise NotFound("OSD", osd)
        return self._osds[osd]

    def _used(self) -> int:
        return sum(map(_bytes, self._pools.values()))

    def _total(self) -> int:
        return OSD_BYTES * sum(osd.in_ for osd in self._osds.values())


class FakeOsdHost:
    """The disks of one node, by path; `refusals` holds the reasons why some cannot become OSDs."""

    def __init__(
        self,
        cluster: FakeCluster,
        node: str,
        devices: Iterable[str] = (),
        refusals: Mapping[str, str] | None = None,
    ) -> None:
        self.refusals = dict(refusals or {})
        self.used: dict[int, str] = {}
        """The device of each OSD here."""
        self.interrupted: list[int] = []
        """OSDs whose creation was interrupted."""
        self._devices = sorted({*devices, *self.refusals})
        self._cluster = cluster
        self._node = node

    async def devices(self) -> list[Device]:
        """Return all block devices of this node, by path."""
        return [Device(path, OSD_BYTES, self._refusal(path)) for path in self._devices]

    async def check_device(self, path: str) -> str:
        """Return the real path of an unused block device; raises `DeviceRefused` for anything else."""
        refusal = self._refusal(path)
        if refusal is not None:
            raise DeviceRefused(path, refusal)
        return path

    def _refusal(self, path: str) -> str | None:
        if path not in self._devices:
            return "it is not a block device of this node. Use one under /dev, such as '/dev/sdb'"
        if path in self.used.values():
            return "it belongs or belonged to an OSD. Wipe it first if its data is no longer needed"
        return self.refusals.get(path)

    async def prepare_osd(self, device: str, weight: float) -> int:
        """Make an OSD of an unused device and start it; returns its id as soon as it is up."""
        check_weight(weight)
        self._enter("prepare_osd")
        await self.undo_interrupted()
        path = await self.check_device(device)
        osd = self._cluster.add_osd(self._node, weight)
        self.used[osd] = path
        return osd

    async def undo_interrupted(self) -> None:
        """Clean up after interrupted calls of `prepare_osd`, as the next one would."""
        while self.interrupted:
            osd = self.interrupted.pop()
            await self.remove_osd(osd)
            await self._cluster.purge_osd(osd)

    async def local_osds(self) -> list[int]:
        """Return the OSDs that have their data on devices of this node, by id."""
        return sorted(self.used)

    async def osd_running(self, osd: int) -> bool:
        """Tell whether the daemon of an OSD runs here."""
        return osd in self.used and self._cluster.is_up(osd)

    async def start_osd(self, osd: int) -> None:
        """Start an OSD that was prepared here; no error if it runs."""
        if osd not in self.used:
            raise NotFound("OSD", osd)
        self._cluster.mark(osd, up=True)

    async def remove_osd(self, osd: int) -> None:
        """Stop an OSD, wipe its device and delete its folder; no error if that is done or if the device is broken."""
        self._enter("remove_osd")
        if osd in self.used:
            self._cluster.mark(osd, up=False)
            del self.used[osd]

    def _enter(self, verb: str) -> None:
        """Fail like the cluster, which assigns and frees the ids of OSDs."""
        self._cluster.calls.append(verb)
        if self._cluster.stopped:
            raise CephUnavailable("Ceph did not answer within 30 s.")
        if verb in self._cluster.failing:
            raise self._cluster.failing[verb]


class Simulation:
    """The Ceph of a simulated cluster, in memory; each node has one OSD, and a device for another."""

    def __init__(self, clock: Clock) -> None:
        self.ceph = FakeCluster(clock)
        self._hosts: dict[str, FakeOsdHost] = {}

    @classmethod
    def of(cls, context: Context) -> Simulation:
        """Return the one of a simulated cluster, whose processes share a clock; it is forgotten with the clock."""
        if context.clock not in _simulations:
            _simulations[context.clock] = cls(weakref.proxy(context.clock))
        return _simulations[context.clock]

    def host(self, node: str) -> FakeOsdHost:
        """Return the disks of a node, which outlive its agent."""
        if node not in self._hosts:
            self._hosts[node] = FakeOsdHost(self.ceph, node, ["/dev/sdb", "/dev/sdc"])
            self._hosts[node].used[self.ceph.add_osd(node)] = "/dev/sdb"
        return self._hosts[node]


_simulations: weakref.WeakKeyDictionary[Clock, Simulation] = weakref.WeakKeyDictionary()


def _bytes(pool: FakePool) -> int:
    """Return the bytes that a pool takes on the OSDs."""
    return pool.copies * sum(len(image.data) for image in pool.images.values())


def _objects(pool: FakePool) -> int:
    return sum(image.objects for image in pool.images.values())
