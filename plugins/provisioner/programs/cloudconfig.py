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

SCHEMA = Path("/usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json")
HEADER = "#cloud-config"
MAX_WARNINGS = 10
CPU_SECONDS, MEMORY_BYTES = 2, 512 * 1024 * 1024
_MAX_CHARACTERS = 160


def warnings(userdata: str, schema: dict[str, Any]) -> list[str]:
    """Return a sentence for each of the first things that cloud-init will not understand."""
    found = [warning for document in _documents(userdata) for warning in _judge(document, schema)]
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
    import yaml
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]

    try:
        config = yaml.safe_load(document)
    except yaml.YAMLError as mistake:
        mark = getattr(mistake, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        yield f"The cloud-config is not YAML: {where}{getattr(mistake, 'problem', None) or 'syntax error'}."
        return
    if config is None:
        return
    if not isinstance(config, dict):
        yield "The cloud-config is not a mapping of keys to values."
        return
    known = _keys(schema)
    for key in map(str, config):
        near = [] if key in known else difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        yield from (f"cloud-init may not know {key[:60]!r}: did you mean {name!r}?" for name in near)
    for error in validator_for(schema)(schema).iter_errors(config):
        path = ".".join(map(str, error.absolute_path)) or "the whole"
        yield f"cloud-init will not understand {path[:80]}: {' '.join(error.message.split())[:_MAX_CHARACTERS]}."


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
