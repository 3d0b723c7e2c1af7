"""What nftables is told for the filters of networks."""

from __future__ import annotations

import pytest

from pvcd.errors import Failed
from pvcd_plugins.network.firewall import Filter
from pvcd_plugins.network.firewall.ruleset import ruleset

WHOLE = """\
table inet pvc
delete table inet pvc
table inet pvc {
  chain net200-in {
    ct state established,related accept
  }
  chain net200-out {
    ct state established,related accept
  }
  chain net201-in {
    ct state established,related accept
  }
  chain services {
    ct state established,related accept
    meta l4proto { icmp, icmpv6 } accept
    meta l4proto { tcp, udp } th dport 53 accept
    udp dport { 67, 123, 547 } accept
    ip daddr 169.254.169.254 tcp dport 80 accept
    drop
  }
  chain outward {
    type filter hook forward priority filter + 10; policy accept;
    iifname vmap { "vmbr200" : jump net200-out }
  }
  chain inward {
    type filter hook forward priority filter + 20; policy accept;
    oifname vmap { "vmbr200" : jump net200-in, "vmbr201" : jump net201-in }
  }
  chain node {
    type filter hook input priority filter + 10; policy accept;
    iifname { "vmbr200", "vmbr201", "vmbr202" } jump services
  }
}
add rule inet pvc net200-in tcp dport 22 accept
add rule inet pvc net200-in drop
add rule inet pvc net200-out ip daddr 10.66.0.0/16 drop
add rule inet pvc net201-in accept comment "all"
"""
FILTERS = [
    Filter(200, inward=("tcp dport 22 accept", "drop"), outward=("ip daddr 10.66.0.0/16 drop",)),
    Filter(201, inward=('accept comment "all"',)),
    Filter(202),
]


def test_the_table_is_replaced_as_a_whole() -> None:
    assert ruleset(FILTERS).text == WHOLE


def test_without_filters_the_table_is_removed_whether_it_is_there_or_not() -> None:
    assert ruleset([]).text == "table inet pvc\ndelete table inet pvc\n"


def test_without_rules_there_is_no_map_but_the_node_is_guarded() -> None:
    text = ruleset([Filter(200)]).text
    assert "vmap" not in text
    assert 'iifname { "vmbr200" } jump services' in text


def test_every_line_knows_the_rule_that_it_comes_from() -> None:
    rules = ruleset(FILTERS)
    lines = rules.text.splitlines()
    assert [lines[number - 1].split(maxsplit=5)[-1] for number in rules.origins] == [
        origin.rule for origin in rules.origins.values()
    ]
    assert [str(origin) for origin in rules.origins.values()] == [
        "rule 0 in direction 'in' of network 200 ('tcp dport 22 accept')",
        "rule 1 in direction 'in' of network 200 ('drop')",
        "rule 0 in direction 'out' of network 200 ('ip daddr 10.66.0.0/16 drop')",
        "rule 0 in direction 'in' of network 201 ('accept comment \"all\"')",
    ]


def test_a_hundred_networks_cost_one_look() -> None:
    text = ruleset([Filter(vni, inward=("drop",), outward=("drop",)) for vni in range(1000, 1100)]).text
    assert text.count("vmap") == 2
    assert text.count("ifname {") == 1


@pytest.mark.parametrize("rule", ["accept\nflush ruleset", "accept; drop", "jump services", "accept }", "", "x" * 1001])
def test_a_text_that_could_be_more_than_a_rule_is_never_passed_on(rule: str) -> None:
    with pytest.raises(Failed, match="Cannot load rule 1 in direction 'out' of network 200"):
        ruleset([Filter(200, outward=("accept", rule))])
