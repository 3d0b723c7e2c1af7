"""Tokens, the throttle and the records of sessions."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from pvcd.clock import VirtualClock, settle
from pvcd.declare.handlers import Requeue
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


class Clock(VirtualClock):
    """Remembers for how long somebody wanted to sleep, and does not let it last."""

    slept = 0.0

    async def sleep(self, seconds: float) -> None:
        self.slept = seconds


async def waits(clock: Clock, throttle: Throttle, address: str | None) -> float:
    await throttle.failed(address)
    return clock.slept


async def test_each_address_has_its_own_limited_delay() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    assert [await waits(clock, throttle, "10.0.0.1") for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0]
    assert await waits(clock, throttle, "10.0.0.2") == 0.1
    assert await waits(clock, throttle, None) == 0.1


async def test_very_many_failures_have_the_longest_delay() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    throttle._failures["10.0.0.1"] = (10**6, clock.monotonic())
    assert await waits(clock, throttle, "10.0.0.1") == 4.0


async def test_a_network_of_ipv6_is_one_source() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    assert await waits(clock, throttle, "2001:db8:1:2::1") == 0.1
    assert await waits(clock, throttle, "2001:db8:1:2:ffff::9") == 0.2
    assert await waits(clock, throttle, "2001:db8:1:3::1") == 0.1
    assert await waits(clock, throttle, "fe80::1%eth0") == 0.1
    assert await waits(clock, throttle, "::ffff:10.0.0.1") == 0.1
    assert await waits(clock, throttle, "10.0.0.1") == 0.2


async def test_an_address_is_forgotten_10_minutes_after_its_last_failure() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    await waits(clock, throttle, "10.0.0.1")
    await clock.advance(599)
    assert await waits(clock, throttle, "10.0.0.1") == 0.2
    await clock.advance(599)
    assert await waits(clock, throttle, "10.0.0.1") == 0.4
    await clock.advance(601)
    assert await waits(clock, throttle, "10.0.0.1") == 0.1
    assert len(throttle._failures) == 1


async def test_the_number_of_remembered_addresses_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MAX_SOURCES", 3)
    clock = Clock()
    one = Throttle(clock)
    for number in (1, 2, 3, 1, 4):
        await waits(clock, one, f"10.0.0.{number}")
    assert list(one._failures) == ["10.0.0.3", "10.0.0.1", "10.0.0.4"]


async def test_guessing_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    clock = Clock()
    throttle = Throttle(clock)
    for _ in range(20):
        await waits(clock, throttle, "10.0.0.1")
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
