"""The MAC addresses of a VM's interfaces, from a template or at random; never one that is in use."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence

from pvcd import Conflict, Invalid, wrong_value

PREFIX = "52:54:00"
PLACEHOLDERS = "must have no placeholders other than {prefix}, {vmid} and {netid}"
_ATTEMPTS = 100
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class MacTaken(Conflict):
    """The MAC address is in use by another interface."""

    code = "mac-taken"


def from_template(template: str, vm_id: int, net_id: int) -> str:
    """Return the address of a VM's interface: `{vmid}` and `{netid}` become one hexadecimal digit each."""
    values = {"prefix": PREFIX, "vmid": f"{vm_id % 16:x}", "netid": f"{net_id % 16:x}"}

    def fill(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise Invalid(wrong_value("mac_template", repr(template[:80]), PLACEHOLDERS))
        return values[match[1]]

    address = _PLACEHOLDER.sub(fill, template).lower()
    if not _MAC.fullmatch(address) or int(address[:2], 16) & 1:
        raise Invalid(
            f"mac_template must result in the MAC address of an interface; got {template[:80]!r}, which results in "
            f"{address[:80]!r}."
        )
    return address


def at_random(known: Collection[str], source: random.Random) -> str:
    """Return a random address that is not in use."""
    for _ in range(_ATTEMPTS):
        address = ":".join((PREFIX, *(f"{source.randrange(256):02x}" for _ in range(3))))
        if address not in known:
            return address
    raise MacTaken(f"Cannot find a free MAC address: {_ATTEMPTS} random ones are in use.")


def addresses(
    template: str | None, vm_name: str, vm_id: int, networks: Sequence[int], known: Mapping[str, str]
) -> list[str]:
    """Return an address for each network, in their order. `known` are all in the cluster, with the names of VMs."""
    taken = {each.lower(): f"VM {name!r}" for each, name in known.items()}
    found: list[str] = []
    source = random.SystemRandom()
    for net_id, vni in enumerate(networks):
        if template is None:
            address = at_random(taken, source)
        else:
            address = from_template(template, vm_id, net_id)
            if address in taken:
                raise MacTaken(
                    f"Cannot give VM {vm_name!r} the MAC address {address} in network {vni}: {taken[address]} "
                    "has it. Give the VM another number, or its network template another mac_template."
                )
        taken[address] = "another interface of it"
        found.append(address)
    return found
