"""TLS: the API server's certificate and what clients must support, and a new certificate for a running server."""

from __future__ import annotations

import ssl

from pvcd.settings import SettingsError, Ssl

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2; those of 1.3 are all good."""


def server_tls(settings: Ssl) -> ssl.SSLContext | None:
    """The server's TLS, if the settings enable it; raises `SettingsError` for files that do not serve."""
    if not settings.enabled:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    _load(context, settings)
    return context


def renew(context: ssl.SSLContext, settings: Ssl) -> None:
    """Let new connections see the files as they are now; those that stand go on.

    Raises `SettingsError` for files that do not serve, and the certificate stays as it was.
    """
    _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings)  # a failure half-way would spoil the one in use
    _load(context, settings)


def _no_passphrase() -> str:
    """Without this, OpenSSL would ask at the terminal and wait."""
    return ""


def _load(context: ssl.SSLContext, settings: Ssl) -> None:
    try:
        context.load_cert_chain(settings.cert_file, settings.key_file, password=_no_passphrase)
    except OSError as error:  # ssl.SSLError is one
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        because = f" ({reason.lower().replace('_', ' ')})" if reason else ""
        files = f"{settings.cert_file} and {settings.key_file}"
        raise SettingsError(
            [f"pvc.api.ssl: {files} are no certificate with its key, both as PEM and without a passphrase{because}."]
        ) from None
