"""VMs and their networks: unknown ones are refused, used ones are not removed, leases are shown."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

import pytest

from pvcd import Delete, Put
from pvcd_plugins.network.records import Lease
from pvcd_plugins.vm.indexes import NetworkIndex
from pvcd_plugins.vm.records import VM, State

from .conftest import Cluster, domain_xml, uuid_of

MAC = "52:54:00:00:00:0A"
NETWORK = {"vni": "200", "description": "app", "nettype": "managed"}


def at_bridges(name: str, *bridges: str) -> str:
    interfaces = "".join(
        f"<interface type='bridge'><mac address='{MAC}'/><source bridge='{bridge}'/></interface>" for bridge in bridges
    )
    return domain_xml(name).replace("</devices>", f"{interfaces}</devices>")


async def ask(cluster: Cluster, method: str, path: str, **values: Any) -> tuple[int, Any]:
    reply = await cluster.simulated.request(method, f"/api/v1/{path}", **values)
    return reply.status, reply.json


def stored(cluster: Cluster) -> VM:
    (vm,) = cluster.context.store.all(VM)
    return vm


async def interface(cluster: Cluster) -> tuple[str | None, str | None]:
    (vm,) = await cluster.get("vm/web1")
    return vm["networks"][0]["ip4_address"], vm["networks"][0]["ip6_address"]


async def test_a_vm_of_an_unknown_network_is_refused(cluster: Cluster) -> None:
    await cluster.add_node("hv1")
    status, body = await ask(cluster, "POST", "vm", xml=at_bridges("web1", "vmbr200"))
    assert (status, body["message"]) == (510, "Cannot use bridge 'vmbr200': there is no network 200.")
    await ask(cluster, "POST", "network", **NETWORK)
    assert (await ask(cluster, "POST", "vm", xml=at_bridges("web1", "vmbr200")))[0] == 200
    status, body = await ask(cluster, "POST", "vm", xml=at_bridges("web2", "vmbr200", "site0"))
    assert (status, body["code"]) == (510, "host-access-required")


async def test_a_vm_is_not_changed_to_an_unknown_network(cluster: Cluster) -> None:
    await cluster.add_node("hv1")
    vm = await cluster.add_vm("web1", state=State.STOP)
    xml = vm.xml
    status, body = await ask(cluster, "PUT", "vm/web1", xml=at_bridges("web1", "vmbr200"))
    assert status == 510 and "vmbr200" in body["message"]
    assert stored(cluster).xml == xml


async def test_a_network_that_a_vm_uses_is_not_removed(cluster: Cluster) -> None:
    await cluster.add_node("hv1")
    await ask(cluster, "POST", "network", **NETWORK)
    await cluster.add_vm("web1", xml=at_bridges("web1", "vmbr200"), state=State.STOP)
    status, body = await ask(cluster, "DELETE", "network/app")
    assert (status, body["code"]) == (510, "network-in-use") and "VM 'web1'" in body["message"]
    await cluster.context.store.write(Delete(stored(cluster)))
    assert (await ask(cluster, "DELETE", "network/app"))[0] == 200


@pytest.mark.parametrize("round", range(10))
async def test_one_of_a_simultaneous_definition_and_removal_is_refused(cluster: Cluster, round: int) -> None:
    await cluster.add_node("hv1")
    await ask(cluster, "POST", "network", **NETWORK)
    removal = asyncio.ensure_future(ask(cluster, "DELETE", "network/app"))
    for _ in range(round):
        await asyncio.sleep(0)
    defined, removed = await ask(cluster, "POST", "vm", xml=at_bridges("web1", "vmbr200")), await removal
    assert sorted([defined[0], removed[0]]) == [200, 510], (defined, removed)


async def test_an_interface_is_shown_with_the_address_of_its_lease(cluster: Cluster) -> None:
    await cluster.add_node("hv1")
    await ask(cluster, "POST", "network", **NETWORK)
    await cluster.add_vm("web1", xml=at_bridges("web1", "vmbr200"))
    assert await interface(cluster) == (None, None)
    leases = [
        Lease(vni=vni, address=ip_address(address), mac=mac, expires=1e10)
        for vni, address, mac in (
            (200, "10.20.0.9", MAC.lower()),
            (200, "fd20::9", MAC.lower()),
            (200, "10.20.0.8", "52:54:00:00:00:0b"),
            (201, "10.21.0.9", MAC.lower()),
        )
    ]
    await cluster.create(*leases)
    assert await interface(cluster) == ("10.20.0.9", "fd20::9")
    await cluster.context.store.write(Delete(cluster.context.store.get(Lease, 200, "10.20.0.9")))  # type: ignore[arg-type]
    assert await interface(cluster) == (None, "fd20::9")


async def test_an_interface_that_changes_its_network_has_another_address(cluster: Cluster) -> None:
    await cluster.add_node("hv1")
    await cluster.add_vm("web1", xml=at_bridges("web1", "vmbr200"))
    await cluster.create(Lease(vni=200, address=ip_address("10.20.0.9"), mac=MAC.lower(), expires=1e10))
    assert await interface(cluster) == ("10.20.0.9", None)
    await cluster.context.store.write(Put(stored(cluster).changed(xml=at_bridges("web1", "vmbr201"))))
    assert await interface(cluster) == (None, None)
    await cluster.create(Lease(vni=201, address=ip_address("10.21.0.9"), mac=MAC.lower(), expires=1e10))
    assert await interface(cluster) == ("10.21.0.9", None)


def test_an_index_keeps_nothing_of_what_is_gone() -> None:
    index = NetworkIndex()
    lease = Lease(vni=200, address=ip_address("10.0.0.5"), mac=MAC, expires=1.0)
    vms = [VM(uuid=uuid_of(name), name=name, node="hv1", xml=at_bridges(name, "vmbr200")) for name in ("web1", "web2")]
    records: list[VM | Lease] = [lease, *vms]
    for record in records:
        index.add(record)
    index.remove(vms[0])
    assert index.with_interface("vmbr200", MAC) == index.at("vmbr200") == {vms[1].uuid}
    assert index.leases("vmbr200", MAC) == [lease]
    for record in (lease, vms[1]):
        index.remove(record)
    assert not (index._bridges or index._interfaces or index._leases)
