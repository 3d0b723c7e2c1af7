"""The contract of the door to DHCP, on the fake and on dnsmasq with hosts in namespaces."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
import time
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import SimpleNamespace

import pytest
from dhcp_benches import (  # noqa: F401
    Bench,
    RealBench,
    bench_fixture,
    expiry,
    ip6,
    mac,
    network,
    real_fixture,
    reserved,
    runs,
    status,
    until,
)
from leases import KeptLeases

from pvcd.errors import Failed
from pvcd.programs.runner import run
from pvcd_plugins.network.dhcp import Leased, script
from pvcd_plugins.network.dhcp.dnsmasq import DnsmasqDhcp
from pvcd_plugins.network.dnsmasq import Server, account

ODD_NAMES = ("$(id)", "a b", "a,10.20.0.9", "a;b", "../x", "x" * 200, "-a", "*", "wpad", "a\tb", "ignore", "12h")
WEB = reserved(1, "10.20.0.50", "web1")


async def remembered(bench: Bench, vni: int, address: str, later_than: float = 0.0) -> float:
    """Return the end of a lease as soon as it is stored."""

    async def there() -> bool:
        return expiry(bench, vni, address) > later_than

    await until(there)
    return expiry(bench, vni, address)


async def forgotten(bench: Bench, vni: int, address: str) -> None:
    """Return as soon as a lease is not remembered any more."""

    async def gone() -> bool:
        return not expiry(bench, vni, address)

    await until(gone)


async def says(bench: Bench, vni: int, question: str, answer: str | None) -> None:
    """Return as soon as the name server of a network gives an answer."""

    async def said() -> bool:
        return await bench.ask(vni, question) == answer

    await until(said)


async def test_a_host_gets_its_reserved_address(bench: Bench) -> None:
    assert await bench.apply(network(200, reservations=(WEB,))) == {}
    assert await bench.take(200, 1, "other") == "10.20.0.50"
    await remembered(bench, 200, "10.20.0.50")
    (lease,) = await bench.leases.known(200)
    assert (lease.address, lease.mac, lease.hostname) == (IPv4Address("10.20.0.50"), mac(1), "web1")


async def test_any_other_host_gets_an_address_of_the_pool_which_is_stored(bench: Bench) -> None:
    await bench.apply(network(200, reservations=(WEB,)))
    before = time.time()
    address = await bench.take(200, 2, "dynamic")
    assert address and IPv4Address("10.20.0.100") <= IPv4Address(address) <= IPv4Address("10.20.0.199")
    ends = await remembered(bench, 200, address)
    assert before + 48 * 3600 - 2 <= ends <= time.time() + 48 * 3600 + 2
    assert await bench.take(200, 3) not in (None, address)
    assert [each.mac for each in await bench.leases.known(200) if each.hostname == "dynamic"] == [mac(2)]


async def test_a_renewal_is_stored_and_a_released_lease_is_removed(bench: Bench) -> None:
    await bench.apply(network(200))
    address = await bench.take(200, 2, "dynamic")
    assert address
    first = await remembered(bench, 200, address)

    async def a_second_later() -> bool:
        return time.time() + 48 * 3600 > first + 1.1

    await until(a_second_later)  # since dnsmasq counts in seconds, by a clock that may be a little behind
    await bench.renew(200, 2)
    await remembered(bench, 200, address, later_than=first)
    await says(bench, 200, "dynamic.net200.example", address)
    await bench.give_back(200, 2)
    await forgotten(bench, 200, address)
    await says(bench, 200, "dynamic.net200.example", None)


async def test_names_are_known_by_reservation_and_by_lease(bench: Bench) -> None:
    await bench.apply(network(200, reservations=(WEB,)), network(201))
    await says(bench, 200, "web1.net200.example", "10.20.0.50")
    assert await bench.ask(200, "10.20.0.50") == "web1.net200.example."
    address = await bench.take(200, 2, "dynamic")
    assert address
    await says(bench, 200, "dynamic.net200.example", address)
    assert await bench.ask(200, address) == "dynamic.net200.example."
    for question in ("none.net200.example", "web1.net201.example", "10.20.0.77", "example.org"):
        assert await bench.ask(200, question) is None
    assert await bench.ask(201, "web1.net200.example") is None


async def test_a_host_cannot_take_the_name_of_a_reservation(bench: Bench) -> None:
    await bench.apply(network(200, reservations=(WEB,)))
    address = await bench.take(200, 2, "web1")
    assert address
    await remembered(bench, 200, address)
    assert await bench.ask(200, "web1.net200.example") == "10.20.0.50"


async def test_a_killed_server_is_restarted_and_knows_its_leases(bench: Bench) -> None:
    await bench.apply(network(200), network(201))
    address = await bench.take(200, 2, "dynamic")
    assert address
    await remembered(bench, 200, address)
    await bench.kill(200)
    assert await bench.apply(network(200), network(201)) == {}
    await says(bench, 200, "dynamic.net200.example", address)
    assert await bench.take(200, 2, "dynamic") == address


async def test_reservations_apply_at_once_and_end_with_their_removal(bench: Bench) -> None:
    await bench.apply(network(200))
    await bench.apply(network(200, reservations=(WEB,)))
    assert await bench.take(200, 1) == "10.20.0.50"
    await says(bench, 200, "web1.net200.example", "10.20.0.50")
    await remembered(bench, 200, "10.20.0.50")
    await bench.give_back(200, 1)
    await forgotten(bench, 200, "10.20.0.50")
    await bench.apply(network(200, reservations=(reserved(1, "10.20.0.51", "web2"),)))
    await says(bench, 200, "web1.net200.example", None)
    await says(bench, 200, "web2.net200.example", "10.20.0.51")
    assert await bench.take(200, 1) == "10.20.0.51"
    await bench.give_back(200, 1)
    await forgotten(bench, 200, "10.20.0.51")
    await bench.apply(network(200))
    await says(bench, 200, "web2.net200.example", None)
    address = await bench.take(200, 1)
    assert address and address not in ("10.20.0.50", "10.20.0.51")


async def test_leases_and_names_follow_the_door_to_another_node(bench: Bench) -> None:
    await bench.apply(network(200), network(201))
    first, second = await bench.take(200, 3, "first"), await bench.take(200, 2, "second")
    assert first and second
    for address in (first, second):
        await remembered(bench, 200, address)
    await bench.reopen()
    assert await bench.apply(network(201), network(200)) == {}
    assert await bench.ask(200, "first.net200.example") == first
    assert await bench.ask(200, second) == "second.net200.example."
    assert await bench.take(200, 2, "second") == second
    assert await bench.take(200, 4) not in (first, second, None)
    known = expiry(bench, 200, second)

    async def a_second_later() -> bool:
        return time.time() + 48 * 3600 > known + 1.1

    await until(a_second_later)
    await bench.renew(200, 2)
    await remembered(bench, 200, second, later_than=known)


async def test_only_requested_networks_are_served(bench: Bench) -> None:
    await bench.apply(network(200, reservations=(WEB,)), network(201))
    await bench.apply(network(201))
    assert await bench.ask(200, "web1.net200.example") is None
    assert await bench.take(200, 1) is None
    await bench.apply(network(200, dhcp4=None, reservations=(WEB,)), network(201))
    assert await bench.take(200, 1) is None
    assert await bench.ask(200, "web1.net200.example") == "10.20.0.50"


async def test_changed_settings_lose_no_lease(bench: Bench) -> None:
    await bench.apply(network(200), network(201))
    address = await bench.take(200, 2, "dynamic")
    assert address
    await remembered(bench, 200, address)
    assert await bench.apply(network(200, domain="other.example", mtu=1400), network(201)) == {}
    assert await bench.ask(200, "dynamic.other.example") == address
    assert await bench.ask(200, "dynamic.net200.example") is None
    assert await bench.take(200, 2, "dynamic") == address


async def test_a_network_that_cannot_be_served_is_reported_and_does_not_affect_others(bench: Bench) -> None:
    wrong = network(200, domain="a.example\ndhcp-script=/bin/true")
    told = await bench.apply(wrong, network(201))
    assert told.keys() == {200} and "must be the name of a DNS domain" in told[200]
    assert await bench.take(201, 1)


async def test_all_options_arrive(real: RealBench) -> None:
    await real.apply(network(200, reservations=(WEB,)))
    client = await real.client(200, 1)
    assert client
    told = client.told("bound")
    assert (told["ip"], told["subnet"], told["lease"]) == ("10.20.0.50", "255.255.255.0", str(48 * 3600))
    assert told["router"] == told["dns"] == told["ntpsrv"] == told["serverid"] == "10.20.0.1"
    assert (told["mtu"], told["domain"], told["search"]) == ("1450", "net200.example", "net200.example")
    assert told["staticroutes"] == "169.254.169.254/32 10.20.0.1 0.0.0.0/0 10.20.0.1"
    assert told["hostname"] == "web1"


async def test_names_of_other_domains_come_only_from_the_name_servers(real: RealBench) -> None:
    await real.apply(network(200, reservations=(WEB,)), network(201))
    answer = await real.inside(real.namespace, "dig", "@10.21.0.1", "web1.net200.example")
    assert "status: REFUSED" in answer
    await real.apply(network(200, reservations=(WEB,)), network(201, name_servers=(IPv4Address("10.20.0.1"),)))
    assert await real.ask(201, "web1.net200.example") == "10.20.0.50"
    answer = await real.inside(real.namespace, "dig", "@10.20.0.1", "none.net200.example")
    assert "status: NXDOMAIN" in answer


async def test_only_changed_servers_are_restarted(real: RealBench) -> None:
    await real.apply(network(200), network(201))
    first = await real.pids()
    await real.apply(network(201), network(200, reservations=(WEB,)))
    await real.apply(network(201), network(200))
    assert await real.pids() == first
    await real.apply(network(201, mtu=1400), network(200))
    second = await real.pids()
    assert second[200] == first[200] and second[201] != first[201]


async def test_unchanged_leases_that_dnsmasq_repeats_are_not_written_again(real: RealBench) -> None:
    await real.apply(network(200, reservations=(WEB,)))
    address = await real.take(200, 2, "dynamic")
    assert address
    await remembered(real, 200, address)
    writes = real.leases.writes.read_text()
    await real.apply(network(200))  # which lets it read, and tell, everything again
    await says(real, 200, "web1.net200.example", None)
    assert await real.take(200, 3)

    # It tells in order: the new lease comes after what it repeats.
    async def told() -> bool:
        return real.leases.writes.read_text() != writes

    await until(told)
    assert real.leases.writes.read_text() == writes + "x"


async def test_the_script_reports_only_changes_since_the_start(real: RealBench) -> None:
    expires, duid = int(time.time()) + 3600, f"00:03:00:01:{mac(2)}"
    four = Leased(IPv4Address("10.20.0.120"), mac(1), f"01:{mac(1)}", "web", expires)
    six = Leased(IPv6Address("fd00:200::7"), None, duid, None, expires, 7)
    for lease in (four, six):
        await real.leases.taken(200, lease)
    await real.apply(network(200))
    door = real.scratch / "door0"
    (door / "script.py").unlink()
    same4 = {"DNSMASQ_LEASE_EXPIRES": str(expires), "DNSMASQ_CLIENT_ID": f"01:{mac(1)}"}
    same6 = {"DNSMASQ_LEASE_EXPIRES": str(expires), "DNSMASQ_IAID": "7"}
    renewed = {"DNSMASQ_LEASE_EXPIRES": str(expires + 1)}
    words4, words6 = (mac(1), "10.20.0.120", "web"), (duid, "fd00:200::7")
    for action, words, environment, needs_python in (
        *(("old", words4, same4, False), ("old", words6, same6, False)),
        *(("old", words4, same4 | renewed, True), ("old", words6, same6 | renewed, True)),
        *(("old", (*words4[:2], "new"), same4, True), ("old", words4[:2], same4, True), ("old", words6, same4, True)),
        *(("add", words4, same4, True), ("del", words4, same4, True)),
    ):
        argv = (str(door / "200" / "lease-script"), action, *words)
        result = await run(argv, timeout=10, environment=environment, check=False)
        assert bool(result.returncode) == needs_python, argv


async def test_a_lease_that_could_not_be_stored_is_stored_later(real: RealBench) -> None:
    await real.apply(network(200))
    real.leases.away.touch()
    address = await real.take(200, 2, "dynamic")
    assert address

    async def complained() -> bool:
        return "ZooKeeper is away" in real.log.read_text()

    await until(complained)
    assert not expiry(real, 200, address)
    real.leases.away.unlink()
    await real.apply(network(200))
    assert expiry(real, 200, address)


async def test_without_its_leases_a_server_does_not_start(real: RealBench) -> None:
    real.leases.away.touch()
    told = await real.apply(network(200))
    sentence = "The dnsmasq of network 200 could not be started: ZooKeeper is away; restarting it soon."
    assert told == {200: sentence}
    assert await real.take(200, 2) is None
    real.leases.away.unlink()

    async def served() -> bool:
        return await real.apply(network(200)) == {}

    await until(served)
    assert await real.take(200, 2)


async def test_servers_end_with_the_process_however_it_ends(real: RealBench) -> None:
    await real.apply(network(200), network(201))
    pids = [pid for pid in (await real.pids()).values() if pid]
    assert len(pids) == 2
    await real.stop(signal.SIGKILL)

    async def ended() -> bool:
        return not any(runs(pid) for pid in pids)

    await until(ended)
    await real.start()
    assert await real.apply(network(200)) == {}
    assert await real.take(200, 2)


async def test_servers_run_as_nobody_with_three_capabilities(real: RealBench) -> None:
    await real.apply(network(200))
    process = status((await real.pids())[200])
    assert set(process["Uid"].split()) == {"65534"} and process["Groups"] == ""
    assert int(process["CapBnd"], 16) == int(process["CapEff"], 16) == 1 << 10 | 1 << 12 | 1 << 13


async def test_servers_run_as_root_if_the_user_nobody_cannot_enter_the_directory(real: RealBench) -> None:
    real.scratch.chmod(0o700)
    await real.reopen()
    assert await real.apply(network(200)) == {}
    address = await real.take(200, 2, "dynamic")
    assert address
    await remembered(real, 200, address)
    pid = (await real.pids())[200]
    assert set(status(pid)["Uid"].split()) == {"0"}
    await real.stop(signal.SIGKILL)

    async def ended() -> bool:
        return not runs(pid)

    await until(ended)
    await real.start()


async def test_a_network_waits_for_its_bridge_and_follows_a_recreated_one(real: RealBench) -> None:
    assert await real.apply(network(202)) == {202: "Cannot serve network 202: there is no bridge 'vmbr202' yet."}
    for number in (1, 2):
        await real.add_bridge(202)
        assert await real.apply(network(202)) == {}
        assert await real.take(202, number)
        await real.ip("-n", real.namespace, "link", "delete", "vmbr202")
        assert (await real.apply(network(202))).keys() == {202}


async def test_nothing_is_left_of_a_network_whose_bridge_goes_before_it(real: RealBench) -> None:
    await real.add_bridge(202)
    assert await real.apply(network(202)) == {}
    [directory] = real.scratch.glob("door*/202")
    await real.ip("-n", real.namespace, "link", "delete", "vmbr202")
    assert 202 in await real.apply(network(202))
    assert await real.apply() == {}
    assert not directory.exists()


async def test_hosts_autoconfigure_ipv6_beside_ipv4(real: RealBench) -> None:
    await real.apply(network(200, ip6=ip6(200)))
    host = await real.host(200, 7)

    async def autoconfigured() -> bool:
        return "fd00:200::5054:ff:fe00:7/64" in await real.ip("-n", host, "-6", "address", "show", "dev", "eth0")

    await until(autoconfigured)
    assert "default via fe80::" in await real.ip("-n", host, "-6", "route")
    assert (await real.inside(host, "cat", "/proc/sys/net/ipv6/conf/eth0/mtu")).strip() == "1450"
    told = await real.dhcp6(200, 7, "information")
    assert told["dns"] == "fd00:200::1" and "net200" in told["domains"]
    assert await real.take(200, 7)


async def test_dhcpv6_leases_are_stored_and_follow(real: RealBench) -> None:
    served = network(200, ip4=None, dhcp4=None, ip6=ip6(200))
    await real.apply(served)
    first = await real.dhcp6(200, 7)
    address = IPv6Address(first["address"])
    assert IPv6Address("fd00:200::2") <= address <= IPv6Address("fd00:200::ffff")
    assert (first["valid"], first["dns"]) == (24 * 3600, "fd00:200::1")
    await remembered(real, 200, first["address"])
    lease = real.leases.all()[200, address]
    duid = f"00:03:00:01:{mac(7)}"
    assert (lease.client_id, lease.iaid) == (duid, 7) and lease.mac in (mac(7), None)
    await real.reopen()
    await real.apply(served)
    again = await real.dhcp6(200, 7)
    assert (again["address"], again["server"]) == (first["address"], first["server"])
    assert (await real.dhcp6(200, 8))["address"] != first["address"]
    host = await real.host(200, 9)

    async def advertised() -> bool:
        return "default via fe80::" in await real.ip("-n", host, "-6", "route")

    await until(advertised)
    assert "fd00:200:" not in await real.ip("-n", host, "-6", "address", "show", "dev", "eth0")


async def test_a_network_of_any_length_of_ipv6_is_served(real: RealBench) -> None:
    for length in (48, 64, 80, 120, 126, 127):
        for changed in ({}, {"ip4": None, "dhcp4": None}):
            served = network(200, ip6=type(ip6(200))(f"fd00:200::1/{length}"), **changed)
            assert await real.apply(served) == {}, length


async def test_odd_stored_leases_stop_nothing(real: RealBench) -> None:
    soon = time.time() + 3600
    odd = [
        Leased(IPv4Address("10.20.0.120"), mac(1), "*", "evil name\n1 x", soon),
        Leased(IPv4Address("10.20.0.121"), "not a mac", "*", None, soon),
        Leased(IPv4Address("10.20.0.122"), mac(2), "$(id)", "fine", soon),
        Leased(IPv6Address("fd00::7"), None, "*", None, soon),
        Leased(IPv4Address("10.99.0.1"), mac(3), "*", "far", soon),
    ]
    for each in odd:
        await real.leases.taken(200, each)
    assert await real.apply(network(200)) == {}
    assert await real.ask(200, "fine.net200.example") == "10.20.0.122"


async def test_hostile_host_names_do_no_harm(real: RealBench) -> None:
    await real.apply(network(200))
    found = []
    for number, name in enumerate(ODD_NAMES, 10):
        found.append(await real.take(200, number, name))
        await remembered(real, 200, str(found[-1]))
    for lease in await real.leases.known(200):
        assert lease.hostname is None or lease.hostname.replace("-", "").isalnum()
        assert lease.hostname != "wpad"
    await real.kill(200)
    assert await real.take(200, 10, "plain") == found[0]
    await says(real, 200, "plain.net200.example", found[0])


@pytest.mark.alone
async def test_nothing_is_written_when_nothing_has_changed(real: RealBench) -> None:
    everything = network(200, reservations=(WEB,)), network(201)
    await real.apply(*everything)
    begun = time.monotonic()
    for _ in range(100):
        await real.apply(*everything)
    assert (time.monotonic() - begun) / 100 < 0.02


async def test_a_directory_that_dnsmasq_cannot_name_is_refused(tmp_path: Path) -> None:
    for name in ("a b", "a;b", "a'b", "ä"):
        door = DnsmasqDhcp(tmp_path / name, KeptLeases(tmp_path / "kept"))
        with pytest.raises(Failed, match="its path may contain only"):
            await door.open()


async def test_a_noexec_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_NOEXEC))
    door = DnsmasqDhcp(tmp_path / "door", KeptLeases(tmp_path / "kept"))
    with pytest.raises(Failed, match="it is mounted noexec"):
        await door.open()


async def test_the_script_fails_with_a_sentence_without_an_answer(tmp_path: Path) -> None:
    copy = tmp_path / "script.py"
    copy.write_text(inspect.getsource(script).replace("ANSWER_SECONDS = 8.0", "ANSWER_SECONDS = 0.2"))
    argv = (sys.executable, "-SEI", str(copy), "200", "add", mac(1), "10.20.0.9")
    result = await run(argv, timeout=10, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(b"cannot reach the lease store of network 200: [Errno 2]")
    answers = iter([None, "", "Nothing is known of it.", script.OK])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readline()).startswith(b"200\0add\0")
        text = next(answers)
        if text is None:
            await reader.read()  # until it has given up
        writer.write((text or "").encode())
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / script.SOCKET):
        told = [await run(argv, timeout=10, check=False) for _ in range(4)]
    assert [each.returncode for each in told] == [1, 1, 1, 0]
    sentences = [each.stderr.decode().strip() for each in told]
    assert sentences[0].endswith("timed out") and sentences[1:] == [
        "no answer",
        "Nothing is known of it.",
        "",
    ]


async def test_a_missing_program_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    server = Server("The server", tmp_path / "none", account(Path("/")))
    await server.start()
    said = "The server could not be started: Cannot run 'setpriv': it is not installed; restarting it soon."
    assert server.trouble == said
    await server.stop()


async def test_a_wrong_configuration_is_reported(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("port=0\nno-such-option\n")
    server = Server("The server", wrong, None)
    await server.start()
    assert server.trouble and "bad option at line 2" in server.trouble
    await server.stop()
