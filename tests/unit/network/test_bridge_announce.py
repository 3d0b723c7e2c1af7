"""What hosts are told of an address that has moved, and when."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from pvcd.clock import VirtualClock
from pvcd_plugins.network.bridge import announce
from pvcd_plugins.network.bridge.announce import Announced, Announcer

MAC = "02:11:22:33:44:55"
FOUR, SIX = Announced("vmbr200", MAC, ip_address("10.0.0.1")), Announced("vmbr200", MAC, ip_address("fd00::1"))


def test_a_gratuitous_arp_is_a_question_of_all_for_ones_own_address() -> None:
    assert FOUR.frame() == bytes.fromhex(
        "ffffffffffff 021122334455 0806 0001 0800 06 04 0001 021122334455 0a000001 000000000000 0a000001"
    )


def test_an_advertisement_is_to_all_nodes_and_its_checksum_is_right() -> None:
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


async def test_it_is_told_three_times(sent: list[Announced]) -> None:
    clock = VirtualClock()
    announcer = Announcer(clock)
    announcer.hold([FOUR, SIX], clock.monotonic() + 60)
    announcer.announce([FOUR])
    for seconds, times in ((0, 1), (0.9, 1), (0.2, 2), (1, 3), (20, 3)):
        await clock.advance(seconds)
        assert sent == [FOUR] * times


async def test_of_what_is_held_no_more_nothing_is_told(sent: list[Announced]) -> None:
    clock = VirtualClock()
    announcer = Announcer(clock)
    announcer.hold([FOUR, SIX], clock.monotonic() + 60)
    announcer.announce([FOUR, SIX])
    await clock.advance(0.5)
    announcer.hold([SIX], clock.monotonic() + 60)
    await clock.advance(5)
    assert sent == [FOUR, SIX, SIX, SIX]


async def test_nothing_is_told_when_the_time_of_the_addresses_is_over(sent: list[Announced]) -> None:
    clock = VirtualClock()
    announcer = Announcer(clock)
    announcer.hold([FOUR], clock.monotonic() + 0.5)
    announcer.announce([FOUR])
    await clock.advance(5)
    assert sent == [FOUR]


async def test_when_it_is_closed_nothing_more_is_told(sent: list[Announced]) -> None:
    clock = VirtualClock()
    announcer = Announcer(clock)
    announcer.hold([FOUR], clock.monotonic() + 60)
    announcer.announce([FOUR])
    await clock.advance(0)
    await announcer.aclose()
    await clock.advance(5)
    assert sent == [FOUR]
