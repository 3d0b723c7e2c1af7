"""What the text of one rule may be: it may look at packets and let them pass or not, and nothing else.

A text is judged three times, since nftables' own check (`nft -c`) is none: a text may hold more than one command.
`spelled` looks at its characters and words, then nftables reads it as the only rule of a table in a namespace that is
thrown away, and `judge` looks at what it became there. A text that stands all this is kept as it was typed. It means
the same on every node, because nothing in it is looked up: names of hosts, services and protocols are refused.
"""

from __future__ import annotations

import re
from typing import Any

from pvcd import Invalid
from pvcd_plugins.network.firewall import RULE_LENGTH

VERDICTS = ("accept", "drop", "reject", "return")

_SCRATCH = "add rule inet scratch only "
_BEFORE = "add table inet scratch\nadd chain inet scratch only { type filter hook forward priority filter; }\n"

_BARE = r"A-Za-z0-9 \t.,:/{}_<>=!&|^()\-"
_OTHER = re.compile(rf'[^{_BARE}"]')
_QUOTED = re.compile(rf"\"[{_BARE}\[\]+*%@~'?]*\"")
_OCTAL = re.compile(r"\b(?:\d+\.)*0\d+\.\d[\d.]*|\b\d+(?:\.\d+)*\.0\d[\d.]*")
_ERROR = re.compile(r"^(?:\S+: )?Error: (.+)$", re.MULTILINE)
_MARKED = re.compile(r"^[ ~]*?(\^+)", re.MULTILINE)

_FORBIDDEN = re.compile(
    r"(?<![\w-])(include|define|redefine|undefine|jump|goto|vmap|map|set|update|delete|queue|dup|fwd|notrack|[ds]nat"
    r"|masquerade|redirect|tproxy|synproxy|index|handle|position|[io]if(name|group|type)?|[io]brname|sdif(name)?)"
    r"(?![\w-])"
)
"""Words that no rule needs which only looks at packets."""

_LOG = re.compile(r"prefix|level|flags|group|snaplen|queue-threshold")
_QUIET = re.compile(r"err|warn|notice|info|debug")
"""Levels of a log that do not cry out on every terminal."""
_KEYS = {
    "meta": re.compile(r"l4proto|nfproto|protocol|length|pkttype"),
    "ct": re.compile(
        r"state|direction|status|protocol|l3proto|bytes|packets|avgpkt|expiration|proto-(src|dst)|(ip6? )?[sd]addr"
    ),
}
_FIELDS = frozenset({"payload", "exthdr", "tcp option", "ip option", "sctp chunk"})
_OPERATORS = frozenset({"&", "|", "^", "<<", ">>", "concat", "set", "range", "prefix"})


def spelled(rule: str) -> str:
    """The text without blanks around it, if its characters and words can be those of one rule; else `Invalid`."""
    text = rule.strip()
    if not text:
        raise Invalid("A rule must not be empty.")
    if len(text) > RULE_LENGTH:
        raise Invalid(f"A rule has at most {RULE_LENGTH} characters; this one has {len(text)}.")
    bare = _QUOTED.sub(" ", text)
    if other := _OTHER.search(bare):
        raise Invalid(f"A rule must not hold the character {other[0]!a}.")
    if '"' in bare:
        raise Invalid("A quotation in the rule does not end, or holds a character that it must not hold.")
    _balanced(bare)
    if word := _FORBIDDEN.search(bare):
        raise _forbidden(word[0])
    if octal := _OCTAL.search(bare):
        raise Invalid(f"{octal[0]!r} in the rule is no address: its numbers must not begin with 0.")
    return text


def _balanced(bare: str) -> None:
    depth = 0
    for brace in re.findall(r"[{}]", bare):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            break
    if depth:
        raise Invalid("The braces in the rule do not match.")


def scratch(text: str) -> str:
    """Commands that make a text the only rule of a new table, where packets are forwarded."""
    return f"{_BEFORE}{_SCRATCH}{text}"


def complaint(text: str, errors: str) -> Invalid | None:
    """What nftables has against a text, from its errors for `scratch(text)`; nothing if it did not get to read it.

    Only its message is repeated, and the words of the text that it points at; what it shows of its input is not.
    """
    message = _ERROR.search(errors)
    if message is None:
        return None
    if message[1].startswith("Could not resolve"):
        why = "names are not looked up; write addresses, ports and protocols as numbers"
    else:
        why = printable(message[1])
    marked = _MARKED.search(errors, message.end())
    place = ""
    if marked is not None:
        start = marked.start(1) - marked.start() - len(_SCRATCH)
        place = text[max(start, 0) : max(start + len(marked[1]), 0)].strip()
    return Invalid(f"nftables does not accept the rule{f' at {place!r}' if place else ''}: {why}.")


def printable(message: str) -> str:
    """A message of nftables as a part of a sentence of ours."""
    return re.sub(r"[^ -~]", "?", message)[:200].strip().rstrip(".")


def judge(answer: Any) -> None:
    """Raise `Invalid` unless what nftables says that it has made is the table, the chain and one rule that may be."""
    made = [each.get("add") or {} for each in answer["nftables"]]
    if [next(iter(each), "") for each in made] != ["table", "chain", "rule"]:
        raise Invalid("The text is more than one rule.")
    rule = made[2]["rule"]
    if (rule["family"], rule["table"], rule["chain"]) != ("inet", "scratch", "only"):
        raise Invalid("The text is more than one rule.")
    statements = [next(iter(each.items())) for each in rule["expr"]]
    for kind, what in statements:
        _judge_statement(kind, what)
    if statements[-1][0] not in VERDICTS:
        raise undecided()


def undecided() -> Invalid:
    """A rule without a verdict."""
    return Invalid(f"The rule decides nothing: end it with one of {', '.join(VERDICTS)}.")


def _judge_statement(kind: str, what: Any) -> None:
    if kind == "match":
        _judge_expression(what["left"])
        _judge_expression(what["right"])
    elif kind == "log":
        _judge_log(what or {})
    elif kind in ("counter", "limit") and isinstance(what, str):
        raise _forbidden(f"{kind} name")
    elif kind not in ("counter", "limit", "ct count", *VERDICTS):
        raise _forbidden(kind)


def _judge_log(options: dict[str, Any]) -> None:
    for option in options:
        if not _LOG.fullmatch(option):
            raise _forbidden(f"log {option}")
    if not _QUIET.fullmatch(level := options.get("level", "warn")):
        raise Invalid(f"A rule must not log at level {level!r}.")


def _judge_expression(what: Any) -> None:
    match what:
        case str() if what.startswith("@"):
            raise _forbidden(what)
        case str() | bool() | int():
            pass
        case [*parts]:
            for part in parts:
                _judge_expression(part)
        case {"prefix": {"addr": inner, "len": int()}}:
            _judge_expression(inner)
        case dict() if len(what) == 1:
            ((kind, inner),) = what.items()
            if kind in _OPERATORS:
                _judge_expression(inner)
            elif kind in _KEYS and not _KEYS[kind].fullmatch(inner["key"]):
                raise _forbidden(f"{kind} {inner['key']}")
            elif kind not in _FIELDS and kind not in _KEYS:
                raise _forbidden(kind)
        case _:
            raise Invalid("The rule holds something that no rule may hold.")


def _forbidden(word: str) -> Invalid:
    return Invalid(f"A rule must not use {word!r}: it may look at packets and let them pass or not, nothing else.")
