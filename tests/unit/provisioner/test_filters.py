"""What userdata can do with its values."""

from __future__ import annotations

import json

import pytest
import yaml

from pvcd.errors import Invalid
from pvcd_plugins.provisioner.programs import rendering
from pvcd_plugins.provisioner.programs.userdata import FILTERS, RENDERING

from .conftest import Provisioner

ODD = 'a "b": [c]\n- é'
FUNCTIONS = {each.name: each.function for each in FILTERS}


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{ value | b64encode }}", "YSAiYiI6IFtjXQotIMOp"),
        ("{{ value | to_json }}", json.dumps(ODD, ensure_ascii=False)),
        ("{{ value | quote }}", f"'{ODD}'"),
        ("{{ 'a b' | quote }}", "'a b'"),
        ("{{ [1, none, 'x'] | to_json }}", '[1, null, "x"]'),
        ("{{ {'b': [1, 'é'], 'a': none} | to_yaml }}", "b:\n- 1\n- é\na: null"),
        ("{{ 'plain' | to_yaml }}", "plain"),
        ("{{ value | upper }}", ODD.upper()),
    ],
)
def test_a_filter_does_what_it_says(text: str, rendered: str) -> None:
    assert rendering.render(text, {"value": ODD}, FUNCTIONS) == rendered


def test_a_value_comes_through_yaml_unchanged() -> None:
    for name in ("to_json", "to_yaml"):
        assert yaml.safe_load(rendering.render(f"{{{{ value | {name} }}}}", {"value": ODD}, FUNCTIONS)) == ODD


def test_the_filters_of_jinja_stay_what_they_are() -> None:
    assert rendering.render("{{ 'a' | upper }}", {}, {"upper": FUNCTIONS["quote"]}) == "A"


async def test_a_cluster_renders_with_all_filters(provisioner: Provisioner) -> None:
    assert await provisioner.context[RENDERING].render("{{ 'x y' | quote }}", {}) == "'x y'"
    with pytest.raises(Invalid, match="No filter named 'shout'"):
        await provisioner.context[RENDERING].render("{{ 'x' | shout }}", {})
