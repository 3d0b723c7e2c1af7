"""The real cluster, through the programs `ceph`, `rbd` and `rados`, which can be ended when Ceph hangs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import time
from collections.abc import AsyncIterator, Collection, Mapping
from weakref import WeakValueDictionary

from pvcd import Locked, NotFound, PvcdError
from pvcd_plugins.ceph.cluster import (
    LEFTOVER,
    OPEN,
    AlreadyThere,
    CephError,
    CephRefused,
    HasSnapshots,
    Incomplete,
    InUse,
    ListedVolume,
    Lock,
    Monitors,
    Osd,
    Pool,
    Shrinks,
    Snapshot,
    Status,
    Utilization,
    Volume,
    Watcher,
    answers,
    check_name,
    check_option,
    check_pool,
    check_size,
    check_snapshot,
)
from pvcd_plugins.ceph.cluster.programs import Programs, together

_COUNTERS_LIMIT = 5.0
"""Seconds for what is nice to know: how busy each OSD is."""
_COUNTING_PAUSE = 0.2
_MAKING_LIMIT = 1.0
"""Seconds after which a name that nobody has was left by somebody, and not taken just now."""


class CliCluster:
    """A cluster that is found and entered as `conf` says, as `client.<user>`, which must be an administrator."""

    def __init__(self, conf: str, user: str = "admin", deadline: float = 30.0) -> None:
        self._run = Programs(conf, user, deadline)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._busy: tuple[float, dict[int, answers.Counters]] = (0.0, {})

    async def status(self) -> Status:
        """How it is."""
        text, answer = await together(self._run.ceph("status"), self._run.ceph("status", "--format", "json"))
        return answers.status(answers.text(text), answers.document(answer))

    async def utilization(self) -> Utilization:
        """How full it is."""
        text, answer = await together(self._run.rados("df"), self._run.rados("df", "--format", "json"))
        return answers.utilization(answers.text(text), answers.document(answer))

    async def options(self) -> frozenset[str]:
        """Those of `OPTIONS` that are set."""
        return answers.options(await self._run.ceph_json("osd", "dump"))

    async def set_option(self, option: str) -> None:
        """Set one of `OPTIONS`; fine when it is."""
        await self._run.ceph("osd", "set", check_option(option))

    async def unset_option(self, option: str) -> None:
        """Unset one of `OPTIONS`; fine when it is not set."""
        await self._run.ceph("osd", "unset", check_option(option))

    async def auth_key(self, user: str) -> str:
        """The secret key of `client.<user>`, in base64."""
        entity = f"client.{check_name('user', user)}"
        result = await self._run.ceph("auth", "get-key", entity, no={errno.ENOENT: NotFound("Ceph user", user)})
        return answers.text(result).strip()

    async def monitors(self) -> Monitors:
        """Which cluster it is, and where clients find it."""
        return answers.monitors(await self._run.ceph_json("mon", "dump"))

    async def osds(self) -> list[Osd]:
        """All OSDs, by id."""
        dump, tree = await together(self._run.ceph_json("osd", "dump"), self._run.ceph_json("osd", "df", "tree"))
        return answers.osds(dump, tree, await self._rates([each["osd"] for each in dump["osds"]]))

    async def _rates(self, osds: Collection[int]) -> dict[int, answers.Counters]:
        """What each does per second, since the last time that somebody asked."""
        text = await self._run.ceph_at_best("tell", "osd.*", "perf", "dump", "osd", deadline=_COUNTERS_LIMIT)
        before, self._busy = self._busy, (time.monotonic(), answers.counters(text, osds))
        return answers.rates(before[1], self._busy[1], self._busy[0] - before[0])

    async def osd_in(self, osd: int) -> None:
        """Let it take data; fine when it does."""
        await self._mark("in", osd)

    async def osd_out(self, osd: int) -> None:
        """Let its data move elsewhere, and return at once; fine when it is out."""
        await self._mark("out", osd)

    async def _mark(self, word: str, osd: int) -> None:
        result = await self._run.ceph("osd", word, _osd(osd))
        if b"does not exist" in result.stderr:
            raise NotFound("OSD", osd)

    async def safe_to_destroy(self, osds: Collection[int]) -> frozenset[int]:
        """Those of them that Ceph calls safe to destroy, which is no promise for one that is out."""
        if not osds:
            return frozenset()
        # Asked for JSON it always ends with 0: the list is the answer.
        answer = await self._run.ceph_json("osd", "safe-to-destroy", *map(_osd, osds))
        return frozenset(answer["safe_to_destroy"])

    async def purge_osd(self, osd: int) -> None:
        """Forget one that is down and safe to destroy, with its key; fine when it is forgotten."""
        in_use = InUse("OSD", osd, "it is not down, or data would lose a copy")
        await self._run.ceph("osd", "purge", _osd(osd), "--yes-i-really-mean-it", no={errno.EBUSY: in_use})

    async def pools(self) -> list[Pool]:
        """All pools, by name."""
        (dump, df), objects = await together(
            together(self._run.ceph_json("osd", "dump"), self._run.ceph_json("df")),
            self._run.rados("df", "--format", "json"),
        )
        return answers.pools(dump, df, answers.document(objects))

    async def create_pool(self, pool: str, pgs: int, copies: int, mincopies: int) -> None:
        """Make a pool for volumes; when a later step fails, it is removed again."""
        check_pool(pool, pgs, copies, mincopies)
        size = ("--size", str(copies), "--autoscale-mode=off")
        # To two at the same time the monitors would say that they made it.
        async with self._alone(pool):
            result = await self._run.ceph("osd", "pool", "create", pool, str(pgs), str(pgs), "replicated", *size)
            if b"already exists" in result.stderr:
                raise AlreadyThere("pool", pool)
            try:
                await self._run.ceph("osd", "pool", "set", pool, "min_size", str(mincopies))
                await self._run.ceph("osd", "pool", "application", "enable", pool, "rbd")
            except PvcdError as error:
                await self._remove_half_made(pool, error)
                raise
            await self._until_counted(pool)

    async def _until_counted(self, pool: str) -> None:
        """Wait until the manager has counted what is in a new pool, for only then it is listed."""
        begun = time.monotonic()
        while all(each.name != pool for each in await self.pools()):
            if time.monotonic() - begun > self._run.deadline:
                break  # it is there, and will be listed
            await asyncio.sleep(_COUNTING_PAUSE)

    async def _remove_half_made(self, pool: str, error: PvcdError) -> None:
        try:
            await self.remove_pool(pool)
        except PvcdError as second:
            raise CephError(
                f"The pool {pool!r} is there, but could not be finished: {error.sentence} "
                f"And it could not be removed again: {second.sentence}"
            ) from error

    async def remove_pool(self, pool: str) -> None:
        """Remove a pool with everything in it."""
        check_name("pool", pool)
        result = await self._run.ceph("osd", "pool", "rm", pool, pool, "--yes-i-really-really-mean-it")
        if b"does not exist" in result.stderr:
            raise NotFound("pool", pool)

    async def volumes(self, pool: str) -> list[ListedVolume]:
        """The volumes of a pool with their snapshots, by name. One without an `id` is `Incomplete`."""
        words = ("ls", "-l", check_name("pool", pool), "--format", "json")
        result = await self._run.rbd(*words, fine=errno.ENOENT)
        found = answers.volumes(pool, answers.document(result))
        if unopened := answers.unopened(result):
            # Without those that were just removed.
            found += [answers.incomplete(pool, name) for name in unopened & await self._names(pool)]
        return sorted(found, key=lambda volume: volume.name)

    async def volume(self, pool: str, volume: str) -> Volume:
        """One volume."""
        looking = self._run.rbd_json("info", _image(pool, volume), no=_no_volume(volume))
        info, _ = await together(looking, self._need_name(pool, volume))
        return answers.volume(pool, info)

    async def _names(self, pool: str) -> frozenset[str]:
        """All names in a pool."""
        return frozenset(await self._run.rbd_json("ls", check_name("pool", pool)))

    async def _need_name(self, pool: str, volume: str) -> None:
        """Raise `NotFound` for a name that is in no list, though it may be half of one: see `_name`."""
        if volume not in await self._names(pool):
            raise NotFound("volume", volume)

    async def _name(self, pool: str, volume: str, *words: str, no: Mapping[int, PvcdError] | None = None) -> None:
        """Run what gives a volume its name, also when somebody died who gave it the same name, or another one.

        A name is an entry in the list of its pool and an object that leads to the image. Where a volume was renamed
        by half, such an object without an entry leads to an image of another name, which would be removed with it.
        """
        no = {errno.EEXIST: AlreadyThere("volume", volume), **(no or {})}
        try:
            await self._run.rbd(*words, no=no)
        except AlreadyThere:
            for pause in (0.0, _MAKING_LIMIT):
                await asyncio.sleep(pause)
                if volume in await self._names(pool):
                    await self._refuse_incomplete(pool, volume)
                    raise
            await self._run.rados("--pool", pool, "rm", f"rbd_id.{volume}")
            await self._run.rbd(*words, no=no)

    async def _refuse_incomplete(self, pool: str, volume: str) -> None:
        try:
            await self.volume(pool, volume)
        except NotFound:
            raise Incomplete(volume) from None

    async def create_volume(self, pool: str, volume: str, size: int) -> None:
        """Make an empty volume."""
        image = _image(pool, volume)
        async with self._alone(image):
            await self._name(pool, volume, "create", "--size", f"{check_size(size)}B", image)

    async def clone_volume(self, pool: str, source: str, volume: str) -> None:
        """Make a copy of a volume as it is now, in its pool, that needs the source no more."""
        image = _image(pool, volume)
        snapshot = f"{_image(pool, source)}@{LEFTOVER}{secrets.token_hex(4)}"
        async with self._alone(image):
            await self._run.rbd("snap", "create", "--no-progress", snapshot, no=_no_volume(source))
            try:
                # Of the second format, so that the snapshot can go at once, into hiding until nobody needs it.
                words = ("clone", "--rbd-default-clone-format", "2", snapshot, image)
                await self._name(pool, volume, *words, no=_no_volume(source))
            finally:
                await self._run.rbd("snap", "rm", "--no-progress", snapshot, fine=errno.ENOENT)
            await self._run.rbd_long("flatten", image, on=image, no=_no_volume(volume))

    async def flatten_volume(self, pool: str, volume: str) -> None:
        """Let a clone need its source no more; fine when it does not."""
        image = _image(pool, volume)
        async with self._alone(image):
            parent = (await self.volume(pool, volume)).parent
            if parent is not None:
                await self._run.rbd_long("flatten", image, on=image, no=_no_volume(volume))
                if LEFTOVER in parent:
                    await self._run.rbd("snap", "rm", "--no-progress", parent, fine=errno.ENOENT)

    async def resize_volume(self, pool: str, volume: str, size: int, *, shrink: bool = False) -> None:
        """Change its size. Less than it has is refused unless `shrink` says that what lies behind may go."""
        image = _image(pool, volume)
        words = ("--size", f"{check_size(size)}B", image, *(("--allow-shrink",) if shrink else ()))
        try:
            async with self._alone(image):
                await self._run.rbd_long("resize", *words, on=image, no=_no_volume(volume))
        except CephRefused as error:
            if "allow-shrink" in error.sentence:
                raise Shrinks(volume) from None
            if "equal to original size" not in error.sentence:
                raise

    async def rename_volume(self, pool: str, volume: str, new: str) -> None:
        """Give it another name."""
        images = _image(pool, volume), _image(pool, new)
        # At the same time as a removal it would leave a name of nothing.
        async with self._alone(*images):
            await self._name(pool, new, "rename", *images, no=_no_volume(volume))

    async def remove_volume(self, pool: str, volume: str) -> None:
        """Remove it. Refused while it has snapshots or somebody has it open."""
        image = _image(pool, volume)
        no = {
            errno.EBUSY: InUse("volume", volume, OPEN),
            errno.ENOTEMPTY: HasSnapshots(volume),
            **_no_volume(volume),
        }
        async with self._alone(image):
            await self._need_name(pool, volume)
            try:
                await self._run.rbd_long("rm", image, on=image, no=no)
            except HasSnapshots:
                await self._remove_leftovers(pool, volume)
                await self._run.rbd_long("rm", image, on=image, no=no)

    @contextlib.asynccontextmanager
    async def _alone(self, *names: str) -> AsyncIterator[None]:
        """Let nobody else here change these things in this block; `Locked` when others are too long at it."""
        async with contextlib.AsyncExitStack() as held:
            for name in sorted({*names}):
                lock = self._locks.setdefault(name, asyncio.Lock())
                try:
                    async with asyncio.timeout(self._run.deadline):
                        await held.enter_async_context(lock)
                except TimeoutError:
                    raise Locked(f"{name!r} is being changed by somebody else: try again later.") from None
            yield

    async def _remove_leftovers(self, pool: str, volume: str) -> None:
        """Remove the snapshots of interrupted clones; refused when that would not be enough."""
        names = [snapshot.name for snapshot in await self.snapshots(pool, volume)]
        if not names:
            raise InUse("volume", volume, "a volume that was cloned from it still needs it")
        if not all(name.startswith(LEFTOVER) for name in names):
            raise HasSnapshots(volume)
        for name in names:
            await self.remove_snapshot(pool, volume, name)

    async def snapshots(self, pool: str, volume: str) -> list[Snapshot]:
        """Those of a volume, by name."""
        rows = await self._run.rbd_json("snap", "ls", _image(pool, volume), no=_no_volume(volume))
        return answers.snapshots(pool, volume, rows)

    async def create_snapshot(self, pool: str, volume: str, snapshot: str) -> None:
        """Take one."""
        no = {errno.EEXIST: AlreadyThere("snapshot", snapshot), **_no_volume(volume)}
        taken = f"{_image(pool, volume)}@{check_snapshot(snapshot)}"
        await self._run.rbd("snap", "create", "--no-progress", taken, no=no)

    async def rename_snapshot(self, pool: str, volume: str, snapshot: str, new: str) -> None:
        """Give it another name."""
        no = {errno.EEXIST: AlreadyThere("snapshot", new), **_no_snapshot(snapshot)}
        names = f"{_snapshot(pool, volume, snapshot)}", f"{_image(pool, volume)}@{check_snapshot(new)}"
        await self._run.rbd("snap", "rename", *names, no=no)

    async def remove_snapshot(self, pool: str, volume: str, snapshot: str) -> None:
        """Remove it."""
        no = {errno.EBUSY: InUse("snapshot", snapshot, "it is protected"), **_no_snapshot(snapshot)}
        await self._run.rbd("snap", "rm", "--no-progress", _snapshot(pool, volume, snapshot), no=no)

    async def rollback(self, pool: str, volume: str, snapshot: str) -> None:
        """Let a volume that nobody has open be again what it was."""
        await self._need_name(pool, volume)
        if await self.watchers(pool, volume):
            raise InUse("volume", volume, OPEN)
        no = {errno.EROFS: InUse("volume", volume, OPEN), **_no_snapshot(snapshot)}
        at = _snapshot(pool, volume, snapshot)
        await self._run.rbd_long("snap", "rollback", at, on=_image(pool, volume), no=no)

    async def locks(self, pool: str, volume: str) -> list[Lock]:
        """Its locks."""
        return answers.locks(await self._run.rbd_json("lock", "ls", _image(pool, volume), no=_no_volume(volume)))

    async def remove_lock(self, pool: str, volume: str, lock: Lock) -> None:
        """Break a lock, and keep its holder from writing ever again; fine when it is gone."""
        await self._run.rbd("lock", "rm", "--", _image(pool, volume), lock.id, lock.locker, fine=errno.ENOENT)

    async def watchers(self, pool: str, volume: str) -> list[Watcher]:
        """Who has it open."""
        return answers.watchers(await self._run.rbd_json("status", _image(pool, volume), no=_no_volume(volume)))


def _osd(osd: int) -> str:
    """The number of an OSD as an argument, which must not look like an option."""
    if osd < 0:
        raise NotFound("OSD", osd)
    return str(int(osd))


def _image(pool: str, volume: str) -> str:
    return f"{check_name('pool', pool)}/{check_name('volume', volume)}"


def _snapshot(pool: str, volume: str, snapshot: str) -> str:
    return f"{_image(pool, volume)}@{check_name('snapshot', snapshot)}"


def _no_volume(volume: str) -> dict[int, PvcdError]:
    return {errno.ENOENT: NotFound("volume", volume)}


def _no_snapshot(snapshot: str) -> dict[int, PvcdError]:
    return {errno.ENOENT: NotFound("snapshot", snapshot)}
