"""Authentication: the configured tokens, and what the routes that begin and end sessions know of who asks."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pvcd.declare.context import ComponentKey


def derive_key(secret_key: str, purpose: str) -> bytes:
    """32 bytes that only those can tell who know the secret key, others for each purpose."""
    hkdf = HKDF(hashes.SHA256(), length=32, salt=None, info=f"pvcd {purpose}".encode())
    return hkdf.derive(_bytes(secret_key))


class Tokens:
    """The configured tokens, by their fingerprints, of which only those can make any who know the secret key."""

    def __init__(self, secret_key: str, tokens: Iterable[str] | Mapping[str, str]) -> None:
        self._key = derive_key(secret_key, "token")
        self.replace(tokens)

    def replace(self, tokens: Iterable[str] | Mapping[str, str]) -> None:
        """From now on these are the configured ones, perhaps with a description each; an empty one is none."""
        described = tokens if isinstance(tokens, Mapping) else dict.fromkeys(tokens, "")
        self._descriptions = {self._fingerprint(token): about for token, about in described.items() if token}
        self._fingerprints = tuple(self._descriptions)

    def describe(self, fingerprint: str) -> str | None:
        """Whose token it is, as the settings have it; None where they say nothing."""
        return self._descriptions.get(fingerprint) or None

    def match(self, token: str) -> str | None:
        """The fingerprint of a token, if it is a configured one; takes as long whichever it is."""
        fingerprint = self._fingerprint(token)
        return fingerprint if self.include(fingerprint) else None

    def include(self, fingerprint: str) -> bool:
        """Whether a configured token has this fingerprint."""
        matches = [hmac.compare_digest(fingerprint, each) for each in self._fingerprints]
        return any(matches)

    def _fingerprint(self, token: str) -> str:
        return hmac.new(self._key, _bytes(token), hashlib.sha256).hexdigest()


def _bytes(text: str) -> bytes:
    """A text as bytes, also if it came in a header or file and is no valid text."""
    return text.encode(errors="surrogatepass")


class Visitor(Protocol):
    """Who sent the request that is being answered."""

    async def log_in(self, token: str) -> None:
        """Begin a session, if the token is a configured one."""

    async def log_out(self) -> None:
        """End the session, if there is one."""


VISITOR: ComponentKey[Visitor] = ComponentKey("visitor")
"""In the context of public routes, while authentication is enabled."""
