"""The door to guests that ask who they are: the metadata API, as EC2 and NoCloud, at the address that clouds use.

The primary holds the address and answers there. A guest learns about its own VM only: see callers.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

from pvcd import Context
from pvcd_plugins.provisioner.records import GuestMetadata
from pvcd_plugins.vm.service import VM

ADDRESS = "169.254.169.254"
PORT = 80
SERIAL = f"ds=nocloud;dsmode=net;s=http://{ADDRESS}/nocloud/"
"""The serial number in a VM's SMBIOS, which makes cloud-init ask here, as NoCloud, in any image. Without `dsmode` some
versions of it ask and then do nothing."""


def ssh_keys_of(arguments: Mapping[str, str]) -> tuple[str, ...]:
    """Return the keys in the argument `ssh_key` of a profile or a request, one per line."""
    return tuple(filter(None, map(str.strip, arguments.get("ssh_key", "").splitlines())))


Describe = Callable[[Context, VM], Awaitable[GuestMetadata]]
"""Returns the metadata of a guest; may raise `PvcdError`."""


@dataclass(frozen=True)
class Arrival:
    """Where a connection comes from, according to the kernel; the client has no say in it."""

    interface: str
    """The link that it came through."""
    address: IPv4Address
    mac: str
    """Of the neighbor on that link that has the address."""


class Metadata(Protocol):
    """The address and the server on it."""

    async def hold(self, seconds: float) -> None:
        """Hold the address for some seconds, and answer there. It expires unless it is held again."""

    async def close(self) -> None:
        """Stop answering, and give up the address."""
