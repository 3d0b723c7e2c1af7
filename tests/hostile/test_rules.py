"""Texts that are no rules of a firewall but would like to be more: commands, files, other people's tables, names."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvcd.errors import Failed, Invalid, TimedOut
from pvcd.programs.runner import run
from pvcd_plugins.network.firewall import MAX_RULE_LENGTH, Filter, nft
from pvcd_plugins.network.firewall.nft import NftFirewall
from pvcd_plugins.network.firewall.rules import complaint, judge, scratch
from pvcd_plugins.network.firewall.ruleset import ruleset

COMMANDS = (
    "accept\nflush ruleset",
    "accept\n\nadd table ip evil",
    "accept; flush ruleset",
    "accept;flush ruleset",
    "accept ; add rule inet pvc net201-in drop",
    "accept \\\n ; flush ruleset",
    "accept \\",
    "accept\rflush ruleset",
    "accept\0; flush ruleset",
    "\0accept",
    "accept\x0bflush ruleset",
    "accept\x0cflush ruleset",
    "accept\x1b[2J",
    "accept\x85flush ruleset",
    "accept\u2028flush ruleset",
    "accept\uff1b flush ruleset",
    "accept\u200b",
    "accept # and the rest",
    "# nothing",
    "accept } } flush ruleset",
    "accept; } chain net201-in { drop; } chain x {",
    "accept }; chain net201-in { drop",
    "accept } chain net201-in { drop }",
    "} accept {",
    "accept {",
    "{ accept }",
    "add table ip evil",
    "flush ruleset",
    "delete table inet pvc",
    "list ruleset",
    "table inet pvc { }",
)
FILES = (
    'include "/etc/shadow"',
    'accept; include "/etc/passwd"',
    'accept include "/etc/passwd"',
    'accept\ninclude "/etc/passwd"',
    'jump { include "/etc/passwd"',
    'jump { include "/etc/passwd" }',
    'tcp dport { include "/etc/passwd" } accept',
    "include /etc/passwd",
    'ip saddr "/etc/passwd" accept',
    "$(cat /etc/passwd)",
    "`cat /etc/passwd` accept",
    "accept -f /etc/passwd",
)
VARIABLES = ("accept; define x = 1", "define x = 1", "redefine x = 1", "undefine x", "tcp dport $x accept", "$x")
ELSEWHERE = (
    "jump net201-in",
    "goto inward",
    "jump { accept; drop; }",
    "jump { accept }",
    "tcp dport vmap { 22 : jump net201-in }",
    "tcp dport vmap { 22 : accept }",
    "tcp dport vmap{22:accept}",
    "tcp dport map { 22 : 23 } accept",
    "add @victims { ip saddr } accept",
    "update @victims { ip saddr timeout 1h } accept",
    "delete @victims { ip saddr } accept",
    "ip saddr @victims accept",
    "meter m { ip saddr limit rate 1/second } accept",
    'counter name "x" accept',
    "limit name x accept",
    "quota name x accept",
    "flow add @f accept",
    "index 0 accept",
    "handle 3 accept",
    "position 3 accept",
)
CHANGES = (
    "meta mark set 1 accept",
    "meta priority set 1:2 accept",
    "meta nftrace set 1 accept",
    "ct mark set 1 accept",
    'ct helper set "ftp" accept',
    'ct timeout set "x" accept',
    "ct zone set 3 accept",
    "ip dscp set cs1 accept",
    "ip daddr set 10.0.0.1 accept",
    "ether daddr set 00:00:00:00:00:01 accept",
    "tcp option maxseg size set 500 accept",
    "reset tcp option sack-perm accept",
    "secmark set x accept",
    "notrack accept",
    "queue num 1",
    "queue flags bypass to 1",
    "dnat ip to 10.0.0.1",
    "snat ip to 10.0.0.1",
    "masquerade",
    "redirect to :80",
    "tproxy to :80",
    "tcp dport 22 tproxy to :80 accept",
    "synproxy mss 1460 wscale 7",
    "dup to 10.0.0.1",
    "fwd to lo",
    "quota over 10 mbytes drop",
    "log level emerg drop",
    "log level audit",
    "xt target LOG accept",
    "continue",
    "tcp dport 22 continue",
)
OTHER_MATTERS = (
    'iifname "vmbr201" accept',
    "iif lo accept",
    "iif 1 accept",
    'oifname != "vmbr200" accept',
    'meta oifname "lo" accept',
    "meta iifgroup 1 accept",
    'meta ibrname "vmbr201" accept',
    "meta mark 1 accept",
    "mark 1 accept",
    "meta skuid 0 accept",
    "meta skuid root accept",
    "meta cgroup 1 accept",
    'meta secpath exists time "2020-01-01" accept',
    'meta hour "10:00"-"12:00" accept',
    "meta rtclassid 3 accept",
    "ct mark 1 accept",
    "ct label x accept",
    "ct zone 1 accept",
    'ct helper "ftp" accept',
    "fib saddr type local accept",
    "numgen random mod 10 < 5 accept",
    "jhash ip saddr mod 2 == 1 accept",
    "symhash mod 2 == 1 accept",
    "socket transparent 1 accept",
    "rt classid 3 accept",
    'osf name "Linux" accept',
    "ipsec in reqid 1 accept",
    "@th,0,16 22 accept",
)
NAMES = (
    "ip saddr localhost accept",
    'ip saddr "localhost" accept',
    "ip saddr { 127.0.0.1, localhost } accept",
    "ip saddr != localhost accept",
    "ip saddr 127.0.0.1-localhost accept",
    "ip saddr localhost/8 accept",
    "ip6 saddr ip6-localhost accept",
    "ip6 saddr localhost accept",
    f"ip saddr {socket.gethostname()} accept",
    "ip saddr _gateway accept",
    "ip saddr example.invalid drop",
    "ip saddr www.example.com drop",
    "ip saddr 10.0.0.1.example.com drop",
    "ip saddr ssh drop",
    "tcp dport ssh accept",
    'tcp dport "ssh" accept',
    "tcp dport { 22, http } accept",
    "ip protocol gre accept",
    "meta l4proto ospf accept",
)
MISTAKES = (
    "",
    " \t\n",
    "tcp dport 22",
    "log",
    "counter",
    "tcp dport 22 acept",
    "tcpp dport 22 accept",
    "tcp dport 99999 accept",
    "tcp dport 80-20 accept",
    "tcp dport -1 accept",
    "tcp dport {} accept",
    "ip saddr 10.0.0.0/99 drop",
    "ip saddr 300.1.1.1 drop",
    "ip saddr 010.0.0.1 drop",
    "ip saddr 10.0.00.1 drop",
    "ip saddr ::1 drop",
    "ip saddr 10.0.0.1 ip6 saddr ::1 drop",
    "accept accept",
    "drop counter",
    'accept comment "open',
    'accept comment "a\nb"',
    'accept comment "a\\"; flush ruleset',
    'accept comment "a ; b { } \\n"',
    'accept comment "' + "x" * 200 + '"',
    'accept comment "a" comment "b"',
    'tcp dport 22 accept "',
    *(f'log prefix "{"x" * length}" accept' for length in (128, 140, 160, 900)),
    "ip saddr " + "{" * 200,
    "ip saddr " + "{" * 200 + "}" * 200 + " accept",
    "tcp dport " + "(" * 400 + "22" + ")" * 400,
    "ip saddr { " + ", ".join(f"10.{i // 250}.{i % 250}.1" for i in range(20000)) + " } accept",
    "accept" + " " * MAX_RULE_LENGTH + "accept",
)
HOSTILE = (*COMMANDS, *FILES, *VARIABLES, *ELSEWHERE, *CHANGES, *OTHER_MATTERS, *NAMES, *MISTAKES)

HARMLESS = (
    "tcp dport 22 accept",
    "accept",
    "drop",
    "return",
    "reject",
    "counter drop",
    "counter packets 5 bytes 6 accept",
    "tcp dport { 22, 80-90 } accept",
    "tcp dport != 22 drop",
    "udp sport 1024-65535 accept",
    "th dport 53 accept",
    "meta l4proto { tcp, udp } th dport 53 accept",
    "ip saddr 10.0.0.1 accept",
    "ip saddr { 10.0.0.0/8, 192.168.0.0/16 } tcp dport { 80, 443 } counter accept",
    "ip daddr 10.0.0.1-10.0.0.9 ct state new accept",
    "ip saddr != { 10.0.0.1, 10.0.0.2 } drop",
    "ip saddr . tcp dport { 10.0.0.1 . 22, 10.0.0.2 . 80 } accept",
    "ip saddr & 0.0.0.255 == 1 drop",
    "ip6 saddr 2001:db8::/32 accept",
    "ip6 saddr add::1 accept",
    "ip6 nexthdr icmpv6 accept",
    "ip protocol 47 accept",
    "ip ttl < 3 drop",
    "ip dscp ef accept",
    "ip frag-off & 0x1fff != 0 drop",
    "icmp type echo-request accept",
    "icmpv6 type { nd-neighbor-solicit, echo-request } accept",
    "tcp flags & (syn|ack) == syn accept",
    "tcp flags syn / fin,syn drop",
    "tcp option maxseg size 1-500 drop",
    "exthdr frag exists drop",
    "ether saddr 52:54:00:3c:81:a0 accept",
    "ct state established,related accept",
    "ct state ! invalid accept",
    "ct original ip saddr 10.0.0.1 accept",
    "ct count over 20 drop",
    "meta nfproto ipv6 drop",
    "meta length > 1400 drop",
    "meta pkttype multicast drop",
    "limit rate 10/second burst 5 packets accept",
    "limit rate over 10 mbytes/second drop",
    'limit rate 10/second log prefix "x: " level info drop',
    "tcp dport 22 reject with tcp reset",
    "reject with icmpx type admin-prohibited",
    "reject with icmp type port-unreachable",
    'accept comment "what\'s this? 100% [a+b]*~@ {"',
)


@pytest.fixture(scope="module")
def firewall() -> NftFirewall:
    """The real door; nothing is ever loaded with it here."""
    if not shutil.which("nft"):
        reason = "nftables is not installed: apt install nftables"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return NftFirewall()


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:40]))
async def test_a_hostile_text_is_refused_with_one_sentence(firewall: NftFirewall, text: str) -> None:
    with pytest.raises(Invalid) as raised:
        await firewall.check(text)
    sentence = raised.value.sentence
    assert sentence.isascii() and sentence.isprintable()
    assert len(sentence) < 500
    assert sentence.endswith(".")
    assert "/bin/" not in sentence and "root:" not in sentence


@pytest.mark.parametrize("text", HARMLESS)
async def test_a_rule_that_only_matches_packets_adds_exactly_itself(firewall: NftFirewall, text: str) -> None:
    assert await firewall.check(text) == text
    assert await added(text) == await added("accept")


async def added(text: str) -> list[tuple[str, str]]:
    """Return the kinds and chains of a table that was loaded with a rule."""
    user = () if os.geteuid() == 0 else ("--map-root-user",)
    rules = ruleset([Filter(200, inward=(text,)), Filter(201, inward=("drop",))])
    result = await run(("unshare", *user, "--net", "nft", "-e", "-j", rules.text), timeout=10)
    made = [
        next(iter(each.get("add", each.get("insert", {})).items())) for each in json.loads(result.stdout)["nftables"]
    ]
    return sorted((kind, what.get("chain", what.get("name"))) for kind, what in made if kind != "set")


@pytest.mark.parametrize("name", NAMES)
async def test_a_rule_with_a_host_name_is_refused(firewall: NftFirewall, name: str) -> None:
    with pytest.raises(Invalid, match=r"names are not resolved|syntax error"):
        await firewall.check(name)


@pytest.mark.parametrize("number", [0, 1])
async def test_rules_are_checked_the_same_without_user_namespaces(
    firewall: NftFirewall, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = list(nft._ways())
    if os.geteuid() != 0:
        pytest.skip("only root has another way")
    monkeypatch.setattr(nft, "_ways", lambda: [("/bin/false",), ways[number]])
    other = NftFirewall()
    assert await other.check("tcp dport 22 accept") == "tcp dport 22 accept"
    assert other._way == ways[number]
    for text in (*NAMES, *MISTAKES[2:8], 'ip saddr "/etc/passwd" accept'):
        with pytest.raises(Invalid):
            await other.check(text)


async def test_no_rule_is_accepted_if_rules_cannot_be_checked_safely(monkeypatch: pytest.MonkeyPatch) -> None:
    for way in (("/bin/false",), ("unshare", "--no-such-option"), ("unshare", "--map-root-user", "--net")):
        monkeypatch.setattr(nft, "_ways", lambda way=way: [way])
        with pytest.raises(Failed, match="Cannot check rules on this machine"):
            await NftFirewall().check("accept")


async def test_a_failure_of_this_machine_is_not_blamed_on_a_rule() -> None:
    other = NftFirewall()
    other._way = ("unshare", "--no-such-option")
    with pytest.raises(Failed, match="Cannot check the rule: unshare: unrecognized option"):
        await other.check("accept")


async def test_a_rule_that_keeps_nftables_busy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(nft, "_ways", lambda: [("sh", "-c", "exec sleep 60")])
    with pytest.raises(TimedOut, match="nftables did not answer within"):
        await NftFirewall().check("accept")


async def test_file_contents_in_errors_of_nftables_are_not_repeated(firewall: NftFirewall) -> None:
    """Such a text is refused before nftables reads it; even if nftables did, the sentence would reveal nothing."""
    text = 'accept\ninclude "/etc/passwd"\n'
    nobody = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--net")
    result = await run((*nobody, "nft", "-e", "-j", scratch(text)), timeout=10, check=False)
    assert b"root:" in result.stderr
    told = complaint(text, result.stderr.decode())
    assert told and "root" not in told.sentence


async def test_text_that_becomes_more_than_one_rule_is_noticed() -> None:
    """As above: what stands behind the first look."""
    table: Any = {"add": {"table": {"family": "inet", "name": "scratch"}}}
    chain: Any = {"add": {"chain": {"family": "inet", "table": "scratch", "name": "only"}}}
    rule: Any = {"add": {"rule": {"family": "inet", "table": "scratch", "chain": "only", "expr": [{"accept": None}]}}}
    judge({"nftables": [table, chain, rule]})
    elsewhere = {"add": {"rule": {**rule["add"]["rule"], "chain": "other"}}}
    for made in (
        [table, chain],
        [table, chain, rule, rule],
        [table, chain, table, rule],
        [table, chain, elsewhere],
        [table, chain, {"insert": rule["add"]}],
    ):
        with pytest.raises(Invalid, match="must be a single rule"):
            judge({"nftables": made})


async def test_many_concurrent_checks_are_fast_and_leave_the_host_tables_unchanged(firewall: NftFirewall) -> None:
    before = await tables()
    results = await asyncio.gather(
        *(firewall.check(text) for text in (*HOSTILE, *HARMLESS)[::3]), return_exceptions=True
    )
    assert all(isinstance(result, str | Invalid) for result in results)
    assert await tables() == before


async def tables() -> bytes:
    """Return the ruleset in the namespace of this process."""
    if os.geteuid() != 0:
        return b""
    return (await run(("nft", "-s", "list", "tables"), timeout=10)).stdout


_WORDS = sorted({word for text in (*HOSTILE[:-2], *HARMLESS) for word in text.split(" ") if len(word) < 40})


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(_WORDS), min_size=1, max_size=8))
async def test_any_combination_of_such_words_is_refused_or_one_rule(firewall: NftFirewall, words: list[str]) -> None:
    try:
        text = await firewall.check(" ".join((*words, "accept")))
    except Invalid:
        return
    assert await added(text) == await added("accept")
