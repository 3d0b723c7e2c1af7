"""The tokens of IMDSv2. They are signed, not kept: no client can ask for too many of them."""

from __future__ import annotations

import hmac
import secrets

from pvcd import Clock

LONGEST = 21600
"""Seconds that one may be asked for."""


class Tokens:
    """Gives tokens that are good for one caller and some time; the next primary does not take them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)

    def give(self, identity: str, seconds: int) -> str:
        """A token for a caller."""
        return self._token(identity, int(self._clock.monotonic()) + seconds)

    def good(self, token: str, identity: str) -> bool:
        """Whether a caller was given this token, and its time is not over."""
        end, _, _ = token.partition("-")
        if not (end.isascii() and end.isdigit()) or len(end) > 20 or int(end) <= self._clock.monotonic():
            return False
        return hmac.compare_digest(self._token(identity, int(end)).encode(), token.encode(errors="replace"))

    def _token(self, identity: str, end: int) -> str:
        signature = hmac.digest(self._key, f"{end} {identity}".encode(), "sha256")
        return f"{end}-{signature.hex()}"
