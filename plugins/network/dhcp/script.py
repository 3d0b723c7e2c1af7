"""What is run for each change of a lease, and passes it on to the door: script.py VNI ACTION WHO ADDRESS [NAME].

It is copied beside the door's socket and run with the standard library only. It tells one line of fields; the answer
is `ok`, or what went wrong.
"""

from __future__ import annotations

import os
import socket
import sys

SOCKET = "leases"
OK = "ok"
LIMIT = 8.0
"""Seconds that the door has for its answer."""
FROM_ENVIRONMENT = ("DNSMASQ_LEASE_EXPIRES", "DNSMASQ_CLIENT_ID", "DNSMASQ_IAID", "DNSMASQ_MAC")


def main() -> int:
    """Pass one call of dnsmasq on; the exit status."""
    vni, *arguments = (sys.argv[1:6] + [""] * 5)[:5]
    fields = [vni, *arguments, *(os.environ.get(name, "") for name in FROM_ENVIRONMENT)]
    try:
        os.chdir(os.path.dirname(sys.argv[0]))  # since the path of a socket may not be long
        answer = tell("\0".join(fields).encode(errors="replace") + b"\n")
    except OSError as error:
        answer = f"the leases of network {vni} are out of reach: {error}"
    if answer != OK:
        print(answer or "nothing was answered", file=sys.stderr)
        return 1
    return 0


def tell(line: bytes) -> str:
    """What the door answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(LIMIT)
        connection.connect(SOCKET)
        connection.sendall(line)
        return connection.recv(4096).decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
