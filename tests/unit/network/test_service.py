"""The rules for networks: concurrent requests, removal, and their use by other plugins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Any

import pytest

from pvcd import Changed, Check, Context, Create, Delete, Guard, Invalid, Listener, Operation, Put, Refused, Role
from pvcd.daemon.components import make_context
from pvcd.store.memory import MemoryTree
from pvcd.testing import Reply
from pvcd_plugins.network import service
from pvcd_plugins.network.records import (
    Acls,
    Lease,
    Network,
    NetworkName,
    NodeNetwork,
    Plan,
    Reservations,
    ServedNetworks,
)
from pvcd_plugins.network.rules.definition import Options
from tests.unit.network.conftest import Networks

Act = Callable[[Context, Operation], Awaitable[Any]]


class Users:
    """A listener that answers for the users of a network."""

    def __init__(self) -> None:
        self.asked: list[Operation] = []
        self.answer: list[str] = []
        self.then: Act | None = None

    async def listen(self, context: Context, operation: Operation) -> list[str]:
        self.asked.append(operation)
        if self.then:
            await self.then(context, operation)
        return self.answer


@pytest.fixture
def users() -> Users:
    return Users()


@pytest.fixture
async def networks(users: Users) -> AsyncIterator[Networks]:
    made = Networks(listeners=[Listener("users", (service.RETIRE,), users.listen)])
    async with made.cluster:
        yield made


async def all_at_once(networks: Networks, *asked: Awaitable[Reply]) -> list[str]:
    """Return the codes of the failures, and an empty one for each success."""
    replies = asyncio.gather(*asked)
    while not replies.done():
        await networks.cluster.advance(0.1)
    return sorted(reply.json.get("code", "") for reply in await replies)


async def another(networks: Networks) -> Context:
    """Open the context of another API server."""
    cluster = networks.cluster
    context = make_context(Role.API, cluster.settings, cluster.registry, MemoryTree(cluster.server), cluster.clock)
    await context.store.open()
    return context


def network_of(networks: Networks, vni: int = 200) -> Network:
    network = networks.context.store.get(Network, vni)
    assert network
    return network


# Unique values


@pytest.mark.parametrize(
    ("shared", "code"),
    [
        ({"vni": 200}, "network-exists"),
        ({"description": "app"}, "network-exists"),
        ({"domain": "app.example"}, "domain-exists"),
        ({"ip4_network": "10.20.0.0/24", "ip4_gateway": "10.20.0.1"}, "network-overlap"),
        ({"ip6_network": "fd00::/64"}, "network-overlap"),
    ],
)
async def test_only_one_of_many_conflicting_requests_succeeds(
    networks: Networks, shared: dict[str, Any], code: str
) -> None:
    values = [{"vni": 300 + n, "description": f"net{n}", "nettype": "managed"} | shared for n in range(8)]
    codes = await all_at_once(networks, *(networks.ask("POST", "", **each) for each in values))
    assert codes == ["", *[code] * 7]
    assert networks.count(Network) == networks.count(NetworkName) == networks.count(Reservations) == 1


async def test_requests_without_conflicts_all_succeed_at_once(networks: Networks) -> None:
    asked = [
        networks.ask(
            "POST",
            "",
            vni=n,
            description=f"net{n}",
            nettype="managed",
            ip4_network=f"10.{n}.0.0/16",
            ip4_gateway=f"10.{n}.0.1",
        )
        for n in range(1, 31)
    ]
    assert await all_at_once(networks, *asked) == [""] * 30
    assert len(await networks.get("")) == 30


async def test_conflicting_requests_to_two_api_servers_do_not_both_succeed(networks: Networks) -> None:
    """The second server decides before it has heard of the first network."""
    await networks.create(100, "first")
    other = await another(networks)
    try:
        tree = other.store.tree
        assert isinstance(tree, MemoryTree)
        tree.hear = lambda paths: None  # type: ignore[method-assign]  # hints are late
        await networks.create(200, "app", ip4_network="10.20.0.0/24", ip4_gateway="10.20.0.1")
        assert other.store.get(Network, 200) is None
        options = Options(ip4_network=IPv4Network("10.20.0.0/16"), ip4_gateway=IPv4Address("10.20.0.1"))
        creating = asyncio.ensure_future(service.create(other, 201, "other", service.Kind.MANAGED, options))
        while not creating.done():
            await networks.cluster.advance(0.1)
        error = creating.exception()
        assert isinstance(error, Refused) and error.code == "network-overlap"
    finally:
        await other.store.close()


async def test_released_addresses_and_domains_can_be_used_again(networks: Networks) -> None:
    await networks.create(ip4_network="10.20.0.0/24", ip4_gateway="10.20.0.1", domain="x.example")
    await networks.do("PUT", "/app", ip4_network="", domain="y.example")
    await networks.create(201, "b", ip4_network="10.20.0.0/16", ip4_gateway="10.20.0.1", domain="x.example")
    await networks.do("DELETE", "/app")
    await networks.create(202, "c", domain="y.example")
    plan = networks.context.store.get(Plan)
    assert plan and sorted(plan.managed) == [201, 202]


async def test_a_network_cannot_contain_the_address_of_a_node(networks: Networks) -> None:
    await networks.context.store.write(Create(NodeNetwork(node="hv1", address=ip_address("10.99.0.1"))))
    wanted = {"vni": 200, "description": "app", "nettype": "managed"}
    addresses = {"ip4_network": "10.99.0.0/16", "ip4_gateway": "10.99.9.1"}
    code, sentence = await networks.refused("POST", "", **wanted, **addresses)
    assert code == "network-overlap"
    assert sentence == "Cannot use 10.99.0.0/16: it contains 10.99.0.1, the address of node 'hv1'."
    await networks.create()


async def test_the_number_of_managed_networks_is_limited_by_the_store(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvcd_plugins.network.records.MAX_LIST_BYTES", 100)
    await networks.create()
    code, sentence = await networks.refused("POST", "", vni=201, description="b", nettype="managed")
    assert code == "network-limit"
    assert sentence == "Cannot claim addresses for network 'b': the limit is reached with 1 managed networks."


# Other plugins


async def test_a_network_is_found_by_its_bridge(networks: Networks) -> None:
    await networks.create(200, "app")
    found = service.by_bridge(networks.context, "vmbr200")
    assert found and (found.vni, found.bridge) == (200, "vmbr200")
    for name in (
        "vmbr20",
        "vmbr2000",
        "vmbr0200",
        "vmbr",
        "br200",
        "xvmbr200",
        "vmbr200x",
        "vmbr+200",
        "",
        "vmbr\uff12\uff10\uff10",
    ):
        assert service.by_bridge(networks.context, name) is None
    assert service.find(networks.context, "app") == service.find(networks.context, "200") == found


async def test_a_new_use_is_written_with_a_check_of_the_network(networks: Networks) -> None:
    await networks.create(200, "app")
    await networks.create(100, "db")
    checks = service.usable(networks.context, ["vmbr200", "brcluster", "vmbr100", "vmbr200", "virbr0", "br200"])
    assert [check.record for check in checks] == [network_of(networks, 100), network_of(networks, 200)]
    with pytest.raises(Invalid, match=r"^Cannot use bridge 'vmbr300': there is no network 300\.$"):
        service.usable(networks.context, ["vmbr200", "vmbr300"])
    assert service.usable(networks.context, []) == []
    await networks.do("DELETE", "/app")
    with pytest.raises(Changed):
        await networks.context.store.write(*checks)


async def test_a_network_being_removed_cannot_be_put_to_use(networks: Networks) -> None:
    await networks.create()
    await networks.context.store.write(Put(network_of(networks).changed(removing=True)))
    with pytest.raises(Invalid, match=r"^Cannot use bridge 'vmbr200': network 'app' is being removed\.$"):
        service.usable(networks.context, ["vmbr200"])
    for method, path, values in (
        ("POST", "/lease", {"macaddress": "52:54:00:00:00:01", "ipaddress": "10.20.0.50"}),
        ("DELETE", "/lease/x", {}),
        ("POST", "/acl", {"description": "a", "direction": "in", "rule": "accept"}),
        ("DELETE", "/acl/x", {"direction": "in"}),
    ):
        code, sentence = await networks.refused(method, f"/app{path}", **values)
        assert code == "network-removing"
        assert sentence == "Cannot change leases or ACLs of network 'app': it is being removed."


# Removal


async def test_a_network_in_use_is_not_removed_and_its_users_are_named(networks: Networks, users: Users) -> None:
    await networks.create()
    users.answer = ["VM 'web2'", "VM 'web1'"]
    code, sentence = await networks.refused("DELETE", "/app")
    assert code == "network-in-use"
    assert sentence == "Cannot remove network 'app': in use by VM 'web1', VM 'web2'. Detach them first."
    assert dict(users.asked[0].arguments) == {"vni": 200, "bridge": "vmbr200"}
    assert not network_of(networks).removing
    users.answer = [f"VM 'web{number}'" for number in range(8)]
    assert (await networks.refused("DELETE", "/app"))[1].endswith("VM 'web4' and 3 more. Detach them first.")
    users.answer = []
    await networks.do("DELETE", "/app")


async def test_listeners_are_asked_for_users_after_new_uses_are_refused(networks: Networks, users: Users) -> None:
    await networks.create()
    before = network_of(networks)

    async def begin(context: Context, operation: Operation) -> None:
        assert network_of(networks).removing
        with pytest.raises(Changed):
            await context.store.write(Check(before))
        with pytest.raises(Invalid, match="is being removed"):
            service.usable(context, ["vmbr200"])

    users.then = begin
    await networks.do("DELETE", "/app")
    assert len(users.asked) == 1


async def test_a_listener_that_refuses_or_fails_keeps_the_network(networks: Networks, users: Users) -> None:
    await networks.create()

    async def refuse(context: Context, operation: Operation) -> None:
        raise Refused("Not today.")

    async def fail(context: Context, operation: Operation) -> None:
        raise RuntimeError

    users.then = refuse
    assert await networks.refused("DELETE", "/app") == ("refused", "Not today.")
    assert not network_of(networks).removing
    users.then = fail
    assert (await networks.ask("DELETE", "/app")).status == 500
    assert not network_of(networks).removing


async def test_a_guard_is_asked_first() -> None:
    async def check(context: Context, operation: Operation) -> None:
        raise Refused(f"{operation.name} of {operation.arguments['network']}")

    guarded = Networks(guards=[Guard("all", ("network-*",), check)])
    async with guarded.cluster:
        for method, path, values, name in (
            ("DELETE", "/app", {}, "network-remove of app"),
            ("PUT", "/app", {"domain": "x"}, "network-modify of app"),
            ("DELETE", "/app/lease/x", {}, "network-lease-remove of app"),
            ("DELETE", "/app/dhcp/x", {}, "network-lease-remove of app"),
            ("DELETE", "/app/acl/x", {"direction": "in"}, "network-acl-remove of app"),
        ):
            assert await guarded.refused(method, path, **values) == ("refused", name)


async def test_thousands_of_leases_are_removed_with_their_network(networks: Networks) -> None:
    await networks.create()
    store = networks.context.store
    for start in range(0, 1300, 100):
        await store.write(*(Create(Lease(vni=200, address=ip_address(0x0A140000 + start + n), expires=1e10))
                            for n in range(100)))  # fmt: skip
    await networks.lease("10.21.0.1", None, vni=201)
    await networks.do("DELETE", "/app")
    assert [lease.vni for lease in store.all(Lease)] == [201]


async def test_a_new_network_has_no_leases_of_an_earlier_one_with_its_vni(networks: Networks) -> None:
    await networks.lease("10.20.0.100", "52:54:00:00:00:01")
    await networks.lease("10.21.0.100", "52:54:00:00:00:01", vni=201)
    await networks.create()
    assert await networks.get("/app/lease") == []
    assert networks.count(Lease) == 1


async def test_an_interrupted_removal_can_be_repeated_or_undone(networks: Networks) -> None:
    await networks.create()
    for vni, description, method in ((200, "app", "DELETE"), (201, "db", "PUT")):
        if vni == 201:
            await networks.create(201, "db")
        await networks.context.store.write(Put(network_of(networks, vni).changed(removing=True)))
        assert (await networks.get(f"/{description}"))[0]["removing"] is True
        await networks.do(method, f"/{description}")
    assert [(each["vni"], each["removing"]) for each in await networks.get("")] == [(201, False)]


async def test_a_modification_during_a_removal_keeps_the_network(networks: Networks, users: Users) -> None:
    await networks.create()

    async def keep(context: Context, operation: Operation) -> None:
        await networks.do("PUT", "/app")

    users.then = keep
    code, sentence = await networks.refused("DELETE", "/app")
    assert (code, sentence) == ("changed", "Cannot remove network 'app': another request changed it meanwhile.")
    assert not network_of(networks).removing


async def test_a_network_that_is_kept_keeps_its_leases(networks: Networks, users: Users) -> None:
    await networks.create()
    await networks.lease("10.20.0.100", "52:54:00:00:00:01")

    async def keep(context: Context, operation: Operation) -> None:
        await networks.do("PUT", "/app")

    users.then = keep
    assert (await networks.refused("DELETE", "/app"))[0] == "changed"
    assert networks.count(Lease) == 1
    users.then = None
    await networks.do("DELETE", "/app")
    assert networks.count(Lease) == 0


async def test_two_removals_at_once_succeed_or_find_nothing(networks: Networks) -> None:
    await networks.create()
    codes = await all_at_once(networks, networks.ask("DELETE", "/app"), networks.ask("DELETE", "/200"))
    assert codes in (["", ""], ["", "network-not-found"])
    assert networks.count(Network) == 0


async def test_networks_can_be_created_and_removed_at_once(networks: Networks) -> None:
    for n in range(10):
        await networks.create(200 + n, f"net{n}")
    asked = [networks.ask("DELETE", f"/net{n}") for n in range(10)]
    asked += [networks.ask("POST", "", vni=300 + n, description=f"new{n}", nettype="managed") for n in range(10)]
    assert await all_at_once(networks, *asked) == [""] * 20
    kinds = (Network, NetworkName, Reservations, Acls)
    assert [networks.count(kind) for kind in kinds] == [10] * 4
    plan = networks.context.store.get(Plan)
    assert plan and len(plan.managed) == 10


# The list


async def test_failures_reported_by_nodes_are_shown(networks: Networks) -> None:
    await networks.create()
    await networks.create(201, "db")

    async def failed() -> list[dict[str, str]]:
        return [each["failed"] for each in await networks.get("")]

    store = networks.context.store
    assert await failed() == [{}, {}]
    await store.write(Create(NodeNetwork(node="hv1", failed={200: "No link."})))
    assert await failed() == [{"hv1": "No link."}, {}]
    await store.write(Create(ServedNetworks(node="hv1", failed={200: "No DHCP.", 201: "No pool."})))
    assert await failed() == [{"hv1": "No link. No DHCP."}, {"hv1": "No pool."}]
    node = store.get(NodeNetwork, "hv1")
    assert node
    await store.write(Put(node.changed(failed={})))
    assert await failed() == [{"hv1": "No DHCP."}, {"hv1": "No pool."}]
    served = store.get(ServedNetworks)
    assert served
    await store.write(Delete(served))
    assert await failed() == [{}, {}]


async def test_an_unchanged_list_is_not_encoded_again(networks: Networks) -> None:
    await networks.create()
    await networks.create(201, "db")
    first = service.list_networks(networks.context, None)
    assert service.list_networks(networks.context, None) is first
    await networks.lease("10.20.0.100", None)
    await networks.context.store.write(Create(NodeNetwork(node="hv1")))
    assert service.list_networks(networks.context, None).body == first.body
    await networks.do("PUT", "/app", domain="x")
    assert service.list_networks(networks.context, None).body != first.body
