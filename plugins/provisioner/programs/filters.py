"""The functions behind the template filters. They import nothing of pvcd, which would slow down each rendering."""

from __future__ import annotations

import base64
import json
import shlex
from typing import Any

import yaml


def b64encode(value: Any) -> str:
    """Encode as Base64, for `encoding: b64` of write_files."""
    return base64.b64encode(str(value).encode()).decode()


def to_json(value: Any) -> str:
    """Encode as JSON in one line, which is also YAML: a value of a user stays one value."""
    return json.dumps(value, ensure_ascii=False, default=str)


def to_yaml(value: Any) -> str:
    """Encode as YAML of several lines; use `| indent` to indent it."""
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=False).removesuffix("...\n").rstrip("\n")


def quote(value: Any) -> str:
    """Quote as one word of a shell."""
    return shlex.quote(str(value))
