"""The tokens of IMDSv2. They are signed and not stored, so that no client can exhaust memory with them."""

from __future__ import annotations

import hmac
import secrets

from pvcd import Clock

MAX_SECONDS = 21600
"""Of validity, as on EC2."""


class Tokens:
    """Give and check tokens, each valid for one caller and some time. The next primary does not accept them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)

    def give(self, identity: str, seconds: int) -> str:
        """Return a token for a caller."""
        return self._token(identity, int(self._clock.monotonic()) + seconds)

    def is_valid(self, token: str, identity: str) -> bool:
        """Return whether this token was given to this caller and has not expired."""
        end, _, _ = token.partition("-")
        if not (end.isascii() and end.isdigit()) or len(end) > 20 or int(end) <= self._clock.monotonic():
            return False
        return hmac.compare_digest(self._token(identity, int(end)).encode(), token.encode(errors="replace"))

    def _token(self, identity: str, end: int) -> str:
        signature = hmac.digest(self._key, f"{end} {identity}".encode(), "sha256")
        return f"{end}-{signature.hex()}"
