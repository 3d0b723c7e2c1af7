"""Userdata is compared with cloud-init's schema, in all of its parts."""

from __future__ import annotations

from typing import Any

import pytest

from pvcd_plugins.provisioner.programs.cloudconfig import MAX_WARNINGS, warnings

SCHEMA: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "$defs": {
        "cc_packages": {"properties": {"packages": {"type": "array", "items": {"type": "string"}}}},
        "cc_hostname": {"properties": {"hostname": {"type": "string"}}},
        "cc_files": {"properties": {"files": {"additionalProperties": {"type": "string"}}}},
    },
    "allOf": [{"$ref": "#/$defs/cc_packages"}, {"$ref": "#/$defs/cc_hostname"}, {"$ref": "#/$defs/cc_files"}],
}
PARTS = """Content-Type: multipart/mixed; boundary="b"
MIME-Version: 1.0

--b
Content-Type: text/x-shellscript

#!/bin/sh
packages: 5
--b
Content-Type: text/cloud-config

packages: 5
--b--
"""


@pytest.mark.parametrize(
    "userdata",
    [
        "",
        "#!/bin/sh\npackages: 5\n",
        "#cloud-config\n",
        "#cloud-config\npackages: [vim]\nhostname: a\noutput: {all: x}\n",
    ],
)
def test_valid_userdata_gives_no_warnings(userdata: str) -> None:
    assert warnings(userdata, SCHEMA) == []


@pytest.mark.parametrize(
    ("userdata", "warning"),
    [
        ("packages: 5", "cloud-init will not understand packages: 5 is not of type 'array'."),
        ("packages: [vim, 5]", "cloud-init will not understand packages.1: 5 is not of type 'string'."),
        ("pakages: [vim]", "cloud-init may not know 'pakages': did you mean 'packages'?"),
        ("- vim", "The cloud-config is not a mapping of keys to values."),
        ("\na: [", "The cloud-config is not YAML: line 3: expected the node content, but found '<stream end>'."),
        (
            "a: !!python/object:os.system x",
            "The cloud-config is not YAML: line 2: could not determine a constructor for",
        ),
        (
            "\nruncmd: 2001-99-99",
            "The cloud-config is not YAML: line 3: '2001-99-99' cannot be read as timestamp.",
        ),
        (f"a: {'1' * 5000}", f"The cloud-config is not YAML: line 2: '{'1' * 60}' cannot be read as int."),
        ("a: !!timestamp soon", "The cloud-config is not YAML: line 2: 'soon' cannot be read as timestamp."),
        ("a: !!bool perhaps", "The cloud-config is not YAML: line 2: 'perhaps' cannot be read as bool."),
        (f"packages: 0x{'f' * 5000}", "cloud-config not compared with cloud-init's schema: ValueError: Exceeds"),
        ('files: {"\\ud800": 5}', "cloud-init will not understand files. : 5 is not of type 'string'."),
    ],
)
def test_deviations_from_the_schema_are_named(userdata: str, warning: str) -> None:
    found = warnings(f"#cloud-config\n{userdata}", SCHEMA)
    assert [each[: len(warning)] for each in found] == [warning]


def test_each_part_of_multipart_userdata_is_checked() -> None:
    assert warnings(PARTS, SCHEMA) == ["cloud-init will not understand packages: 5 is not of type 'array'."]


def test_the_number_of_warnings_is_limited() -> None:
    assert len(warnings("#cloud-config\npackages: [1,2,3,4,5,6,7,8,9,10,11,12]", SCHEMA)) == MAX_WARNINGS
