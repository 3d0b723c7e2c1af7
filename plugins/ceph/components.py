"""The doors to Ceph, to mapped volumes, and to the disks of this node."""

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
    """A door that raises `CephUnavailable` while Ceph's configuration file is missing."""

    def __init__(self, door: object, conf: Path) -> None:
        self._door = door
        self._conf = conf

    def __getattr__(self, verb: str) -> Any:
        if not self._conf.is_file():
            raise CephUnavailable(f"Cannot reach Ceph: this node has no file {self._conf}.")
        return getattr(self._door, verb)


@contextlib.asynccontextmanager
async def open_cluster(context: Context) -> AsyncIterator[Cluster]:
    """Open the Ceph of the settings; the agent starts without it as well."""
    settings = context.settings.of(CephSettings)
    cluster = CliCluster(str(settings.conf), settings.user, settings.deadline, settings.lock_file)
    yield cast(Cluster, Configured(cluster, settings.conf))


@contextlib.asynccontextmanager
async def open_osd_host(context: Context) -> AsyncIterator[OsdHost]:
    """Open the disks of this node, and start its OSDs in the background."""
    settings = context.settings.of(CephSettings)
    door = CliOsdHost(str(settings.conf), context.node, settings.user, settings.deadline)
    host = cast(OsdHost, Configured(door, settings.conf))
    starting = asyncio.ensure_future(start_osds(host))
    try:
        yield host
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)


@contextlib.asynccontextmanager
async def fake_cluster(context: Context) -> AsyncIterator[Cluster]:
    """Open the Ceph of a simulated cluster."""
    from pvcd_plugins.ceph.cluster.fake import Simulation

    yield Simulation.of(context).ceph


@contextlib.asynccontextmanager
async def fake_osd_host(context: Context) -> AsyncIterator[OsdHost]:
    """Open the disks of a simulated node."""
    from pvcd_plugins.ceph.cluster.fake import Simulation

    yield Simulation.of(context).host(context.node)


async def start_osds(host: OsdHost) -> None:
    """Undo interrupted OSDs and start those of this node, because nothing else may do so after a reboot."""
    with _logged("cannot undo interrupted OSDs"):
        await host.undo_interrupted()
    with _logged("cannot list the OSDs of this node"):
        for osd in await host.local_osds():
            with _logged(f"cannot start OSD {osd}"):
                await host.start_osd(osd)


@contextlib.contextmanager
def _logged(failure: str) -> Iterator[None]:
    try:
        yield
    except PvcdError as error:
        log.info("%s: %s", failure, error)


@contextlib.asynccontextmanager
async def open_mapping(context: Context) -> AsyncIterator[Mapping]:
    """Open the mapping of this machine, which is chosen on first use."""
    settings = context.settings.of(CephSettings)
    yield LazyMapping(settings.mapping_directory, settings.conf, settings.user)


@contextlib.asynccontextmanager
async def fake_mapping(context: Context) -> AsyncIterator[Mapping]:
    """Open a mapping in memory, with a temporary directory."""
    from pvcd_plugins.ceph.mapping.fake import FakeMapping

    with tempfile.TemporaryDirectory(prefix="pvcd-mapping-") as directory:
        yield FakeMapping(Path(directory))


COMPONENTS: list[Component[Any]] = [
    Component(CLUSTER, open_cluster, roles=(Role.NODE, Role.WORKER), fake=fake_cluster),
    Component(MAPPING, open_mapping, roles=(Role.WORKER,), fake=fake_mapping),
    Component(OSD_HOST, open_osd_host, roles=(Role.NODE,), fake=fake_osd_host),
]
