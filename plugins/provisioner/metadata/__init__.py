"""The metadata API: how a guest learns who it is, by the address that clouds have for that, as EC2 and as NoCloud.

The primary has the address and answers there. A guest is told of its own VM alone: see callers.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

from pvcd import Context
from pvcd_plugins.vm.service import VM

ADDRESS = "169.254.169.254"
PORT = 80
SERIAL = f"ds=nocloud;dsmode=net;s=http://{ADDRESS}/nocloud/"
"""The serial number in a VM's SMBIOS: by it cloud-init asks here in any image, and as NoCloud. Without `dsmode` some of
its versions ask, and then do nothing."""


@dataclass(frozen=True)
class Told:
    """What a VM is told besides what its record says."""

    userdata: str = ""
    ssh_keys: tuple[str, ...] = ()
    """Each as it stands in a line of `authorized_keys`."""


def ssh_keys_of(arguments: Mapping[str, str]) -> tuple[str, ...]:
    """The keys in the argument `ssh_key` of a profile or of a request, one in each line."""
    return tuple(filter(None, map(str.strip, arguments.get("ssh_key", "").splitlines())))


Describe = Callable[[Context, VM], Awaitable[Told]]
"""Says what a VM is told; may raise `PvcdError`."""


@dataclass(frozen=True)
class Arrival:
    """Where a connection comes from, as the kernel knows it: nothing of it is said by the client."""

    interface: str
    """Through which it came."""
    address: IPv4Address
    mac: str
    """Of the neighbour there that has the address."""


class Metadata(Protocol):
    """The address and the server on it."""

    async def hold(self, seconds: float) -> None:
        """Have the address for so long, and answer there. It vanishes by itself unless it is held anew."""

    async def close(self) -> None:
        """Answer no more, and give the address up."""
