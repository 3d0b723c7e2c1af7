"""The MAC addresses of a VM's interfaces: from a template, or at random; never one that there is already."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence

from pvcd import Conflict, Invalid

PREFIX = "52:54:00"
_ATTEMPTS = 100
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class MacTaken(Conflict):
    """Another interface has the address that a template makes."""

    code = "mac-taken"


def from_template(template: str, vm_id: int, net_id: int) -> str:
    """The address of a VM's interface: one hexadecimal digit for each of `{vmid}` and `{netid}`, nothing else."""
    values = {"prefix": PREFIX, "vmid": f"{vm_id % 16:x}", "netid": f"{net_id % 16:x}"}

    def fill(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise Invalid(
                f"The MAC template {template[:80]!r} has a placeholder beside {{prefix}}, {{vmid}} and {{netid}}."
            )
        return values[match[1]]

    address = _PLACEHOLDER.sub(fill, template).lower()
    if not _MAC.fullmatch(address) or int(address[:2], 16) & 1:
        raise Invalid(f"The MAC template {template[:80]!r} makes {address[:80]!r}, which no interface can have.")
    return address


def at_random(known: Collection[str], source: random.Random) -> str:
    """An address that is not known."""
    for _ in range(_ATTEMPTS):
        address = ":".join((PREFIX, *(f"{source.randrange(256):02x}" for _ in range(3))))
        if address not in known:
            return address
    raise MacTaken("No free MAC address was found.")


def addresses(
    template: str | None, vm_name: str, vm_id: int, networks: Sequence[int], known: Collection[str]
) -> list[str]:
    """One for each network, in their order. `known` are all that there are in the cluster."""
    taken = {each.lower() for each in known}
    found: list[str] = []
    source = random.SystemRandom()
    for net_id, vni in enumerate(networks):
        if template is None:
            address = at_random(taken, source)
        else:
            address = from_template(template, vm_id, net_id)
            if address in taken:
                raise MacTaken(
                    f"The MAC template {template!r} makes {address} for the network {vni} of {vm_name}, which another "
                    "interface has: give the VM another number, or its network template another MAC template."
                )
        taken.add(address)
        found.append(address)
    return found
