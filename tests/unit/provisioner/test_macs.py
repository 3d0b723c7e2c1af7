"""MAC addresses come from a closed template or at random, and never twice."""

from __future__ import annotations

import random
import re

import pytest

from pvcd.errors import Invalid
from pvcd_plugins.provisioner.grammar import read_mac_template
from pvcd_plugins.provisioner.macs import MacTaken, addresses, at_random, from_template

TEMPLATE = "{prefix}:ff:f6:{vmid}{netid}"


@pytest.mark.parametrize(
    ("vm_id", "net_id", "address"),
    [
        (3, 1, "52:54:00:ff:f6:31"),
        (0, 0, "52:54:00:ff:f6:00"),
        (15, 10, "52:54:00:ff:f6:fa"),
        (16, 17, "52:54:00:ff:f6:01"),
    ],
)
def test_a_template_is_filled_with_one_digit_each(vm_id: int, net_id: int, address: str) -> None:
    assert from_template(TEMPLATE, vm_id, net_id) == address


def test_letters_are_small() -> None:
    assert from_template("52:54:00:AB:CD:{vmid}{netid}", 1, 2) == "52:54:00:ab:cd:12"


@pytest.mark.parametrize(
    "template",
    [
        "{prefix}:{vmid.__class__}:00:{netid}0",
        "{prefix}:{0}:00:00",
        "{prefix!r}:00:00:00",
        "{prefix}:00:00:{vmid:>10}",
        "{{vmid}}:00:00:00:00:00",
        "{}",
        "{prefix}:00:00:00:00",
        "{prefix}:00:00",
        "01:00:5e:00:00:{vmid}{netid}",
        "5{vmid}:00:00:00:00:0{netid}:",
    ],
)
def test_any_other_template_is_refused_as_it_is_when_it_is_written(template: str) -> None:
    with pytest.raises(Invalid, match="mac_template must"):
        from_template(template, 1, 1)
    with pytest.raises(ValueError, match=r"must|placeholders|group"):
        read_mac_template(template)


def test_random_addresses_are_ours_and_none_that_is_known() -> None:
    source = random.Random(1)
    first = at_random(set(), source)
    assert re.fullmatch(r"52:54:00(:[0-9a-f]{2}){3}", first)
    assert at_random({first}, random.Random(1)) != first


def test_a_vm_gets_one_address_for_each_network_each_another_one() -> None:
    found = addresses(None, "web1", 1, [200, 300, 400], [])
    assert len(set(found)) == 3
    assert addresses(TEMPLATE, "web3", 3, [200, 300], ["52:54:00:ff:f6:41"]) == [
        "52:54:00:ff:f6:30",
        "52:54:00:ff:f6:31",
    ]
    assert addresses(None, "web1", 1, [], []) == []


@pytest.mark.parametrize(
    ("template", "known"), [(TEMPLATE, ["52:54:00:FF:F6:31"]), ("{prefix}:ff:f6:0{vmid}", [])], ids=["other", "itself"]
)
def test_an_address_that_there_is_already_is_refused(template: str, known: list[str]) -> None:
    with pytest.raises(MacTaken, match=r"52:54:00:ff:f6:[0-9]{2} in network 300: in use by another interface"):
        addresses(template, "web3", 3, [200, 300], known)
