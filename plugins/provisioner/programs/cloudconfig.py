"""Compare userdata with cloud-init's schema: a program of its own because YAML can keep a parser busy.

    python -I cloudconfig.py SCHEMA     userdata from stdin, a list of sentences as JSON to stdout

The schema is part of cloud-init's Debian package.
"""

from __future__ import annotations

import difflib
import email
import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

SCHEMA = Path("/usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json")
HEADER = "#cloud-config"
NOT_COMPARED = "cloud-config not compared with cloud-init's schema"
MAX_WARNINGS = 10
CPU_SECONDS, MEMORY_BYTES = 2, 512 * 1024 * 1024
_MAX_CHARACTERS = 160


class _Loader(yaml.SafeLoader):
    """Names a value that its type does not allow, such as a date in month 99, with its line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, ValueError) as error:
            if not isinstance(node, yaml.ScalarNode):
                raise
            problem = f"{_fit(node.value, 60)!r} cannot be read as {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


def warnings(userdata: str, schema: dict[str, Any]) -> list[str]:
    """Return a sentence for each of the first things that cloud-init will not understand."""
    try:
        found = [warning for document in _documents(userdata) for warning in _judge(document, schema)]
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # such as a key that is a number, where jsonschema needs a text
        found = [f"{NOT_COMPARED}: {type(error).__name__}: {_fit(str(error), _MAX_CHARACTERS)}."]
    return list(dict.fromkeys(found))[:MAX_WARNINGS]


def _documents(userdata: str) -> Iterator[str]:
    """Yield each cloud-config of userdata, which may have several parts."""
    if userdata.startswith(HEADER):
        yield userdata
    elif userdata.lower().startswith(("content-type:", "mime-version:")):
        for part in email.message_from_string(userdata).walk():
            body = part.get_payload(decode=True)
            text = body.decode(errors="replace") if isinstance(body, bytes) else ""
            if part.get_content_type() == "text/cloud-config" or text.startswith(HEADER):
                yield text


def _judge(document: str, schema: dict[str, Any]) -> Iterator[str]:
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]

    try:
        config = yaml.load(document, _Loader)  # noqa: S506 (it is a safe loader)
    except yaml.YAMLError as mistake:
        mark = getattr(mistake, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(mistake, "problem", None) or "syntax error"
        yield f"The cloud-config is not YAML: {where}{_fit(problem, _MAX_CHARACTERS)}."
        return
    if config is None:
        return
    if not isinstance(config, dict):
        yield "The cloud-config is not a mapping of keys to values."
        return
    known = _keys(schema)
    for key in map(str, config):
        near = [] if key in known else difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        yield from (f"cloud-init may not know {_fit(key, 60)!r}: did you mean {name!r}?" for name in near)
    for error in validator_for(schema)(schema).iter_errors(config):
        path = _fit(".".join(map(str, error.absolute_path)), 80) or "the whole"
        yield f"cloud-init will not understand {path}: {_fit(error.message, _MAX_CHARACTERS)}."


def _fit(text: str, size: int) -> str:
    """Return the beginning of a text as part of a sentence: a user's YAML may hold any character, even half of one."""
    return "".join(each if each.isprintable() else " " for each in " ".join(text.split())[:size])


def _keys(schema: dict[str, Any]) -> list[str]:
    """Return the top-level keys of a cloud-config."""
    parts = [schema, *(schema.get("$defs", {}).get(name, {}) for name in map(_name, schema.get("allOf", ())))]
    return sorted({key for part in parts for key in part.get("properties", {})})


def _name(reference: dict[str, str]) -> str:
    return reference.get("$ref", "").rpartition("/")[2]


def main() -> None:
    """Read userdata from stdin, and write the sentences to stdout."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    json.dump(warnings(sys.stdin.read(), json.loads(Path(sys.argv[1]).read_text())), sys.stdout)


if __name__ == "__main__":
    main()
