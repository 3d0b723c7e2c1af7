"""Authentication: the configured tokens, and the visitor who logs in and out."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pvcd.declare.context import ComponentKey


def derive_key(secret_key: str, purpose: str) -> bytes:
    """Derive 32 bytes from the secret key, different ones for each purpose."""
    hkdf = HKDF(hashes.SHA256(), length=32, salt=None, info=f"pvcd {purpose}".encode())
    return hkdf.derive(_bytes(secret_key))


class Tokens:
    """The configured tokens by their fingerprints, which are keyed hashes: useless without the secret key."""

    def __init__(self, secret_key: str, tokens: Iterable[str] | Mapping[str, str]) -> None:
        self._key = derive_key(secret_key, "token")
        self.replace(tokens)

    def replace(self, tokens: Iterable[str] | Mapping[str, str]) -> None:
        """Replace all tokens, perhaps with a description each; an empty token is ignored."""
        described = tokens if isinstance(tokens, Mapping) else dict.fromkeys(tokens, "")
        self._descriptions = {self._fingerprint(token): about for token, about in described.items() if token}
        self._fingerprints = tuple(self._descriptions)

    def describe(self, fingerprint: str) -> str | None:
        """Return the description of a token in the settings, or None."""
        return self._descriptions.get(fingerprint) or None

    def match(self, token: str) -> str | None:
        """Return the fingerprint of a configured token, or None, in a time that does not depend on the token."""
        fingerprint = self._fingerprint(token)
        return fingerprint if self.include(fingerprint) else None

    def include(self, fingerprint: str) -> bool:
        """Return whether a configured token has this fingerprint."""
        matches = [hmac.compare_digest(fingerprint, each) for each in self._fingerprints]
        return any(matches)

    def _fingerprint(self, token: str) -> str:
        return hmac.new(self._key, _bytes(token), hashlib.sha256).hexdigest()


def _bytes(text: str) -> bytes:
    """Encode a text, even one from a header or file that is not valid Unicode."""
    return text.encode(errors="surrogatepass")


class Visitor(Protocol):
    """The sender of the present request."""

    async def log_in(self, token: str) -> None:
        """Begin a login session. Raises `Unauthorized` for a token that is not configured."""

    async def log_out(self) -> None:
        """End the login session, if there is one."""


VISITOR: ComponentKey[Visitor] = ComponentKey("visitor")
"""Part of the context of public routes while authentication is enabled."""
