"""The choice of a VM's node."""

from __future__ import annotations

from typing import Any

import pytest

from pvcd import Conflict, Delete, Invalid, Put
from pvcd_plugins.vm import placement
from pvcd_plugins.vm.domain import parse
from pvcd_plugins.vm.records import VM, State

from .conftest import Cluster, domain_xml


def choose(cluster: Cluster, memory: int = 128, kind: str = "qemu", **asked: Any) -> tuple[str, str | None]:
    domain = parse(domain_xml("new", memory, kind=kind, emulator=asked.pop("emulator", "/usr/bin/qemu-system-x86_64")))
    return placement.choose(cluster.context, domain, **({"wanted": None, "limit": None, "selector_name": None} | asked))


def why_not(cluster: Cluster, **asked: Any) -> str:
    with pytest.raises(Conflict) as refused:
        choose(cluster, **asked)
    assert refused.value.code == "no-suitable-node"
    return refused.value.sentence


@pytest.fixture
async def busy(cluster: Cluster) -> Cluster:
    """hv1: much memory in one VM; hv2: many processors; hv3: many VMs that are off, and a high load."""
    await cluster.add_node("hv1", memory=4096, load=1.0)
    await cluster.add_node("hv2", memory=4096, load=0.5)
    await cluster.add_node("hv3", memory=4096, load=9.0)
    await cluster.add_vm("big", "hv1", memory=2048, vcpus=2)
    await cluster.add_vm("wide", "hv2", memory=512, vcpus=8)
    await cluster.add_vm("wide2", "hv2", memory=512, vcpus=8, state=State.RESTART)
    for number in range(3):
        await cluster.add_vm(f"off{number}", "hv3", memory=4000, vcpus=32, state=State.STOP)
    await cluster.add_vm("small", "hv3", memory=256, vcpus=3)
    return cluster


@pytest.mark.parametrize(
    ("selector", "node"), [(None, "hv3"), ("mem", "hv3"), ("vcpus", "hv1"), ("load", "hv2"), ("vms", "hv1")]
)
async def test_each_selector_chooses_by_its_own_figure(busy: Cluster, selector: str | None, node: str) -> None:
    assert choose(busy, selector_name=selector) == (node, None)


async def test_equal_figures_are_decided_by_fewer_vms_and_then_by_name(cluster: Cluster) -> None:
    for name in ("hv3", "hv1", "hv2"):
        await cluster.add_node(name)
    assert choose(cluster)[0] == "hv1"
    await cluster.add_vm("a", "hv1", state=State.STOP)
    assert choose(cluster)[0] == "hv2"


async def test_a_vm_that_is_removed_moved_or_stopped_frees_its_memory(cluster: Cluster) -> None:
    for name in ("hv1", "hv2"):
        await cluster.add_node(name)
    vm = await cluster.add_vm("a", "hv1", memory=1000)

    def stored() -> VM:
        found = cluster.context.store.get(VM, vm.uuid)
        assert found is not None
        return found

    assert "node 'hv1' has 24 MiB of memory left, the VM needs 128" in why_not(cluster, limit=("hv1",))
    await cluster.context.store.write(Put(stored().changed(node="hv2")))
    assert choose(cluster, limit=("hv1",))[0] == "hv1"
    assert "node 'hv2' has 24 MiB of memory left" in why_not(cluster, limit=("hv2",))
    await cluster.context.store.write(Put(stored().changed(state=State.STOP)))
    assert choose(cluster, limit=("hv2",))[0] == "hv2"
    await cluster.context.store.write(Put(stored().changed(state=State.START)))
    await cluster.context.store.write(Delete(stored()))
    assert choose(cluster, limit=("hv2",))[0] == "hv2"


async def test_an_unknown_selector_is_refused_with_the_known_ones(busy: Cluster) -> None:
    with pytest.raises(Invalid, match="selector must be one of load, mem, vcpus, vms; got 'men'"):
        choose(busy, selector_name="men")


async def test_the_wanted_node_is_taken_if_it_is_valid(busy: Cluster) -> None:
    assert choose(busy, wanted="hv2") == ("hv2", None)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("hv9", "there is no node 'hv9'"),
        ("hv1", "node 'hv1' is not in the VM's limit (hv2, hv3)"),
        ("dead", "node 'dead' is not in the VM's limit (hv2, hv3)"),
    ],
)
async def test_another_node_is_chosen_with_a_warning_if_the_wanted_one_is_not_valid(
    busy: Cluster, wanted: str, reason: str
) -> None:
    await busy.add_node("dead", alive=False)
    node, found = choose(busy, wanted=wanted, limit=("hv2", "hv3"))
    assert (node, found) == ("hv3", reason)
    assert placement.instead(node, wanted, reason) == [f"Node 'hv3' chosen instead of {wanted!r}: {reason}."]


async def test_a_node_that_does_not_take_vms_is_never_chosen(cluster: Cluster) -> None:
    await cluster.add_node("hv1", alive=False)
    assert why_not(cluster) == "Cannot place VM 'new': node 'hv1' does not take VMs now."


async def test_a_vm_must_fit_into_the_free_memory(cluster: Cluster) -> None:
    await cluster.add_node("hv1", memory=1024)
    await cluster.add_vm("a", memory=896)
    assert choose(cluster, memory=128)[0] == "hv1"
    assert "node 'hv1' has 128 MiB of memory left, the VM needs 129" in why_not(cluster, memory=129)


async def test_a_node_must_be_able_to_run_it(cluster: Cluster) -> None:
    await cluster.add_node("hv1")
    assert "node 'hv1' runs domains of type kvm, qemu, not 'xen'" in why_not(cluster, kind="xen")
    assert "node 'hv1' has no emulator '/bin/emu', only /usr/bin/qemu" in why_not(cluster, emulator="/bin/emu")
    assert choose(cluster, kind="kvm", emulator="")[0] == "hv1"


async def test_the_refusal_has_the_objection_to_each_node(busy: Cluster) -> None:
    reasons = why_not(busy, memory=3500, limit=("hv1", "hv2"), leave="hv2")
    assert reasons == (
        "Cannot place VM 'new': node 'hv1' has 2048 MiB of memory left, the VM needs 3500; "
        "the VM is on node 'hv2' already; "
        "node 'hv3' is not in the VM's limit (hv1, hv2)."
    )


async def test_without_nodes_there_is_no_choice(cluster: Cluster) -> None:
    assert why_not(cluster) == "Cannot place VM 'new': there are no nodes."


async def test_a_vm_that_leaves_its_node_goes_to_another(busy: Cluster) -> None:
    assert choose(busy, leave="hv3")[0] == "hv2"


async def test_a_limit_keeps_the_known_nodes_and_names_the_others(cluster: Cluster) -> None:
    for name in ("hv1", "hv2"):
        await cluster.add_node(name)
    assert placement.limit_of(cluster.context, ["hv2", "hv9", "hv1", "hv2"]) == (
        ("hv2", "hv1"),
        ["limit: there is no node 'hv9'."],
    )
    assert placement.limit_of(cluster.context, None) == (None, [])
    assert placement.limit_of(cluster.context, []) == (None, [])
    with pytest.raises(Invalid, match="limit must name a node of this cluster; got 'hv8', 'hv9'"):
        placement.limit_of(cluster.context, ["hv8", "hv9"])
