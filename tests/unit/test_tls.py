"""The server's TLS: what it takes of clients, and new certificates for a running server."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path
from typing import Any

import pytest

from pvcd.http.tls import renew, server_tls
from pvcd.settings import SettingsError, Ssl

from ..certificates import write_certificate


def settings(folder: Path, name: str = "first", **options: Any) -> Ssl:
    """Settings with a new certificate in the same two files."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    write_certificate(cert, key, name, **options)
    return Ssl(enabled=True, cert_file=str(cert), key_file=str(key))


def client(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "cert.pem")
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def only(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = version
    return context


def handshake(server: ssl.SSLContext | None, client: ssl.SSLContext) -> ssl.SSLObject:
    """The client's end of a connection in memory."""
    assert server
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert ends[0].cipher(), "the handshake did not end"
    return ends[0]


def name(connection: ssl.SSLObject) -> str:
    certificate: Any = connection.getpeercert()
    (((_, common_name),),) = certificate["subject"]
    return str(common_name)


def test_a_server_without_tls_has_none() -> None:
    assert server_tls(Ssl(enabled=False)) is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_modern_clients_are_served(tmp_path: Path, version: ssl.TLSVersion) -> None:
    server = server_tls(settings(tmp_path))
    connection = handshake(server, only(client(tmp_path), version))
    assert connection.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
    assert name(connection) == "first"


def old(context: ssl.SSLContext) -> ssl.SSLContext:
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        return only(context, ssl.TLSVersion.TLSv1_1)


def test_tls_1_1_is_refused(tmp_path: Path) -> None:
    server = server_tls(settings(tmp_path))
    with pytest.raises(ssl.SSLError, match=r"(?i)unsupported.protocol|alert.protocol"):
        handshake(server, old(client(tmp_path)))


def test_the_client_of_that_test_can_speak_tls_1_1(tmp_path: Path) -> None:
    permissive = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    permissive.set_ciphers("ALL:@SECLEVEL=0")
    renew(permissive, settings(tmp_path))
    assert handshake(old(permissive), old(client(tmp_path))).version() == "TLSv1.1"


@pytest.mark.parametrize("ciphers", ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA"])
def test_ciphers_without_forward_secrecy_or_authentication_are_refused(tmp_path: Path, ciphers: str) -> None:
    server, context = server_tls(settings(tmp_path)), only(client(tmp_path), ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        handshake(server, context)


def test_a_renewed_certificate_is_shown_to_new_connections_and_existing_ones_continue(tmp_path: Path) -> None:
    server = server_tls(settings(tmp_path))
    assert server
    before = handshake(server, client(tmp_path))
    renew(server, settings(tmp_path, "second"))
    assert name(handshake(server, client(tmp_path))) == "second"
    assert name(before) == "first"
    assert before.write(b"still here") == len(b"still here")


def spoil_certificate(folder: Path) -> None:
    (folder / "cert.pem").write_text("no certificate")


def spoil_key(folder: Path) -> None:
    (folder / "key.pem").write_text("no key")


def remove_key(folder: Path) -> None:
    (folder / "key.pem").unlink()


def mix_up(folder: Path) -> None:
    write_certificate(folder / "cert.pem", folder / "other-key.pem", "second")


def lock_key(folder: Path) -> None:
    write_certificate(folder / "cert.pem", folder / "key.pem", "second", passphrase="hunter2")


@pytest.mark.parametrize("spoil", [spoil_certificate, spoil_key, remove_key, mix_up, lock_key])
def test_an_unusable_certificate_leaves_the_old_one_in_use(tmp_path: Path, spoil: Any) -> None:
    used = settings(tmp_path)
    server, trusting = server_tls(used), client(tmp_path)
    assert server
    spoil(tmp_path)
    with pytest.raises(
        SettingsError, match=r"^pvc\.api\.ssl: .*cert\.pem and .*key\.pem must be a certificate and its key.*\.$"
    ):
        renew(server, used)
    assert name(handshake(server, trusting)) == "first"


@pytest.mark.parametrize("spoil", [spoil_certificate, spoil_key, mix_up, lock_key])
def test_an_unusable_certificate_is_reported_at_the_start(tmp_path: Path, spoil: Any) -> None:
    used = settings(tmp_path)
    spoil(tmp_path)
    with pytest.raises(SettingsError) as error:
        server_tls(used)
    assert len(error.value.sentences) == 1
