"""Templates are rendered the same in this process and in a separate one; only the latter gets malicious ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pvcd.errors import Invalid, TimedOut
from pvcd_plugins.provisioner.programs import userdata
from pvcd_plugins.provisioner.programs.cloudconfig import SCHEMA
from pvcd_plugins.provisioner.programs.userdata import InsideRendering, OutsideRendering, Rendering, check

VALUES = {"vm_name": "wéb1", "arguments": {"release": "trixie"}}


def shout(text: str) -> str:
    return text.upper()


@pytest.fixture(params=[InsideRendering, OutsideRendering])
def rendering(request: pytest.FixtureRequest) -> Rendering:
    made: Rendering = request.param({"shout": shout})
    return made


async def test_a_template_is_rendered_with_values(rendering: Rendering) -> None:
    assert await rendering.render("{{ vm_name | shout }} {{ arguments.release }}\n", VALUES) == "WÉB1 trixie\n"
    assert await rendering.render("plain\n", {}) == "plain\n"


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a\n{{ nothing }}", "line 2: 'nothing' is undefined."),
        (
            "{{ ''.__class__ }}",
            "line 1: access to attribute '__class__' of 'str' object is unsafe.",
        ),
        ("{% for %}", "line 1: Expected an expression, got 'end of statement block'."),
    ],
)
async def test_a_mistake_is_reported_with_its_line(
    rendering: Rendering, text: str, sentence: str, sample: bool
) -> None:
    with pytest.raises(Invalid) as caught:
        await rendering.render(text, VALUES, sample=sample)
    assert caught.value.sentence == f"Cannot render the userdata: {sentence}"


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ 'x' * 10 ** 10 }}",
        "{{ 'x'.ljust(10 ** 10) }}",
        "{{ '%9999999999d' % 1 }}",
        "{% set x = namespace(s='x') %}{% for i in range(99) %}{% set x.s = x.s + x.s %}{% endfor %}",
    ],
)
async def test_a_template_that_needs_too_much_time_or_memory_is_killed(text: str) -> None:
    with pytest.raises(Invalid, match=r"Cannot render the userdata: .*(too much|OverflowError|MemoryError)"):
        await OutsideRendering().render(text, VALUES)


async def test_a_rendered_text_is_valid_utf8(rendering: Rendering) -> None:
    with pytest.raises(Invalid, match=r"^Cannot render the userdata: it becomes a text that is not valid UTF-8\.$"):
        await check(rendering, r"#cloud-config{{ '\ud800' }}")


async def test_what_takes_too_long_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(userdata, "TIMEOUT_SECONDS", 0.01)
    (schema := tmp_path / "schema.json").write_text("{}")
    with pytest.raises(TimedOut, match=r"^Cannot render the userdata within 0\.01 s\. Make it simpler or try again\.$"):
        await OutsideRendering().render("{{ 1 }}", {})
    assert await OutsideRendering(schema=schema).warnings("#cloud-config") == [
        "cloud-config not compared with cloud-init's schema: it takes longer than 0.01 s."
    ]


async def test_userdata_is_compared_with_the_schema_if_there_is_one(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"properties": {"packages": {"type": "array"}}}))
    text = "#cloud-config\npackages: {{ vm_id }}\n"
    warning = "cloud-init will not understand packages: 1 is not of type 'array'."
    assert await check(OutsideRendering(schema=schema), text) == [warning]
    assert await check(OutsideRendering(schema=tmp_path / "none"), text) == []


async def test_malicious_yaml_causes_only_a_warning(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"properties": {"z": {"type": "array", "items": {"$ref": "#/properties/z"}}}}))
    bomb = "#cloud-config\na0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    found = await check(OutsideRendering(schema=schema), f"{bomb}z: *a39\n")
    assert found == ["cloud-config not compared with cloud-init's schema: it takes too much time or memory."]
    assert len(await check(OutsideRendering(schema=schema), "#cloud-config\na: " + "[" * 100_000)) == 1


@pytest.mark.skipif(not SCHEMA.exists(), reason="cloud-init is not installed")
async def test_the_schema_of_cloud_init_is_understood() -> None:
    text = "#cloud-config\npackages: vim\npakage_update: true\nusers: [default]\n"
    assert await check(OutsideRendering(), text) == [
        "cloud-init may not know 'pakage_update': did you mean 'package_update'?",
        "cloud-init will not understand packages: 'vim' is not of type 'array'.",
    ]
