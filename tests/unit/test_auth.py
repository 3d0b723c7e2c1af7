"""Tokens, the throttle and the records of sessions."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from pvcd.clock import VirtualClock, settle
from pvcd.declare.handlers import Requeue
from pvcd.errors import TooManyAttempts
from pvcd.http import logins, throttle
from pvcd.http.auth import Tokens, derive_key
from pvcd.http.logins import Login, begin, end, find, look_up, sweep
from pvcd.http.throttle import Throttle
from pvcd.settings import Authentication
from pvcd.store.memory import MemoryTree

from .conftest import CORE, Bench

KEY = "k" * 32


# Tokens


def test_each_purpose_and_secret_key_has_a_key_of_its_own() -> None:
    keys = {derive_key(secret, purpose) for secret in (KEY, KEY + "k", "") for purpose in ("session", "token")}
    assert len(keys) == 6
    assert {len(key) for key in keys} == {32}
    assert derive_key(KEY, "session") == derive_key(KEY, "session")


def test_a_token_matches_as_a_whole_only() -> None:
    tokens = Tokens(KEY, ["one", "t\u00fcwo"])
    assert tokens.match("one")
    assert tokens.match("t\u00fcwo")
    assert tokens.match("one") != tokens.match("t\u00fcwo")
    for wrong in ("", "o", "on", "onee", "One", "one ", " one", "one\0", "onet\u00fcwo", "\udcff", "\ud800"):
        assert tokens.match(wrong) is None


def test_an_empty_token_never_matches() -> None:
    assert Tokens(KEY, ["", "one"]).match("") is None
    assert Tokens(KEY, []).match("") is None


def test_a_token_is_compared_with_all_even_after_a_match(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def compare(one: str, other: str) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    tokens = Tokens(KEY, ["one", "two", "three"])
    for token in ("one", "two", "three", "wrong", ""):
        tokens.match(token)
        assert len(set(compared)) == len(compared) == 3
        compared.clear()


def test_a_fingerprint_needs_the_secret_key_and_does_not_contain_the_token() -> None:
    (one, other) = (Tokens(key, ["one"]).match("one") for key in (KEY, "l" * 32))
    assert one
    assert other
    assert one != other
    assert "one" not in one + other + repr(vars(Tokens(KEY, ["one"])))


def test_tokens_are_replaced_at_once() -> None:
    tokens = Tokens(KEY, ["one"])
    old = tokens.match("one")
    assert old
    tokens.replace(["two"])
    assert (tokens.match("one"), tokens.include(old)) == (None, False)
    assert tokens.match("two")


# The throttle


class Door:
    """A throttle on a clock that stands still, and the answers to tokens."""

    def __init__(self) -> None:
        self.clock, self.tokens = VirtualClock(), Tokens(KEY, ["right", "other"])
        self.throttle = Throttle(self.clock, self.tokens)
        self.answered: list[tuple[float, bool]] = []

    def try_(self, token: str, address: str | None = "10.0.0.1") -> asyncio.Task[None]:
        """Send a token; the time of its answer and whether it was right are noted."""

        async def answer() -> None:
            right = await self.throttle.match(address, token) is not None
            self.answered.append((round(self.clock.monotonic() - self.begun, 3), right))

        self.begun = self.clock.monotonic()
        return asyncio.ensure_future(answer())

    async def waits(self, token: str, address: str | None = "10.0.0.1") -> float:
        """Return for how long a token waits for its answer, if no other one does."""
        task = self.try_(token, address)
        await settle()
        for _ in range(100):
            if task.done():
                break
            await self.clock.advance(0.1)
        await task
        return self.answered.pop()[0]


DELAYS = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0]


@pytest.fixture
def door() -> Door:
    return Door()


async def test_each_address_has_its_own_limited_delay(door: Door) -> None:
    assert [await door.waits("wrong") for _ in range(8)] == DELAYS
    assert await door.waits("wrong", "10.0.0.2") == 0.1
    assert await door.waits("wrong", None) == 0.1


async def test_very_many_failures_have_the_longest_delay(door: Door) -> None:
    await door.waits("wrong")
    door.throttle._lines["10.0.0.1"].wrong = 10**6
    assert await door.waits("wrong") == 4.0


async def test_a_network_of_ipv6_is_one_source(door: Door) -> None:
    assert await door.waits("wrong", "2001:db8:1:2::1") == 0.1
    assert await door.waits("wrong", "2001:db8:1:2:ffff::9") == 0.2
    assert await door.waits("wrong", "2001:db8:1:3::1") == 0.1
    assert await door.waits("wrong", "fe80::1%eth0") == 0.1
    assert await door.waits("wrong", "::ffff:10.0.0.1") == 0.1
    assert await door.waits("wrong", "10.0.0.1") == 0.2


async def test_an_address_is_forgotten_10_minutes_after_its_last_failure(door: Door) -> None:
    assert await door.waits("wrong") == 0.1
    await door.clock.advance(599)
    assert await door.waits("wrong") == 0.2
    await door.clock.advance(599)
    assert await door.waits("wrong") == 0.4
    await door.clock.advance(601)
    assert await door.waits("wrong") == 0.1
    assert len(door.throttle._lines) == 1


async def test_the_number_of_remembered_addresses_is_limited(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MAX_SOURCES", 3)
    monkeypatch.setattr(throttle, "MAX_KNOWN", 2)
    for number in (1, 2, 3, 1, 4):
        await door.waits("wrong", f"10.0.0.{number}")
        await door.waits("right", f"10.0.1.{number}")
    assert list(door.throttle._lines) == ["10.0.0.3", "10.0.0.1", "10.0.0.4"]
    assert [source for source, _ in door.throttle._known] == ["10.0.1.1", "10.0.1.4"]


async def test_parallel_guesses_are_as_slow_as_one_after_the_other(door: Door) -> None:
    tasks = [door.try_("wrong") for _ in DELAYS]
    await settle()
    await door.clock.advance(sum(DELAYS))
    assert all(task.done() for task in tasks)
    assert door.answered == [(round(sum(DELAYS[: place + 1]), 3), False) for place in range(len(DELAYS))]


async def test_a_right_guess_does_not_stand_out_among_parallel_ones(door: Door) -> None:
    guesses = [door.try_(token) for token in ("wrong", "wrong", "right", "wrong")]
    await settle()
    assert door.answered == []
    await door.clock.advance(10)
    await asyncio.gather(*guesses)
    assert door.answered == [(0.1, False), (0.3, False), (0.3, True), (0.7, False)]


async def test_a_right_token_that_is_known_from_its_address_never_waits(door: Door) -> None:
    await door.waits("right")
    attack = [door.try_("wrong") for _ in range(1 + throttle.MAX_WAITING)]
    await settle()
    door.try_("right")
    unknown = [door.try_("other"), door.try_("right", "10.0.0.2")]
    await settle()
    assert door.answered == [(0.0, True), (0.0, True)]
    with pytest.raises(TooManyAttempts):
        await unknown[0]
    await door.clock.advance(60)
    await asyncio.gather(*attack)


async def test_a_token_that_was_removed_is_wrong_although_it_is_known(door: Door) -> None:
    assert await door.waits("right") == 0.0
    door.tokens.replace(["other"])
    assert await door.waits("right") == 0.1


async def test_more_tokens_than_wait_in_line_are_refused_unseen(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = [door.try_("wrong") for _ in range(1 + throttle.MAX_WAITING)]
    await settle()
    seen: list[str] = []
    match = door.tokens.match
    monkeypatch.setattr(door.tokens, "match", lambda token: (seen.append(token), match(token))[1])
    refused = [door.try_(token) for token in ("wrong", "right") * 50]
    await settle()
    said = {str(task.exception()) for task in refused}
    assert said == {
        "Cannot check the token: 10 others from 10.0.0.1 wait, after wrong ones. Repeat the request in a minute."
    }
    await door.clock.advance(60)
    assert len(await asyncio.gather(*waiting)) == 11
    assert door.throttle._lines["10.0.0.1"].wrong == 11


async def test_who_hangs_up_does_not_move_the_line_on(door: Door) -> None:
    for _ in range(3):
        guess = door.try_("wrong")
        await settle()
        guess.cancel()
        await settle()
    right = door.try_("right")
    await settle()
    assert not right.done()
    await door.clock.advance(0.1)
    assert right.done()
    assert door.throttle._lines["10.0.0.1"].waiting == 0


async def test_guessing_does_not_fill_the_log(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(20):
        await door.waits("wrong")
    counts = [1, 2, 4, 8, 16]
    assert [record.getMessage() for record in caplog.records] == [f"wrong tokens from 10.0.0.1: {n}" for n in counts]


# The records of sessions


FINGERPRINT = "ab" * 32


async def context(bench: Bench, seconds: int = 100) -> Any:
    authentication = Authentication(enabled=False, session_seconds=seconds)
    settings = SimpleNamespace(api=SimpleNamespace(authentication=authentication))
    return bench.context(await bench.store(), settings=settings)


def test_login_sessions_are_records_of_the_core_that_the_primary_sweeps() -> None:
    assert Login in CORE.records
    assert [one.scope for one in CORE.handlers if one.record_type is Login] == ["primary"]


async def test_a_session_is_found_by_its_secret_which_no_record_contains(bench: Bench) -> None:
    here = await context(bench)
    secret = await begin(here, FINGERPRINT)
    login = find(here, secret)
    assert login
    assert login.fingerprint == FINGERPRINT
    assert (login.created, login.expires) == (bench.clock.time(), bench.clock.time() + 100)
    assert secret not in login.path + login.encode().decode()
    assert len(secret) >= 43
    for wrong in ("", secret[:-1], login.id):
        assert find(here, wrong) is None
        assert await look_up(here, wrong) is None


async def test_a_session_ends_everywhere_at_once(bench: Bench) -> None:
    here, there = await context(bench), await context(bench)
    secret = await begin(here, FINGERPRINT)
    await settle()
    await end(there, secret)
    await settle()
    assert find(here, secret) is find(there, secret) is None
    await end(here, secret)


async def test_a_session_is_found_ended_and_replaced_on_a_server_that_has_not_seen_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await context(bench), await context(bench)
    monkeypatch.setattr(MemoryTree, "hear", lambda *_: None)
    one, two, three = [await begin(here, FINGERPRINT) for _ in range(3)]
    assert find(there, one) is None
    assert await look_up(there, one)
    await end(there, two)
    await begin(there, FINGERPRINT, instead_of=three)
    later = await context(bench)
    assert [bool(find(later, secret)) for secret in (one, two, three)] == [True, False, False]


async def test_a_session_that_replaces_another_ends_it_in_the_same_transaction(bench: Bench) -> None:
    here = await context(bench)
    first = await begin(here, FINGERPRINT)
    serial = bench.server.serial
    second = await begin(here, FINGERPRINT, instead_of=first)
    assert bench.server.serial == serial + 1
    assert find(here, first) is None
    assert find(here, second)
    assert find(here, await begin(here, FINGERPRINT, instead_of=first))


async def test_two_logins_that_replace_one_session_get_different_ones(bench: Bench) -> None:
    here, there = await context(bench), await context(bench)
    first = await begin(here, FINGERPRINT)
    await settle()
    both = asyncio.gather(begin(here, FINGERPRINT, first), begin(there, FINGERPRINT, first))
    secrets = await bench.finish(both)
    await settle()
    assert len(set(secrets)) == len(here.store.all(Login)) == 2


async def test_the_oldest_session_ends_if_a_token_has_too_many(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "MAX_PER_TOKEN", 2)
    here = await context(bench)
    other = await begin(here, "cd" * 32)
    secrets = []
    for _ in range(3):
        secrets.append(await begin(here, FINGERPRINT))
        await bench.clock.advance(1)
    assert [bool(find(here, secret)) for secret in [other, *secrets]] == [True, False, True, True]


async def test_an_expired_session_is_not_found_and_then_swept(bench: Bench) -> None:
    here = await context(bench)
    secret = await begin(here, FINGERPRINT)
    (login,) = here.store.all(Login)
    assert await sweep(here, login) == Requeue(100)
    await bench.clock.advance(99)
    assert find(here, secret)
    assert await sweep(here, login) == Requeue(1)
    await bench.clock.advance(1)
    assert find(here, secret) is None
    assert await look_up(here, secret) is None
    assert await sweep(here, login) is None
    assert here.store.all(Login) == []
    assert await sweep(here, login) is None
