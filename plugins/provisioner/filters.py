"""The functions behind the template filters. Nothing of pvcd is imported here, for which each rendering would wait."""

from __future__ import annotations

import base64
import json
import shlex
from typing import Any

import yaml


def b64encode(value: Any) -> str:
    """As Base64, for `encoding: b64` of write_files."""
    return base64.b64encode(str(value).encode()).decode()


def to_json(value: Any) -> str:
    """As JSON in one line, which YAML understands as well: so a value of a user stays one value."""
    return json.dumps(value, ensure_ascii=False, default=str)


def to_yaml(value: Any) -> str:
    """As YAML of as many lines as it needs; `| indent` moves it to its place."""
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=False).removesuffix("...\n").rstrip("\n")


def quote(value: Any) -> str:
    """As one word of a shell."""
    return shlex.quote(str(value))
