"""Hosts in network namespaces. Each lives as long as one process, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from itertools import count
from typing import Any, Self

LIMIT = 60.0
_numbers = count()

# What a guest does with a lease.
_UDHCPC = """#!/bin/busybox sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
/bin/busybox ip address replace $ip/$mask dev $interface
[ -z "$router" ] || /bin/busybox ip route replace default via $router dev $interface
"""


class Host:
    """A network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        command = ("unshare", "--net", "--", "sh", "-c", "echo; exec cat")
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout
        self._process.stdout.readline()  # it is inside
        self.run("ip", "link", "set", "lo", "up")

    @property
    def inside(self) -> tuple[str, ...]:
        """Return the words that, put before a command, run it on the host."""
        return ("nsenter", f"--net=/proc/{self._process.pid}/ns/net", "--")

    def run(self, *command: str, fine: bool = True) -> str:
        """Run a program there; its output."""
        done = subprocess.run((*self.inside, *command), check=False, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 0 or not fine, f"{self.name}: {' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def does(self, *command: str) -> bool:
        """Return whether a program succeeds there."""
        done = subprocess.run((*self.inside, *command), check=False, capture_output=True, timeout=LIMIT)
        return done.returncode == 0

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a program on the host; the caller has to end it."""
        return subprocess.Popen((*self.inside, *command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def links(self) -> dict[str, Any]:
        """Return its links by name."""
        return {link["ifname"]: link for link in json.loads(self.run("ip", "-j", "-d", "address"))}

    def addresses(self, link: str) -> list[str]:
        """Return the addresses of a link, without link-local ones."""
        found = self.links().get(link, {}).get("addr_info", [])
        return [each["local"] for each in found if each["scope"] == "global"]

    def plug(self, link: str, other: Host | None, end: str, bridge: str) -> None:
        """A cable from `link` here to `end` at a bridge of another host, or of this process."""
        there = () if other is None else other.inside
        peer = () if other is None else ("netns", str(other._process.pid))
        self.run("ip", "link", "add", link, "type", "veth", "peer", "name", end, *(peer or ("netns", str(os.getpid()))))
        for words in (("set", end, "master", bridge, "up"),):
            subprocess.run((*there, "ip", "link", *words), check=True, capture_output=True, timeout=LIMIT)
        self.run("ip", "link", "set", link, "up")

    def pings(self, address: str) -> bool:
        """Return whether an address answers within a second."""
        return self.does("ping", "-n", "-c", "1", "-W", "1", address)

    def close(self) -> None:
        """End it, with all of its links."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(LIMIT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Guest(Host):
    """A stand-in for a VM: one link, `eth0`, at a bridge of a node."""

    def __init__(self, name: str, node: Host, bridge: str, mac: str) -> None:
        super().__init__(name)
        self.mac = mac
        self.plug("eth0", node, f"tap{next(_numbers)}", bridge)
        self.run("ip", "link", "set", "eth0", "address", mac)

    def ask_for_address(self, script: str) -> str:
        """Take a lease, or the same once more; the address."""
        self.run("ip", "address", "flush", "dev", "eth0", "scope", "global")
        words = ("-i", "eth0", "-n", "-q", "-f", "-t", "10", "-T", "1", "-A", "1", "-s", script)
        self.run("busybox", "udhcpc", *words, "-x", f"hostname:{self.name}")
        (address,) = self.addresses("eth0")
        return address

    def knows(self, name: str, server: str, kind: str = "A") -> list[str]:
        """Return the answer of a name server."""
        return self.run("dig", "+short", "+tries=1", "+time=2", f"@{server}", name, kind, fine=False).split()


@contextlib.contextmanager
def hosts(*names: str) -> Iterator[list[Host]]:
    """Run hosts during the block."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Host(name)) for name in names]


def lease_script(path: Any) -> str:
    """A program that gives a guest the address of its lease."""
    path.write_text(_UDHCPC)
    path.chmod(0o755)
    return str(path)
