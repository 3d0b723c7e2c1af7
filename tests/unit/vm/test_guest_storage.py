"""A guest is started with Ceph's monitors and its user, and the key appears nowhere."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from lxml import etree

from pvcd_plugins.ceph.cluster import CephUnavailable
from pvcd_plugins.vm.domain import Storage, UsedVolume, lacks_storage, prepare, volumes
from pvcd_plugins.vm.schema import SCHEMA, mistake_in
from tests.unit.vm.storage import KEY, StorageCluster, with_disks

STORAGE = Storage((("10.0.0.1", 3300), ("fd00::2", 3300)), "libvirt", UUID(int=7))
OWN_AUTH = "<auth username='me'><secret type='ceph' uuid='0f6e3b1a-52b0-4c8e-9d5f-6a1d0f7e2c11'/></auth>"
OWN_HOST = "<host name='ceph1' port='6789'/>"


def source(xml: str) -> str:
    """Return the source of the first disk as it would be started."""
    root = etree.fromstring(prepare(xml, generation=1, console_log=None, storage=STORAGE))
    found = root.find("devices/disk/source")
    assert found is not None
    return etree.tostring(found, encoding="unicode").replace('"', "'")


def test_a_disk_is_completed_with_monitors_and_authentication() -> None:
    assert source(with_disks("web1", "vms/a")) == (
        "<source protocol='rbd' name='vms/a'><host name='10.0.0.1' port='3300'/><host name='fd00::2' port='3300'/>"
        f"<auth username='libvirt'><secret type='ceph' uuid='{UUID(int=7)}'/></auth></source>"
    )


def test_monitors_and_authentication_of_the_definition_are_kept() -> None:
    assert source(with_disks("web1", "vms/a", source=OWN_HOST)).count("<host") == 1
    assert source(with_disks("web1", "vms/a", source="<config file='/etc/ceph/my.conf'/>")).count("<host") == 0
    assert source(with_disks("web1", "vms/a", source=OWN_AUTH)).count("<auth") == 1
    older = with_disks("web1", "vms/a").replace("<target", f"{OWN_AUTH}<target")
    assert "<auth" not in source(older)


def test_only_an_incomplete_disk_lacks_storage() -> None:
    assert lacks_storage(with_disks("web1", "vms/a"))
    assert lacks_storage(with_disks("web1", "vms/a", source=OWN_HOST))
    assert not lacks_storage(with_disks("web1", "vms/a", source=OWN_HOST + OWN_AUTH))
    assert not lacks_storage(with_disks("web1"))
    assert not lacks_storage(with_disks("web1", "vms/a").replace("'rbd'", "'nbd'"))


@pytest.mark.skipif(not SCHEMA.exists(), reason="libvirt's schema is not installed")
def test_a_completed_document_is_valid_by_libvirts_schema() -> None:
    xml = prepare(with_disks("web1", "vms/a", "vms/b"), generation=1, console_log=None, storage=STORAGE)
    assert mistake_in(re.sub(r"<metadata>.*</metadata>", "", xml)) is None


def test_the_volumes_of_a_definition_are_read_with_whether_it_writes_to_them() -> None:
    assert volumes(with_disks("web1", "vms/a", "vms/b")) == (
        UsedVolume("vms", "a", True),
        UsedVolume("vms", "b", True),
    )
    assert volumes(with_disks("web1", "vms/a", read_only=True)) == (UsedVolume("vms", "a", False),)
    assert volumes(with_disks("web1", "vms/a").replace("'disk'", "'cdrom'")) == (UsedVolume("vms", "a", False),)
    snapshot = with_disks("web1", "vms/a", source="<snapshot name='s'/>")
    assert volumes(snapshot) == (UsedVolume("vms", "a", False),)
    assert volumes(with_disks("web1").replace("</devices>", "<disk type='network'/></devices>")) == ()


@pytest.fixture
async def cluster() -> AsyncIterator[StorageCluster]:
    made = StorageCluster()
    async with made.simulated:
        await made.simulated.advance(2)
        yield made


async def test_a_guest_is_started_with_a_key_that_is_written_nowhere(
    cluster: StorageCluster, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await cluster.define("web1", "vms/a")
        await cluster.start("web1")
    hypervisor = cluster.hypervisors["hv1"]
    [(secret, value)] = hypervisor.secrets.items()
    [document] = hypervisor.started
    assert value == KEY
    assert f'<secret type="ceph" uuid="{secret}"/>' in document
    assert '<host name="fd00::2" port="3300"/>' in document
    everything = [document, caplog.text, str(vars(cluster.simulated.server))]
    assert not any(word in text for text in everything for word in (KEY.decode(), "dGhlIHNlY3JldA"))
    [shown] = await cluster.ask("GET", "/vm/web1")
    assert "<auth" not in shown["xml"]


async def test_the_key_is_given_again_after_the_hypervisor_forgot_it(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a")
    await cluster.start("web1")
    hypervisor = cluster.hypervisors["hv1"]
    [secret] = hypervisor.secrets
    hypervisor.stop()
    hypervisor.start_again()
    assert hypervisor.secrets == {}
    await cluster.ask("POST", "/vm/web1/state", state="restart")
    await cluster.simulated.advance(10)
    assert await cluster.ask("GET", "/vm/web1/state") == {"name": "web1", "state": "start", "running": True}
    assert list(hypervisor.secrets) == [secret]


async def test_a_guest_has_a_failed_reason_while_ceph_is_away_and_starts_afterward(
    cluster: StorageCluster,
) -> None:
    cluster.ceph.failure = CephUnavailable("Ceph does not answer.")
    await cluster.define("web1", "vms/a")
    await cluster.define("web2")
    await cluster.start("web1")
    await cluster.start("web2")
    [vm] = await cluster.ask("GET", "/vm/web1")
    assert (vm["state"], vm["running"]) == ("fail", False)
    assert vm["failed_reason"] == "Cannot reach the guest's volumes: Ceph does not answer."
    assert (await cluster.ask("GET", "/vm/web2/state"))["running"] is True
    cluster.ceph.failure = None
    await cluster.simulated.advance(60)
    assert await cluster.ask("GET", "/vm/web1/state") == {"name": "web1", "state": "start", "running": True}


async def test_simultaneous_starts_ask_ceph_once(cluster: StorageCluster) -> None:
    cluster.ceph.answers.clear()
    names = [f"web{number}" for number in range(5)]
    for name in names:
        await cluster.define(name, f"vms/{name}")
    for name in names:
        await cluster.ask("POST", f"/vm/{name}/state", state="start")
    await cluster.simulated.advance(1)
    assert (len(cluster.hypervisors["hv1"].started), cluster.ceph.asked) == (0, 1)
    cluster.ceph.answers.set()
    await cluster.simulated.advance(1)
    assert (len(cluster.hypervisors["hv1"].started), cluster.ceph.asked) == (5, 1)
