"""TLS of the API server: its certificate, also a new one while it runs, and what clients must support."""

from __future__ import annotations

import ssl

from pvcd.settings import SettingsError, Ssl

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2; all ciphers of 1.3 are acceptable."""


def server_tls(settings: Ssl) -> ssl.SSLContext | None:
    """Return the server's TLS, or None while it is disabled. Raises `SettingsError` for unusable files."""
    if not settings.enabled:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    _load(context, settings)
    return context


def renew(context: ssl.SSLContext, settings: Ssl) -> None:
    """Read the files again for new connections; existing ones continue.

    Raises `SettingsError` for unusable files; then the certificate stays as it was.
    """
    _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings)  # a failure half-way would break the one in use
    _load(context, settings)


def _no_passphrase() -> str:
    """Keep OpenSSL from asking at the terminal."""
    return ""


def _load(context: ssl.SSLContext, settings: Ssl) -> None:
    try:
        context.load_cert_chain(settings.cert_file, settings.key_file, password=_no_passphrase)
    except OSError as error:  # ssl.SSLError is one
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        detail = f" ({reason.lower().replace('_', ' ')})" if reason else ""
        files = f"{settings.cert_file} and {settings.key_file}"
        raise SettingsError(
            [f"pvc.api.ssl: {files} must be a certificate and its key, as PEM without a passphrase{detail}."]
        ) from None
