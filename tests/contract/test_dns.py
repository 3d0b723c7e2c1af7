"""The contract of the door to the name server of all networks, on the fake and on dnsmasq."""

from __future__ import annotations

import signal
from ipaddress import IPv4Address, IPv4Network

import pytest
from dhcp_benches import (  # noqa: F401
    ALL_NETWORKS,
    Bench,
    RealBench,
    bench_fixture,
    network,
    real_fixture,
    reserved,
    runs,
    until,
)

from pvcd.errors import Invalid
from pvcd_plugins.network.dns import Zone

ONE = network(200, reservations=(reserved(1, "10.20.0.50", "web1"),))
TWO = network(201, reservations=(reserved(2, "10.21.0.50", "db1"),))
ZONES = tuple(
    Zone(f"net{vni}.example", IPv4Address(f"10.{vni - 180}.0.1"), (IPv4Network(f"10.{vni - 180}.0.0/24"),))
    for vni in (200, 201)
)


async def says(bench: Bench, question: str, answer: str | None) -> None:
    """Return as soon as the server gives an answer."""

    async def said() -> bool:
        return await bench.ask_all(question) == answer

    await until(said)


async def test_names_and_addresses_of_all_networks_are_known(bench: Bench) -> None:
    await bench.apply(ONE, TWO)
    await bench.open_dns()
    await bench.apply_dns(*ZONES)
    assert await bench.ask_all("web1.net200.example") == "10.20.0.50"
    assert await bench.ask_all("db1.net201.example") == "10.21.0.50"
    assert await bench.ask_all("10.20.0.50") == "web1.net200.example."
    assert await bench.ask_all("10.21.0.50") == "db1.net201.example."
    assert await bench.ask_all("db1.net200.example") is None
    address = await bench.take(201, 3, "dynamic")
    await says(bench, "dynamic.net201.example", address)


async def test_changed_domains_apply_without_a_restart(bench: Bench) -> None:
    await bench.apply(ONE, TWO)
    await bench.open_dns()
    await bench.apply_dns(ZONES[0])
    assert await bench.ask_all("db1.net201.example") is None
    await bench.apply_dns(*ZONES)
    await says(bench, "db1.net201.example", "10.21.0.50")
    await says(bench, "10.21.0.50", "db1.net201.example.")
    await bench.apply_dns(ZONES[1])
    await says(bench, "web1.net200.example", None)
    assert await bench.ask_all("db1.net201.example") == "10.21.0.50"


async def test_other_names_are_forwarded_to_the_upstream_servers(bench: Bench) -> None:
    await bench.apply(ONE, TWO)
    await bench.open_dns(IPv4Address("10.21.0.1"))
    await bench.apply_dns(ZONES[0])
    assert await bench.ask_all("web1.net200.example") == "10.20.0.50"
    assert await bench.ask_all("db1.net201.example") == "10.21.0.50"


async def test_an_invalid_domain_is_refused(bench: Bench) -> None:
    await bench.open_dns()
    for domain in ("a.example/8.8.8.8\nserver=/b", "", "a b", "#", "a/", "a,b", ".a", "a..b", "a\0b"):
        with pytest.raises(Invalid, match="must be the name of a DNS domain"):
            await bench.apply_dns(Zone(domain, IPv4Address("10.20.0.1")))


async def test_it_answers_at_an_address_that_is_added_later(real: RealBench) -> None:
    await real.apply(ONE)
    address = f"{ALL_NETWORKS}/32"
    await real.ip("-n", real.namespace, "address", "delete", address, "dev", "lo")
    await real.open_dns()
    await real.apply_dns(*ZONES)
    assert await real.ask_all("web1.net200.example") is None
    await real.ip("-n", real.namespace, "address", "add", address, "dev", "lo")
    await says(real, "web1.net200.example", "10.20.0.50")


async def test_a_killed_server_is_restarted(real: RealBench) -> None:
    await real.apply(ONE, TWO)
    await real.open_dns()
    await real.apply_dns(*ZONES)
    first = (await real.pids())[0]
    await real.apply_dns(*ZONES[:1])
    assert (await real.pids())[0] == first
    await real.kill(0)
    await real.apply_dns(*ZONES[:1])
    assert await real.ask_all("web1.net200.example") == "10.20.0.50"


async def test_it_answers_at_its_own_addresses_only(real: RealBench) -> None:
    await real.apply(ONE)
    await real.open_dns()
    await real.apply_dns(*ZONES)
    listening = await real.inside(real.namespace, "ss", "-Hlnup", "sport", "=", ":53")
    pid = (await real.pids())[0]
    ours = [line.split()[3] for line in listening.splitlines() if f"pid={pid}," in line]
    assert ours == [f"{ALL_NETWORKS}:53"]


async def test_it_ends_with_its_process(real: RealBench) -> None:
    await real.open_dns()
    await real.apply_dns(*ZONES)
    pid = (await real.pids())[0]
    assert pid
    await real.stop(signal.SIGKILL)

    async def ended() -> bool:
        return not runs(pid)

    await until(ended)
    await real.start()
