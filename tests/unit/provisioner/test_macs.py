"""MAC addresses, from a template or at random, and never one in use."""

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
def test_each_placeholder_becomes_one_digit(vm_id: int, net_id: int, address: str) -> None:
    assert from_template(TEMPLATE, vm_id, net_id) == address


def test_letters_of_an_address_are_lower_case() -> None:
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
def test_an_invalid_mac_template_is_refused_here_and_when_created(template: str) -> None:
    with pytest.raises(Invalid, match="mac_template must"):
        from_template(template, 1, 1)
    with pytest.raises(ValueError, match=r"must|placeholders|group"):
        read_mac_template(template)


def test_random_addresses_have_the_prefix_and_are_not_in_use() -> None:
    source = random.Random(1)
    first = at_random(set(), source)
    assert re.fullmatch(r"52:54:00(:[0-9a-f]{2}){3}", first)
    assert at_random({first}, random.Random(1)) != first


def test_each_interface_gets_a_different_address() -> None:
    found = addresses(None, "web1", 1, [200, 300, 400], {})
    assert len(set(found)) == 3
    assert addresses(TEMPLATE, "web3", 3, [200, 300], {"52:54:00:ff:f6:41": "web4"}) == [
        "52:54:00:ff:f6:30",
        "52:54:00:ff:f6:31",
    ]
    assert addresses(None, "web1", 1, [], {}) == []


@pytest.mark.parametrize(
    ("template", "known", "user"),
    [
        (TEMPLATE, {"52:54:00:FF:F6:31": "web4"}, "VM 'web4'"),
        ("{prefix}:ff:f6:0{vmid}", {}, "another interface of it"),
    ],
    ids=["other", "itself"],
)
def test_an_address_in_use_is_refused(template: str, known: dict[str, str], user: str) -> None:
    with pytest.raises(MacTaken, match=rf"52:54:00:ff:f6:[0-9]{{2}} in network 300: {user} has it"):
        addresses(template, "web3", 3, [200, 300], known)
