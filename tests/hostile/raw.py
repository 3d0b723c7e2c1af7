"""Bytes to a server that no decent client would send, and what comes back."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

PATIENCE = 10.0


@dataclass(frozen=True)
class Answer:
    """The data that a server sent before it closed the connection."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def port_of(api: str) -> int:
    """The port in an address such as http://127.0.0.1:7370/api/v1."""
    return int(api.split("/")[2].rpartition(":")[2])


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def head(method: str, path: str, *headers: str, close: bool = True) -> bytes:
    """The first lines of a request."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        *(["Connection: close"] if close else []),
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1", errors="surrogateescape")


def speak(port: int, *data: bytes) -> Answer:
    """Send data in pieces, and read to the end; a server may close before it has read all of it."""
    with connect(port) as connection:
        with suppress(ConnectionError):
            for piece in data:
                connection.sendall(piece)
        return read(connection)


def read(connection: socket.socket) -> Answer:
    """Return all data until the server closes the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    first, _, body = received.partition(b"\r\n\r\n")
    status, *lines = first.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Answer(int(status.split(" ")[1]) if status else 0, headers, body)


def reset(connection: socket.socket) -> None:
    """Hang up without a farewell."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def chunked(pieces: Iterable[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
