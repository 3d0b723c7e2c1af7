"""Userdata templates see only their values, and mistakes are reported with their line."""

from __future__ import annotations

from typing import Any

import pytest

from pvcd.errors import Invalid
from pvcd_plugins.provisioner.programs.rendering import MAX_CHARACTERS, MAX_RENDERED, Mistake, render
from pvcd_plugins.provisioner.programs.userdata import InsideRendering, check
from pvcd_plugins.provisioner.variables import sample_values

VALUES: dict[str, Any] = {"vm_name": "web1", "networks": [{"vni": 200}], "arguments": {"release": "trixie"}}


def sampled(text: str) -> str:
    return render(text, sample_values(), {}, sample=True)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("hostname: {{ vm_name }}\n", "hostname: web1\n"),
        ("{% for net in networks %}{{ net.vni }}{% endfor %}", "200"),
        ("{{ arguments.release }}", "trixie"),
        ("{{ release | default('bookworm') }}", "bookworm"),
        ("{% set x = 1 %}{{ x + 1 }}", "2"),
        ("{% raw %}${#a[@]} {{ v1.region }}{% endraw %}", "${#a[@]} {{ v1.region }}"),
        ("&lt;<b>", "&lt;<b>"),
    ],
)
def test_a_template_is_rendered_with_its_values(text: str, rendered: str) -> None:
    assert render(text, VALUES, {}) == rendered


def test_filters_of_plugins_are_available() -> None:
    assert render("{{ vm_name | shout }}", VALUES, {"shout": str.upper}) == "WEB1"


@pytest.mark.parametrize(
    ("text", "line", "mistake"),
    [
        ("a\n{{ release }}", 2, "'release' is undefined"),
        ("{{ vm_name.nothing }}", 1, "has no attribute 'nothing'"),
        ("\n\n{% for x in %}", 3, "Expected an expression"),
        ("{% if true %}\n", 1, "Unexpected end of template"),
        ("{{ vm_name | nofilter }}", 1, "No filter named 'nofilter'"),
        ("{{ 1 / 0 }}", 1, "division by zero"),
        ("{% include '/etc/passwd' %}", 1, "no loader"),
        ("{% macro m() %}{{ m() }}{% endmacro %}\n{{ m() }}", 1, "nested too deeply"),
    ],
)
def test_a_mistake_is_reported_with_its_line(text: str, line: int, mistake: str) -> None:
    with pytest.raises(Mistake, match=mistake) as caught:
        render(text, VALUES, {})
    assert caught.value.line == line


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__class__'].x }}",
        "{{ '' | attr('__class__') }}",
        "{{ '{0.__class__}'.format('') }}",
        "{{ '{x.__class__}'.format_map({'x': 1}) }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ networks.append(1) }}",
        "{{ arguments.update(x=1) }}",
        "{{ range(100001) | list }}",
        "{{ ().__class__ }}",
        "{{ vm_name.encode.__self__ }}",
        "{{ [''] | map(attribute='__class__') | list | first }}",
    ],
)
def test_a_template_cannot_escape_its_values(text: str) -> None:
    with pytest.raises(Mistake):
        render(text, VALUES, {})


def test_a_rendered_text_that_is_too_large_is_refused() -> None:
    with pytest.raises(Mistake, match="larger than 256 KiB"):
        render("{% for x in range(1000) %}{{ 'x' * 1000 }}{% endfor %}", VALUES, {})
    assert len(render(f"{{{{ 'x' * {MAX_RENDERED} }}}}", VALUES, {})) == MAX_RENDERED


@pytest.mark.parametrize("text", [r"{{ '\ud800' }}", r"{{ '\udc80' }}", r"{{ '\ud83d' }}{{ '\ude00' }}"])
def test_a_rendered_text_that_is_not_utf8_is_refused(text: str) -> None:
    with pytest.raises(Mistake, match=r"^it becomes a text that is not valid UTF-8$"):
        render(text, VALUES, {})


@pytest.mark.parametrize(
    "text",
    [
        *("{{ " + name + " }}" for name in sample_values()),
        "{{ arguments.anything }}{{ arguments['else'] }}",
        "{% for disk in disks %}{{ disk.disk_id }}{{ disk.mountpoint }}{% endfor %}{{ networks[0].mac }}",
        "{% if release is defined %}{{ release }}{% endif %}",
        "{% set own = 1 %}{% macro m(x) %}{{ x }}{% endmacro %}{{ m(own) }}{{ range(3) | list }}",
    ],
)
def test_a_sample_has_the_variables_of_every_vm(text: str) -> None:
    sampled(text)


def test_a_sample_finds_unknown_names_in_branches_not_taken() -> None:
    with pytest.raises(Mistake, match="'hostnme' is undefined") as caught:
        sampled("{% if false %}\n{{ hostnme }}\n{% endif %}")
    assert caught.value.line == 2


async def test_a_mistake_becomes_a_sentence() -> None:
    with pytest.raises(Invalid, match=r"^Cannot render the userdata: line 2: 'x' is undefined\.$"):
        await check(InsideRendering(), "a\n{{ x }}\n")
    assert await check(InsideRendering(), "#cloud-config\nhostname: {{ vm_name }}\n") == []


def complain(text: str) -> str:
    raise ValueError(text)


SECRET = "correct horse\n  battery staple 01"


@pytest.mark.parametrize("before", [0, 240, 300, MAX_CHARACTERS - 20, MAX_CHARACTERS])
async def test_a_secret_is_masked_before_the_sentence_is_cut(before: int) -> None:
    with pytest.raises(Invalid) as caught:
        await InsideRendering({"complain": complain}).render(
            f"{{{{ ('x' * {before} ~ secret) | complain }}}}",
            {"secret": SECRET},
            redacted=lambda text: text.replace(SECRET, "(not shown)"),
        )
    assert caught.value.sentence.startswith("Cannot render the userdata: line 1: ")
    assert "correct" not in caught.value.sentence and len(caught.value.sentence) < 400


async def test_half_a_character_in_a_mistake_is_not_repeated() -> None:
    with pytest.raises(Invalid, match=r"^Cannot render the userdata: line 1: ValueError: \?\.$"):
        await InsideRendering({"complain": complain}).render(r"{{ '\ud800' | complain }}", {})
