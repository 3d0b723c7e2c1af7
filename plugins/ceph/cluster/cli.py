"""The real cluster, through the programs `ceph`, `rbd` and `rados`, which can be killed when Ceph hangs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections.abc import Collection
from pathlib import Path

from pvcd import NotFound, PvcdError
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
from pvcd_plugins.ceph.cluster.exclusive import Exclusive
from pvcd_plugins.ceph.cluster.names import clone_snapshot, image_name, no_snapshot, no_volume, osd_id, snapshot_name
from pvcd_plugins.ceph.cluster.programs import Programs, together

_COUNTERS_SECONDS = 5.0
"""Limit for the counters of the OSDs, which are optional."""
_POLL_SECONDS = 0.2
_NAME_SECONDS = 1.0
"""Time after which a taken name that is in no list was left by an interrupted request."""
_SETTLE_SECONDS = 2.0
"""Time in which a Ceph that answers carries out what it had received from a client that has ended."""


class CliCluster:
    """The cluster of the file `conf`, used as `client.<user>`, which must be an administrator.

    `locks` is the file of the locks of all processes of this machine.
    """

    def __init__(
        self, conf: str, user: str = "admin", deadline: float = 30.0, locks: Path = Path("/run/pvcd/ceph.lock")
    ) -> None:
        self._run = Programs(conf, user, deadline)
        self._exclusive = Exclusive(locks, deadline)
        self._busy: tuple[float, dict[int, answers.Counters]] = (0.0, {})

    async def status(self) -> Status:
        """Return the output of `ceph status`."""
        text, answer = await together(self._run.ceph("status"), self._run.ceph("status", "--format", "json"))
        return answers.status(answers.text(text), answers.document(answer))

    async def utilization(self) -> Utilization:
        """Return the output of `rados df`."""
        text, answer = await together(self._run.rados("df"), self._run.rados("df", "--format", "json"))
        return answers.utilization(answers.text(text), answers.document(answer))

    async def options(self) -> frozenset[str]:
        """Return the members of `OPTIONS` that are set."""
        return answers.options(await self._run.ceph_json("osd", "dump"))

    async def set_option(self, option: str) -> None:
        """Set one of `OPTIONS`; no error if it is set."""
        await self._run.ceph("osd", "set", check_option(option))

    async def unset_option(self, option: str) -> None:
        """Unset one of `OPTIONS`; no error if it is not set."""
        await self._run.ceph("osd", "unset", check_option(option))

    async def auth_key(self, user: str) -> str:
        """Return the secret key of `client.<user>`, in base64."""
        entity = f"client.{check_name('user', user)}"
        result = await self._run.ceph("auth", "get-key", entity, errors={errno.ENOENT: NotFound("Ceph user", user)})
        return answers.text(result).strip()

    async def monitors(self) -> Monitors:
        """Return the id of the cluster and the addresses of its monitors."""
        return answers.monitors(await self._run.ceph_json("mon", "dump"))

    async def osds(self) -> list[Osd]:
        """Return all OSDs, by id."""
        dump, tree = await together(self._run.ceph_json("osd", "dump"), self._run.ceph_json("osd", "df", "tree"))
        return answers.osds(dump, tree, await self._rates([each["osd"] for each in dump["osds"]]))

    async def _rates(self, osds: Collection[int]) -> dict[int, answers.Counters]:
        """Return the activity of each OSD since the previous call, per second."""
        text = await self._run.ceph_best_effort("tell", "osd.*", "perf", "dump", "osd", deadline=_COUNTERS_SECONDS)
        before, self._busy = self._busy, (time.monotonic(), answers.counters(text, osds))
        return answers.rates(before[1], self._busy[1], self._busy[0] - before[0])

    async def osd_in(self, osd: int) -> None:
        """Set an OSD in; no error if it is."""
        await self._mark("in", osd)

    async def osd_out(self, osd: int) -> None:
        """Set an OSD out and return at once, while Ceph moves its data; no error if it is out."""
        await self._mark("out", osd)

    async def _mark(self, word: str, osd: int) -> None:
        result = await self._run.ceph("osd", word, osd_id(osd))
        if b"does not exist" in result.stderr:
            raise NotFound("OSD", osd)

    async def safe_to_destroy(self, osds: Collection[int]) -> frozenset[int]:
        """Return those that Ceph calls safe to destroy, nonexistent ones included."""
        if not osds:
            return frozenset()
        # With JSON the exit status is always 0: the list is the answer.
        answer = await self._run.ceph_json("osd", "safe-to-destroy", *map(osd_id, osds))
        return frozenset(answer["safe_to_destroy"])

    async def purge_osd(self, osd: int) -> None:
        """Purge an OSD that is down and safe to destroy, with its key; no error if there is none."""
        in_use = InUse("OSD", f"purge OSD {osd}", "it is not down, or data would lose a copy")
        await self._run.ceph("osd", "purge", osd_id(osd), "--yes-i-really-mean-it", errors={errno.EBUSY: in_use})

    async def pools(self) -> list[Pool]:
        """Return all pools, by name."""
        (dump, df), objects = await together(
            together(self._run.ceph_json("osd", "dump"), self._run.ceph_json("df")),
            self._run.rados("df", "--format", "json"),
        )
        return answers.pools(dump, df, answers.document(objects))

    async def create_pool(self, pool: str, pgs: int, copies: int, mincopies: int) -> None:
        """Create a pool for volumes; it is removed again when a later step fails."""
        check_pool(pool, pgs, copies, mincopies)
        size = ("--size", str(copies), "--autoscale-mode=off")
        # The monitors would confirm the creation to two requests at the same time.
        async with self._exclusive(pool):
            result = await self._run.ceph("osd", "pool", "create", pool, str(pgs), str(pgs), "replicated", *size)
            if b"already exists" in result.stderr:
                raise AlreadyThere("pool", f"add pool {pool!r}")
            try:
                await self._run.ceph("osd", "pool", "set", pool, "min_size", str(mincopies))
                await self._run.ceph("osd", "pool", "application", "enable", pool, "rbd")
            except PvcdError as error:
                await self._remove_incomplete_pool(pool, error)
                raise
            await self._until_counted(pool)

    async def _until_counted(self, pool: str) -> None:
        """Wait until the manager has counted the objects of a new pool: only then is it listed."""
        begun = time.monotonic()
        while all(each.name != pool for each in await self.pools()):
            if time.monotonic() - begun > self._run.deadline:
                break  # the pool exists, and will be listed later
            await asyncio.sleep(_POLL_SECONDS)

    async def _remove_incomplete_pool(self, pool: str, error: PvcdError) -> None:
        try:
            await self.remove_pool(pool)
        except PvcdError as second:
            raise CephError(
                f"Cannot complete the creation of pool {pool!r}: {error.sentence} "
                f"Cannot remove the incomplete pool either: {second.sentence}"
            ) from error

    async def remove_pool(self, pool: str) -> None:
        """Remove a pool with everything in it."""
        check_name("pool", pool)
        result = await self._run.ceph("osd", "pool", "rm", pool, pool, "--yes-i-really-really-mean-it")
        if b"does not exist" in result.stderr:
            raise NotFound("pool", pool)

    async def volumes(self, pool: str) -> list[ListedVolume]:
        """Return the volumes of a pool with their snapshots, by name. One without an `id` is incomplete."""
        words = ("ls", "-l", check_name("pool", pool), "--format", "json")
        result = await self._run.rbd(*words, ignore=errno.ENOENT)
        found = answers.volumes(pool, answers.document(result))
        if unopened := answers.unopened(result):
            # A name that is no longer listed was just removed.
            found += [answers.incomplete(pool, name) for name in unopened & await self._names(pool)]
        return sorted(found, key=lambda volume: volume.name)

    async def volume(self, pool: str, volume: str) -> Volume:
        """Return one volume."""
        looking = self._run.rbd_json("info", image_name(pool, volume), errors=no_volume(pool, volume))
        info, _ = await together(looking, self._require_name(pool, volume))
        return answers.volume(pool, info)

    async def _names(self, pool: str) -> frozenset[str]:
        """Return all names in a pool, incomplete volumes included."""
        return frozenset(await self._run.rbd_json("ls", check_name("pool", pool)))

    async def _require_name(self, pool: str, volume: str) -> None:
        """Raise `NotFound` for a name that is not listed, even if `rbd` can open it: see `_name`."""
        if volume not in await self._names(pool):
            raise no_volume(pool, volume)[errno.ENOENT]

    async def _name(self, pool: str, volume: str, act: str, *words: str, source: str | None = None) -> None:
        """Run the `rbd` command that gives a volume its name, even if an interrupted one left a part of the name.

        A name consists of an entry in the list of its pool and of an object that leads to the image. After an
        interrupted rename, such an object without an entry leads to an image of another name, which would be removed
        with it.
        """
        errors = {errno.EEXIST: AlreadyThere("volume", act), **(no_volume(pool, source) if source else {})}
        try:
            await self._run.rbd(*words, errors=errors)
        except AlreadyThere:
            for pause in (0.0, _NAME_SECONDS):
                await asyncio.sleep(pause)
                if volume in await self._names(pool):
                    await self._refuse_incomplete(pool, volume, act)
                    raise
            await self._run.rados("--pool", pool, "rm", f"rbd_id.{volume}")
            await self._run.rbd(*words, errors=errors)

    async def _refuse_incomplete(self, pool: str, volume: str, act: str) -> None:
        try:
            await self.volume(pool, volume)
        except NotFound:
            raise Incomplete(act) from None

    async def create_volume(self, pool: str, volume: str, size: int) -> None:
        """Create an empty volume."""
        image = image_name(pool, volume)
        async with self._exclusive(image):
            await self._name(pool, volume, f"add volume {image!r}", "create", "--size", f"{check_size(size)}B", image)

    async def clone_volume(self, pool: str, source: str, volume: str) -> None:
        """Create an independent copy of a volume in the same pool."""
        image, snapshot = image_name(pool, volume), clone_snapshot(pool, source, volume)
        async with self._exclusive(image):
            # An interrupted copy of this name may have left its snapshot, which is outdated.
            await self._remove_if_there(snapshot)
            await self._run.rbd("snap", "create", "--no-progress", snapshot, errors=no_volume(pool, source))
            try:
                # Format 2 lets the snapshot be removed at once: Ceph hides it until no clone depends on it.
                words = ("clone", "--rbd-default-clone-format", "2", snapshot, image)
                await self._name(pool, volume, f"add volume {image!r}", *words, source=source)
            finally:
                await self._remove_if_there(snapshot)
            await self._run.rbd_long("flatten", image, on=image, errors=no_volume(pool, volume))

    async def flatten_volume(self, pool: str, volume: str) -> None:
        """Make a clone independent of its source; no error if it is."""
        image = image_name(pool, volume)
        async with self._exclusive(image):
            parent = (await self.volume(pool, volume)).parent
            if parent is not None:
                await self._run.rbd_long("flatten", image, on=image, errors=no_volume(pool, volume))
                if LEFTOVER in parent:
                    await self._remove_if_there(parent)

    async def resize_volume(self, pool: str, volume: str, size: int, *, shrink: bool = False) -> None:
        """Change the size. Raises `Shrinks` for a smaller size unless `shrink` is set."""
        image = image_name(pool, volume)
        words = ("--size", f"{check_size(size)}B", image, *(("--allow-shrink",) if shrink else ()))
        try:
            async with self._exclusive(image):
                await self._run.rbd_long("resize", *words, on=image, errors=no_volume(pool, volume))
        except CephRefused as error:
            if "allow-shrink" in error.sentence:
                raise Shrinks(image) from None
            if "equal to original size" not in error.sentence:
                raise

    async def rename_volume(self, pool: str, volume: str, new: str) -> None:
        """Rename a volume."""
        images = image_name(pool, volume), image_name(pool, new)
        # A removal at the same time would leave an incomplete volume.
        async with self._exclusive(*images):
            act = f"rename volume {images[0]!r} to {new!r}"
            await self._name(pool, new, act, "rename", *images, source=volume)

    async def remove_volume(self, pool: str, volume: str) -> None:
        """Remove a volume that has no snapshots and that no client has open."""
        image = image_name(pool, volume)
        errors = {
            errno.EBUSY: InUse("volume", f"remove volume {image!r}", OPEN),
            errno.ENOTEMPTY: HasSnapshots(image),
            **no_volume(pool, volume),
        }
        async with self._exclusive(image):
            await self._require_name(pool, volume)
            try:
                await self._run.rbd_long("rm", image, on=image, errors=errors)
            except HasSnapshots:
                await self._remove_leftovers(pool, volume)
                await self._run.rbd_long("rm", image, on=image, errors=errors)

    async def settle_volume(self, pool: str, volume: str, source: str | None = None) -> None:
        """Wait until nothing of an interrupted creation can take effect any more, and remove its hidden parts."""
        image = image_name(pool, volume)
        async with self._exclusive(image):
            # Its client has ended, and Ceph answers: what that client had sent is carried out within moments.
            await self._names(pool)
            await asyncio.sleep(_SETTLE_SECONDS)
            if volume not in await self._names(pool):
                with contextlib.suppress(CephError):  # it is not there
                    await self._run.rados("--pool", pool, "rm", f"rbd_id.{volume}")
            if source is not None:
                await self._remove_if_there(clone_snapshot(pool, source, volume))

    async def discard_volume(self, pool: str, volume: str) -> None:
        """Remove an incomplete volume, of which only the name exists; no error if it is complete or gone."""
        image = image_name(pool, volume)
        async with self._exclusive(image):
            if not await self._has_header(pool, volume):
                await self._run.rbd("rm", "--no-progress", image, ignore=errno.ENOENT)

    async def _has_header(self, pool: str, volume: str) -> bool:
        """Tell whether a listed name leads to an image, even to one that cannot be opened; True in doubt."""
        entry = ("getomapval", "rbd_directory", f"name_{volume}", "/dev/stdout")
        try:
            found = await self._run.rados("--pool", pool, *entry)
            await self._run.rados("--pool", pool, "stat", f"rbd_header.{answers.image_id(found)}")
        except CephError as error:
            return "rbd_header" not in error.sentence or "(2) No such file" not in error.sentence
        return True

    async def _remove_if_there(self, snapshot: str) -> None:
        await self._run.rbd("snap", "rm", "--no-progress", snapshot, ignore=errno.ENOENT)

    async def _remove_leftovers(self, pool: str, volume: str) -> None:
        """Remove the snapshots of interrupted clones; raises an error if the volume has others or a clone."""
        names = [snapshot.name for snapshot in await self.snapshots(pool, volume)]
        image = image_name(pool, volume)
        if not names:
            raise InUse("volume", f"remove volume {image!r}", "a clone still depends on it")
        if not all(name.startswith(LEFTOVER) for name in names):
            raise HasSnapshots(image)
        for name in names:
            await self.remove_snapshot(pool, volume, name)

    async def snapshots(self, pool: str, volume: str) -> list[Snapshot]:
        """Return the snapshots of a volume, by name."""
        rows = await self._run.rbd_json("snap", "ls", image_name(pool, volume), errors=no_volume(pool, volume))
        return answers.snapshots(pool, volume, rows)

    async def create_snapshot(self, pool: str, volume: str, snapshot: str) -> None:
        """Take a snapshot."""
        taken = f"{image_name(pool, volume)}@{check_snapshot(snapshot)}"
        errors = {errno.EEXIST: AlreadyThere("snapshot", f"add snapshot {taken!r}"), **no_volume(pool, volume)}
        await self._run.rbd("snap", "create", "--no-progress", taken, errors=errors)

    async def rename_snapshot(self, pool: str, volume: str, snapshot: str, new: str) -> None:
        """Rename a snapshot."""
        names = snapshot_name(pool, volume, snapshot), f"{image_name(pool, volume)}@{check_snapshot(new)}"
        taken = AlreadyThere("snapshot", f"rename snapshot {names[0]!r} to {new!r}")
        errors = {errno.EEXIST: taken, **no_snapshot(names[0])}
        await self._run.rbd("snap", "rename", *names, errors=errors)

    async def remove_snapshot(self, pool: str, volume: str, snapshot: str) -> None:
        """Remove a snapshot."""
        name = snapshot_name(pool, volume, snapshot)
        errors = {errno.EBUSY: InUse("snapshot", f"remove snapshot {name!r}", "it is protected"), **no_snapshot(name)}
        await self._run.rbd("snap", "rm", "--no-progress", name, errors=errors)

    async def rollback(self, pool: str, volume: str, snapshot: str) -> None:
        """Roll a volume that no client has open back to a snapshot."""
        image, name = image_name(pool, volume), snapshot_name(pool, volume, snapshot)
        in_use = InUse("volume", f"roll back volume {image!r}", OPEN)
        errors = {errno.EROFS: in_use, **no_snapshot(name)}
        async with self._exclusive(image):
            await self._require_name(pool, volume)
            if await self.watchers(pool, volume):
                raise in_use
            await self._run.rbd_long("snap", "rollback", name, on=image, errors=errors)

    async def locks(self, pool: str, volume: str) -> list[Lock]:
        """Return the locks of a volume."""
        return answers.locks(
            await self._run.rbd_json("lock", "ls", image_name(pool, volume), errors=no_volume(pool, volume))
        )

    async def remove_lock(self, pool: str, volume: str, lock: Lock) -> None:
        """Break a lock and block its holder from ever writing again; no error if it is gone."""
        await self._run.rbd("lock", "rm", "--", image_name(pool, volume), lock.id, lock.locker, ignore=errno.ENOENT)

    async def watchers(self, pool: str, volume: str) -> list[Watcher]:
        """Return the clients that have a volume open."""
        return answers.watchers(
            await self._run.rbd_json("status", image_name(pool, volume), errors=no_volume(pool, volume))
        )
