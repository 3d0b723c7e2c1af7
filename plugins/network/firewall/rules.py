"""Validates the text of a rule: it may match packets and decide whether they pass, and nothing else.

nftables' own check (`nft -c`) is not enough, because a text may contain several commands. So there are three checks:
`spelled` looks at characters and words, then nftables parses the text as the only rule of a table in a temporary
namespace, and `judge` looks at the result. A valid text is stored as typed. It means the same on every node, because
names of hosts, services and protocols, which would have to be resolved, are refused.
"""

from __future__ import annotations

import re
from typing import Any

from pvcd import Invalid
from pvcd_plugins.network.firewall import MAX_RULE_LENGTH

VERDICTS = ("accept", "drop", "reject", "return")
MAX_LOG_PREFIX = 127
"""Of the kernel (NF_LOG_PREFIXLEN). nftables 1.0.6 crashes when a prefix has a few characters more."""

_SCRATCH = "add rule inet scratch only "
_BEFORE = "add table inet scratch\nadd chain inet scratch only { type filter hook forward priority filter; }\n"

_BARE = r"A-Za-z0-9 \t.,:/{}_<>=!&|^()\-"
_OTHER = re.compile(rf'[^{_BARE}"]')
_QUOTED = re.compile(rf"\"[{_BARE}\[\]+*%@~'?]*\"")
_OCTAL = re.compile(r"\b(?:\d+\.)*0\d+\.\d[\d.]*|\b\d+(?:\.\d+)*\.0\d[\d.]*")
_QUOTED_OR_PREFIX = re.compile(r'"[^"]*"|\bprefix\s*("[^"]*"|[^\s"]+)')
_ERROR = re.compile(r"^(?:\S+: )?Error: (.+)$", re.MULTILINE)
_MARKED = re.compile(r"^[ ~]*?(\^+)", re.MULTILINE)

_FORBIDDEN = re.compile(
    r"(?<![\w-])(include|define|redefine|undefine|jump|goto|vmap|map|set|update|delete|queue|dup|fwd|notrack|[ds]nat"
    r"|masquerade|redirect|tproxy|synproxy|index|handle|position|[io]if(name|group|type)?|[io]brname|sdif(name)?)"
    r"(?![\w-])"
)
"""Words that a rule which only matches packets never needs."""

_LOG = re.compile(r"prefix|level|flags|group|snaplen|queue-threshold")
_QUIET = re.compile(r"err|warn|notice|info|debug")
"""Log levels that are not written to every terminal."""
_KEYS = {
    "meta": re.compile(r"l4proto|nfproto|protocol|length|pkttype"),
    "ct": re.compile(
        r"state|direction|status|protocol|l3proto|bytes|packets|avgpkt|expiration|proto-(src|dst)|(ip6? )?[sd]addr"
    ),
}
_FIELDS = frozenset({"payload", "exthdr", "tcp option", "ip option", "sctp chunk"})
_OPERATORS = frozenset({"&", "|", "^", "<<", ">>", "concat", "set", "range", "prefix"})


def spelled(rule: str) -> str:
    """Return the text without surrounding blanks; raises `Invalid` unless its characters and words can form a rule."""
    text = rule.strip()
    if not text:
        raise Invalid("rule must not be empty.")
    if len(text) > MAX_RULE_LENGTH:
        raise Invalid(f"rule must have at most {MAX_RULE_LENGTH} characters; got {len(text)}.")
    bare = _QUOTED.sub(" ", text)
    if other := _OTHER.search(bare):
        raise Invalid(f"rule must not contain the character {other[0]!a}.")
    if '"' in bare:
        raise Invalid("rule must close each quotation, and quote only letters, digits, blanks and plain punctuation.")
    _balanced(bare)
    for prefix in filter(None, _QUOTED_OR_PREFIX.findall(text)):
        if (length := len(prefix.strip('"'))) > MAX_LOG_PREFIX:
            raise Invalid(f"rule must have a log prefix of at most {MAX_LOG_PREFIX} characters; got {length}.")
    if word := _FORBIDDEN.search(bare):
        raise _forbidden(word[0])
    if octal := _OCTAL.search(bare):
        raise Invalid(f"rule must not contain addresses with leading zeros; got {octal[0]!r}.")
    return text


def _balanced(bare: str) -> None:
    depth = 0
    for brace in re.findall(r"[{}]", bare):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            break
    if depth:
        raise Invalid("rule must have matching braces.")


def scratch(text: str) -> str:
    """Return the commands that make a text the only rule of a new table."""
    return f"{_BEFORE}{_SCRATCH}{text}"


def complaint(text: str, errors: str) -> Invalid | None:
    """Parse the errors of nftables for `scratch(text)`. Returns None if it failed before parsing.

    Only its message is repeated, with the words of the text that it points at, and not its excerpts of the input.
    """
    message = _ERROR.search(errors)
    if message is None:
        return None
    if message[1].startswith("Could not resolve"):
        why = "names are not resolved. Write addresses, ports and protocols as numbers"
    else:
        why = printable(message[1])
    marked = _MARKED.search(errors, message.end())
    place = ""
    if marked is not None:
        start = marked.start(1) - marked.start() - len(_SCRATCH)
        place = text[max(start, 0) : max(start + len(marked[1]), 0)].strip()
    return Invalid(f"Cannot accept the rule{f' at {place!r}' if place else ''}: {why}.")


def printable(message: str) -> str:
    """Make a message of nftables part of a sentence."""
    return re.sub(r"[^ -~]", "?", message)[:200].strip().rstrip(".")


def judge(answer: Any) -> None:
    """Raise `Invalid` unless nftables made exactly the table, the chain and one allowed rule."""
    made = [each.get("add") or {} for each in answer["nftables"]]
    if [next(iter(each), "") for each in made] != ["table", "chain", "rule"]:
        raise _not_single()
    rule = made[2]["rule"]
    if (rule["family"], rule["table"], rule["chain"]) != ("inet", "scratch", "only"):
        raise _not_single()
    statements = [next(iter(each.items())) for each in rule["expr"]]
    for kind, what in statements:
        _judge_statement(kind, what)
    if statements[-1][0] not in VERDICTS:
        raise undecided()


def _not_single() -> Invalid:
    return Invalid("rule must be a single rule; got more than one command.")


def undecided() -> Invalid:
    """The error for a rule without a verdict."""
    return Invalid(f"rule must end with one of {', '.join(VERDICTS)}.")


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
        raise Invalid(f"rule must not log at level {level!r}.")


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
            raise Invalid("rule must not contain an expression unknown to pvcd.")


def _forbidden(word: str) -> Invalid:
    return Invalid(f"rule must not use {word!r}: it may only match packets and decide whether they pass.")
