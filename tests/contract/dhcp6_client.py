"""A one-shot DHCPv6 client: it configures the link eth0 and prints the options of the reply as JSON.

Arguments: the MAC that its DUID is made of, and `lease` or `information`.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys

SOLICIT, REQUEST, REPLY, INFORMATION = 1, 3, 7, 11
CLIENT, SERVER, IA_NA, IA_ADDRESS, WANTED, DNS, DOMAINS, SNTP = 1, 2, 3, 5, 6, 23, 24, 31


def option(code: int, data: bytes) -> bytes:
    return struct.pack("!HH", code, len(data)) + data


def options(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        code, length = struct.unpack("!HH", data[:4])
        found[code], data = data[4 : 4 + length], data[4 + length :]
    return found


def exchange(link: socket.socket, kind: int, body: bytes) -> dict[int, bytes]:
    for _ in range(10):
        message = bytes([kind]) + os.urandom(3)
        link.sendto(message + body, ("ff02::1:2", 547, 0, socket.if_nametoindex("eth0")))
        try:
            while True:
                answer = link.recv(4096)
                if answer[1:4] == message[1:4]:
                    return options(answer[4:])
        except TimeoutError:
            continue
    sys.exit("no answer")


def main() -> None:
    mac, what = bytes.fromhex(sys.argv[1].replace(":", "")), sys.argv[2]
    link = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    link.settimeout(1)
    link.bind(("::", 546))
    me = (
        option(CLIENT, b"\0\3\0\1" + mac) + option(WANTED, struct.pack("!HHH", DNS, DOMAINS, SNTP)) + option(8, b"\0\0")
    )
    told = {}
    if what == "information":
        answer = exchange(link, INFORMATION, me)
    else:
        mine = option(IA_NA, mac[2:] + bytes(8))
        offer = exchange(link, SOLICIT, me + mine)
        answer = exchange(link, REQUEST, me + option(SERVER, offer[SERVER]) + option(IA_NA, offer[IA_NA]))
        leased = options(answer[IA_NA][12:])[IA_ADDRESS]
        told = {
            "address": socket.inet_ntop(socket.AF_INET6, leased[:16]),
            "valid": struct.unpack("!I", leased[20:24])[0],
        }
    dns = socket.inet_ntop(socket.AF_INET6, answer[DNS])
    print(json.dumps(told | {"server": answer[SERVER].hex(":"), "dns": dns, "domains": repr(answer.get(DOMAINS))}))


main()
