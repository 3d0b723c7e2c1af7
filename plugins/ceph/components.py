"""What a node opens for its storage: the door to Ceph, and to the disks that OSDs are made of."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

from pvcd import Component, ComponentKey, Context, PvcdError, Role
from pvcd_plugins.ceph.cluster import CephUnavailable, Cluster, OsdHost
from pvcd_plugins.ceph.cluster.cli import CliCluster
from pvcd_plugins.ceph.cluster.osd import CliOsdHost
from pvcd_plugins.ceph.mapping import Mapping
from pvcd_plugins.ceph.mapping.choice import LazyMapping
from pvcd_plugins.ceph.settings import CephSettings

log = logging.getLogger(__name__)
CLUSTER: ComponentKey[Cluster] = ComponentKey("ceph")
OSD_HOST: ComponentKey[OsdHost] = ComponentKey("ceph-osd-host")
MAPPING: ComponentKey[Mapping] = ComponentKey("ceph-mapping")


class Configured:
    """A door that opens only while there is a file that says where Ceph is: without it nothing is asked."""

    def __init__(self, door: object, conf: Path) -> None:
        self._door = door
        self._conf = conf

    def __getattr__(self, verb: str) -> Any:
        if not self._conf.is_file():
            raise CephUnavailable(f"This node has no Ceph: there is no file {self._conf}.")
        return getattr(self._door, verb)


@contextlib.asynccontextmanager
async def open_cluster(context: Context) -> AsyncIterator[Cluster]:
    """Ceph as the settings name it; the agent starts also where it is not."""
    settings = context.settings.of(CephSettings)
    cluster = CliCluster(str(settings.conf), settings.user, settings.deadline)
    yield cast(Cluster, Configured(cluster, settings.conf))


@contextlib.asynccontextmanager
async def open_osd_host(context: Context) -> AsyncIterator[OsdHost]:
    """The disks of this node, whose OSDs are started beside everything else."""
    settings = context.settings.of(CephSettings)
    door = CliOsdHost(str(settings.conf), context.node, settings.user, settings.deadline)
    host = cast(OsdHost, Configured(door, settings.conf))
    starting = asyncio.ensure_future(start_osds(host))
    try:
        yield host
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)


async def start_osds(host: OsdHost) -> None:
    """Undo what was interrupted, and start the OSDs of this node, which nothing else may do after a reboot."""
    with _logged("what was interrupted stays"):
        await host.undo_interrupted()
    with _logged("no OSD is started"):
        for osd in await host.local_osds():
            with _logged(f"OSD {osd} is not started"):
                await host.start_osd(osd)


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    try:
        yield
    except PvcdError as error:
        log.info("%s: %s", what, error)


@contextlib.asynccontextmanager
async def open_mapping(context: Context) -> AsyncIterator[Mapping]:
    """The way in which this machine maps volumes; it is chosen when the first one is wanted."""
    settings = context.settings.of(CephSettings)
    yield LazyMapping(settings.mapping_directory, settings.conf, settings.user)


@contextlib.asynccontextmanager
async def fake_mapping(context: Context) -> AsyncIterator[Mapping]:
    """Files in a place of their own."""
    from pvcd_plugins.ceph.mapping.fake import FakeMapping

    with tempfile.TemporaryDirectory(prefix="pvcd-mapping-") as directory:
        yield FakeMapping(Path(directory))


COMPONENTS: list[Component[Any]] = [
    Component(CLUSTER, open_cluster, roles=(Role.NODE, Role.WORKER)),
    Component(MAPPING, open_mapping, roles=(Role.WORKER,), fake=fake_mapping),
    Component(OSD_HOST, open_osd_host, roles=(Role.NODE,)),
]
