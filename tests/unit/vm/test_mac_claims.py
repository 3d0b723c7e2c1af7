"""In a network no two VMs have one MAC address, whoever defines them, and at the same moment too."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pvcd import Create, Invalid, Put
from pvcd_plugins.network import service as networks
from pvcd_plugins.vm.indexes import NETWORK_INDEX, NetworkIndex
from pvcd_plugins.vm.mac_claims import claim_macs, owner_of
from pvcd_plugins.vm.records import VM, GuestUse, MacClaim, State, VMReport

from .conftest import Cluster, domain_xml, uuid_of

MAC = "52:54:00:00:00:0a"
OTHER = "52:54:00:00:00:0b"


def with_nics(name: str, *nics: tuple[int, str]) -> str:
    interfaces = "".join(
        f"<interface type='bridge'><mac address='{mac}'/><source bridge='vmbr{vni}'/></interface>" for vni, mac in nics
    )
    return domain_xml(name).replace("</devices>", f"{interfaces}</devices>")


async def ask(cluster: Cluster, method: str, path: str, **values: Any) -> tuple[str | None, str]:
    """The code, if it was refused, and the message."""
    reply = await cluster.simulated.request(method, f"/api/v1/{path}", **values)
    return reply.json.get("code"), reply.json["message"]


async def define(cluster: Cluster, name: str, *nics: tuple[int, str]) -> tuple[str | None, str]:
    return await ask(cluster, "POST", "vm", xml=with_nics(name, *nics))


async def modify(cluster: Cluster, name: str, *nics: tuple[int, str]) -> tuple[str | None, str]:
    return await ask(cluster, "PUT", f"vm/{name}", xml=with_nics(name, *nics))


@pytest.fixture
async def cluster(cluster: Cluster) -> Cluster:
    await cluster.add_node("hv1")
    for vni, description in ((200, "app"), (201, "data")):
        await ask(cluster, "POST", "network", vni=vni, description=description, nettype="bridged")
    return cluster


def claims(cluster: Cluster) -> list[str]:
    return [claim.path for claim in cluster.context.store.all(MacClaim)]


async def test_a_second_vm_with_the_address_is_refused_and_the_first_is_named(cluster: Cluster) -> None:
    assert (await define(cluster, "web1", (200, MAC.upper())))[0] is None
    assert await define(cluster, "web2", (200, MAC)) == (
        "mac-taken",
        "Cannot define VM 'web2': VM 'web1' has the MAC address 52:54:00:00:00:0a in network 'app'. "
        "Choose another address.",
    )
    assert (await define(cluster, "web2", (201, MAC)))[0] is None
    assert (await modify(cluster, "web2", (200, MAC)))[0] == "mac-taken"
    assert claims(cluster) == [f"/mac-claims/200/{MAC}", f"/mac-claims/201/{MAC}"]


async def test_one_of_two_simultaneous_definitions_is_refused_and_names_the_other(cluster: Cluster) -> None:
    results = await asyncio.gather(*(define(cluster, name, (200, MAC)) for name in ("web1", "web2")))
    (made,) = [message for code, message in results if code is None]
    (refused,) = [message for code, message in results if code == "mac-taken"]
    winner = "web1" if "'web1' defined" in made else "web2"
    assert f"VM {winner!r} has the MAC address" in refused


async def test_a_vm_unknown_to_this_process_keeps_its_address(cluster: Cluster) -> None:
    await define(cluster, "web1", (200, MAC))
    blind = cluster.context.derive(components={**cluster.context.components, NETWORK_INDEX: NetworkIndex()})
    vm = VM(uuid=uuid_of("web2"), name="web2", node="hv1", xml=with_nics("web2", (200, MAC)))
    with pytest.raises(Exception, match="VM 'web1' has the MAC address"):
        await claim_macs(blind, vm)


async def test_two_interfaces_of_a_vm_in_one_network_have_two_addresses(cluster: Cluster) -> None:
    assert await define(cluster, "web1", (200, MAC), (200, MAC)) == (
        Invalid.code,
        "Cannot define VM 'web1': two of its interfaces have the MAC address 52:54:00:00:00:0a in network 'app'.",
    )
    assert (await define(cluster, "web1", (200, MAC), (201, MAC)))[0] is None


async def test_claims_go_with_the_interface_or_the_vm(cluster: Cluster) -> None:
    await define(cluster, "web1", (200, MAC), (201, OTHER))
    await modify(cluster, "web1", (200, OTHER))
    assert claims(cluster) == [f"/mac-claims/200/{OTHER}"]
    assert (await define(cluster, "web2", (200, MAC)))[0] is None
    await ask(cluster, "DELETE", "vm/web1")
    await ask(cluster, "DELETE", "vm/web2")
    assert claims(cluster) == []


async def test_an_address_with_which_a_guest_runs_stays_that_of_its_vm(cluster: Cluster) -> None:
    await define(cluster, "web1", (200, MAC))
    store = cluster.context.store
    vm = store.all(VM)[0]
    use = GuestUse(interfaces=(("vmbr200", MAC),))
    report = VMReport(uuid=vm.uuid, node="hv1", running=True, observed_generation=1, guest_generation=1, guest_use=use)
    await store.write(Put(vm.changed(state=State.START, generation=1)), Create(report))
    await modify(cluster, "web1", (200, OTHER))
    assert (await define(cluster, "web2", (200, MAC)))[0] == "mac-taken"
    await store.write(Put(store.all(VMReport)[0].changed(running=False, observed_generation=2, guest_use=None)))
    await store.write(Put(store.all(VM)[0].changed(state=State.STOP, generation=2)))
    assert (await define(cluster, "web2", (200, MAC)))[0] is None
    assert await define(cluster, "web3", (200, OTHER)) == (
        "mac-taken",
        "Cannot define VM 'web3': VM 'web1' has the MAC address 52:54:00:00:00:0b in network 'app'. "
        "Choose another address.",
    )


async def test_of_two_old_vms_with_one_address_the_one_that_runs_has_it(cluster: Cluster) -> None:
    """Stores from before there were claims can have them."""
    network = networks.find(cluster.context, "200")
    for name in ("web1", "web2"):
        await cluster.add_vm(name, xml=with_nics(name, (200, MAC)), state=State.STOP)
    assert owner_of(cluster.context, network, MAC) is None
    await cluster.create(VMReport(uuid=uuid_of("web2"), node="hv1", running=True, observed_generation=1))
    found = owner_of(cluster.context, network, MAC)
    assert found is not None and found.name == "web2"
    await cluster.create(VMReport(uuid=uuid_of("web1"), node="hv1", running=True, observed_generation=1))
    assert owner_of(cluster.context, network, MAC) is None
    await cluster.create(MacClaim(vni=200, mac=MAC, vm=uuid_of("web1")))
    found = owner_of(cluster.context, network, MAC)
    assert found is not None and found.name == "web1"
    assert owner_of(cluster.context, network, OTHER) is None
