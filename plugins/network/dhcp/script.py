"""The program that dnsmasq runs for each change of a lease: script.py VNI ACTION WHO ADDRESS [NAME].

It is copied beside the door's socket and needs only the standard library. It sends one line of fields to the socket;
the answer is `ok` or an error.
"""

from __future__ import annotations

import os
import socket
import sys

SOCKET = "leases"
OK = "ok"
ANSWER_SECONDS = 8.0
"""For the answer of the door."""
FROM_ENVIRONMENT = ("DNSMASQ_LEASE_EXPIRES", "DNSMASQ_CLIENT_ID", "DNSMASQ_IAID", "DNSMASQ_MAC")


def main() -> int:
    """Pass on one call of dnsmasq. Returns the exit status."""
    vni, *arguments = (sys.argv[1:6] + [""] * 5)[:5]
    fields = [vni, *arguments, *(os.environ.get(name, "") for name in FROM_ENVIRONMENT)]
    try:
        os.chdir(os.path.dirname(sys.argv[0]))  # because the path of a socket must be short
        answer = send("\0".join(fields).encode(errors="replace") + b"\n")
    except OSError as error:
        answer = f"cannot reach the lease store of network {vni}: {error}"
    if answer != OK:
        print(answer or "no answer", file=sys.stderr)
        return 1
    return 0


def send(line: bytes) -> str:
    """Send a line to the door. Returns its answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(SOCKET)
        connection.sendall(line)
        return connection.recv(4096).decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
