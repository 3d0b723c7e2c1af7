"""Regular expressions that are bombs, as a `limit`."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from tests.hostile.conftest import HANG, latencies
from tests.integration.cluster import Cluster, Guests
from tests.kept import Kept
from tests.servers import within

BOMBS = (
    "(a+)+$",
    "(a+)+b",
    "(a|a)*b",
    "(a|aa)+$",
    "(.*)*b",
    "(.*.*.*.*.*.*.*.*.*.*)b",
    "([a-z]+)*b",
    "(a?){64}a{64}",
    "a{1000}",
    "a{1,1000}{1,1000}",
    "((a{50}){50}){50}",
    "(x+x+)+y",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "(?=a)a",
    "(?<=a)a",
    "(a)\\1",
    "(?P<a>a)(?P=a)",
    "(?(1)a|b)",
    "(?R)",
    "(" * 128,
    "(" * 100 + ")" * 100,
    "[" * 200,
    "[a-",
    "*",
    "a**",
    "a{2,1}",
    "\\",
    "\\p{Greek}" * 20,
    "[^\\x{0}-\\x{10FFFF}]",
    "(?i)" + "a" * 250,
    "." * 256,
    "a" * 257,
    "a" * 1_000_000,
)


@pytest.fixture(scope="module")
def kept(sandbox_cluster: Cluster, guests: Guests) -> Iterator[Kept]:
    """VMs whose names are what such expressions take long over."""
    cluster = sandbox_cluster

    def make() -> None:
        for ending in ("", "-", "B"):
            name = "a" * (128 - len(ending)) + ending
            cluster.post("/vm", xml=guests.sector("x").replace("<name>x<", f"<name>{name}<"))

    kept = Kept(make, cluster.remove_vms, lambda: [vm["xml"] for vm in cluster.get("/vm")])
    yield kept
    kept.remove()


@pytest.fixture
def long_names(watched: Cluster, kept: Kept) -> Iterator[Cluster]:
    """The sandbox with these VMs, which are unchanged in the end."""
    with kept.unchanged():
        yield watched


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb[:30])
def test_the_search_time_of_a_malicious_limit_is_bounded(long_names: Cluster, bomb: str) -> None:
    for path in ("/vm", "/node"):
        with within(HANG):
            status, body = long_names.ask("GET", path, limit=bomb)
        assert status == 200 or (status, body["code"]) == (510, "invalid-value")
        assert status == 200 or len(body["message"]) < 600


@pytest.mark.alone
def test_others_are_answered_during_such_searches(long_names: Cluster) -> None:
    end, sent = threading.Event(), []

    def attack(bomb: str) -> None:
        while not end.is_set():
            sent.append(long_names.ask("GET", "/vm", limit=bomb)[0])

    attackers = [threading.Thread(target=attack, args=(bomb,)) for bomb in ("(a?){64}a{64}", "((a{50}){50}){50}", "[")]
    for attacker in attackers:
        attacker.start()
    try:
        long_names.post("/vm", xml=definition_of_web1(long_names))
        waited = sorted(itertools.islice(latencies(long_names, "/vm/web1"), 30))
    finally:
        end.set()
        for attacker in attackers:
            attacker.join()
        long_names.ask("DELETE", "/vm/web1")
    assert set(sent) <= {200, 510} and len(sent) > 30
    assert waited[len(waited) // 2] < 1 and waited[-1] < HANG, waited


def definition_of_web1(api: Cluster) -> str:
    xml: str = api.get("/vm")[0]["xml"]
    name, uuid = (api.get("/vm")[0][key] for key in ("name", "uuid"))
    return xml.replace(name, "web1").replace(uuid, "00000000-0000-4000-8000-000000000001")
