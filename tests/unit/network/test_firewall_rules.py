"""What nftables must not be given, and what is said when it crashes."""

from __future__ import annotations

from typing import Any

import pytest

from pvcd import programs
from pvcd.errors import Failed, Invalid
from pvcd_plugins.network.firewall import Filter, nft
from pvcd_plugins.network.firewall.nft import NftFirewall
from pvcd_plugins.network.firewall.rules import spelled

LONG = "a" * 128


@pytest.mark.parametrize(
    "rule",
    [
        f'log prefix "{LONG}" accept',
        f"log prefix {LONG} accept",
        f'log level info prefix"{LONG}" accept',
        f'log prefix "a" prefix "{LONG}" accept',
        f'accept comment "prefix" log prefix "{LONG}"',
    ],
)
def test_a_log_prefix_longer_than_the_kernel_allows_is_refused(rule: str) -> None:
    with pytest.raises(Invalid, match=r"^rule must have a log prefix of at most 127 characters; got 128\.$"):
        spelled(rule)


@pytest.mark.parametrize("rule", [f'log prefix "{LONG[1:]}" accept', f'accept comment "{LONG}"'])
def test_other_long_texts_are_left_to_nftables(rule: str) -> None:
    assert spelled(rule) == rule


async def test_a_crash_of_nftables_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async def crash(argv: Any, **options: Any) -> programs.Result:
        return programs.Result(-6, b"", b"*** stack smashing detected ***: terminated\n")

    firewall = NftFirewall()
    firewall._way = ()
    monkeypatch.setattr(programs, "run", crash)
    monkeypatch.setattr(nft, "generation", lambda: 1)
    with pytest.raises(Failed, match=r"^Cannot check the rule: nft was killed by SIGABRT\.$"):
        await firewall.check("accept")
    with pytest.raises(Failed, match=r"^Cannot load the rules: nft was killed by SIGABRT\. The previous"):
        await firewall.apply([Filter(200, ("accept",))])
