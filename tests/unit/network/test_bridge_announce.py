"""Announcements of moved addresses: their frames and times."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from pvcd.clock import VirtualClock
from pvcd_plugins.network.bridge import announce
from pvcd_plugins.network.bridge.announce import Announced, Announcer

MAC = "02:11:22:33:44:55"
FOUR, SIX = Announced("vmbr200", MAC, ip_address("10.0.0.1")), Announced("vmbr200", MAC, ip_address("fd00::1"))


def test_a_gratuitous_arp_asks_all_for_the_own_address() -> None:
    assert FOUR.frame() == bytes.fromhex(
        "ffffffffffff 021122334455 0806 0001 0800 06 04 0001 021122334455 0a000001 000000000000 0a000001"
    )


def test_an_advertisement_goes_to_all_nodes_with_a_valid_checksum() -> None:
    frame = SIX.frame()
    address, all_nodes = ip_address("fd00::1").packed, ip_address("ff02::1").packed
    assert frame[:14] == bytes.fromhex("333300000001 021122334455 86dd")
    assert frame[14:54] == bytes.fromhex("60000000 0020 3a ff") + address + all_nodes
    message = frame[54:]
    assert message[:2] == bytes.fromhex("8800") and message[4:8] == bytes.fromhex("a0000000")
    assert message[8:] == address + bytes.fromhex("0201 021122334455")
    covered = address + all_nodes + bytes.fromhex("00000020 0000003a") + message
    total = sum(int.from_bytes(covered[at : at + 2], "big") for at in range(0, len(covered), 2))
    assert total % 0xFFFF == 0


@pytest.fixture(name="sent")
def sent_fixture(monkeypatch: pytest.MonkeyPatch) -> list[Announced]:
    sent: list[Announced] = []
    monkeypatch.setattr(announce, "send", sent.extend)
    return sent


async def test_an_address_is_announced_three_times(sent: list[Announced]) -> None:
    clock = VirtualClock()
    announcer = Announcer(clock)
    announcer.hold([FOUR, SIX], clock.monotonic() + 60)
    announcer.announce([FOUR])
    for seconds, times in ((0, 1), (0.9, 1), (0.2, 2), (1, 3), (20, 3)):
        await clock.advance(seconds)
        assert sent == [FOUR] * times


async def test_an_address_no_longer_held_is_not_announced(sent: list[Announced]) -> None:
    clock = VirtualClock()
    announcer = Announcer(clock)
    announcer.hold([FOUR, SIX], clock.monotonic() + 60)
    announcer.announce([FOUR, SIX])
    await clock.advance(0.5)
    announcer.hold([SIX], clock.monotonic() + 60)
    await clock.advance(5)
    assert sent == [FOUR, SIX, SIX, SIX]


async def test_expired_addresses_are_not_announced(sent: list[Announced]) -> None:
    clock = VirtualClock()
    announcer = Announcer(clock)
    announcer.hold([FOUR], clock.monotonic() + 0.5)
    announcer.announce([FOUR])
    await clock.advance(5)
    assert sent == [FOUR]


async def test_nothing_is_announced_after_closing(sent: list[Announced]) -> None:
    clock = VirtualClock()
    announcer = Announcer(clock)
    announcer.hold([FOUR], clock.monotonic() + 60)
    announcer.announce([FOUR])
    await clock.advance(0)
    await announcer.aclose()
    await clock.advance(5)
    assert sent == [FOUR]
