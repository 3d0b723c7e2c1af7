"""Ceph's JSON, odd cases included, becomes the answers of the door."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pvcd.programs.runner import Result
from pvcd_plugins.ceph.cluster import CephError, answers
from pvcd_plugins.ceph.cluster.programs import words


def dumped(osd: int, **more: Any) -> dict[str, Any]:
    return {"osd": osd, "uuid": f"uuid-{osd}", "up": 1, "in": 1, "primary_affinity": 1, "state": ["exists"], **more}


def node(osd: int, **more: Any) -> dict[str, Any]:
    numbers = {"utilization": 3.5, "var": 1, "pgs": 8, "kb": 1024, "kb_used": 24, "kb_avail": 1000}
    return {"id": osd, "name": f"osd.{osd}", "type": "osd", "crush_weight": 0.5, "reweight": 1, **numbers, **more}


def host(name: str, *osds: int) -> dict[str, Any]:
    return {"id": -3, "name": name, "type": "host", "children": list(osds)}


def test_an_osd_that_never_started_has_no_node() -> None:
    tree = {"nodes": [host("hv1", 0), node(0)], "stray": [node(1, crush_weight=0)]}
    first, second = answers.osds({"osds": [dumped(1, up=0), dumped(0)]}, tree, {})
    assert (first.id, first.node, first.up, first.used_bytes) == (0, "hv1", True, 24 * 1024)
    assert (second.id, second.node, second.up, second.weight) == (1, None, False, 0.0)
    assert first.write_ops is first.read_bytes is None


def test_an_osd_missing_from_one_of_two_answers_is_left_out() -> None:
    tree = {"nodes": [host("hv1", 0, 2), node(0), node(2)], "stray": []}
    found = answers.osds({"osds": [dumped(0), dumped(1)]}, tree, {0: (1.0, 2.0, 3.0, 4.0)})
    assert [(osd.id, osd.write_ops, osd.write_bytes, osd.read_ops, osd.read_bytes) for osd in found] == [
        (0, 1.0, 2.0, 3.0, 4.0)
    ]


def counted(*numbers: int) -> str:
    names = ("op_w", "op_w_in_bytes", "op_r", "op_r_out_bytes")
    return json.dumps({"osd": {"op": 7, **dict(zip(names, numbers, strict=True))}}, indent=4)


def test_the_counters_of_all_osds_that_answer_are_read() -> None:
    text = f"osd.0: {counted(1, 2, 3, 4)}\nosd.12: {counted(5, 6, 7, 8)}\n"
    assert answers.counters(text, [0, 1, 12]) == {0: (1, 2, 3, 4), 12: (5, 6, 7, 8)}
    assert answers.counters(counted(1, 2, 3, 4), [5]) == {5: (1, 2, 3, 4)}
    assert answers.counters("", [0, 1]) == {} == answers.counters("", [0])


def test_rates_are_the_growth_of_the_counters_per_second() -> None:
    before = {0: (10, 100, 0, 0), 1: (50, 0, 0, 0), 2: (1, 1, 1, 1)}
    now = {0: (30, 500, 2, 8), 1: (5, 0, 0, 0), 3: (1, 1, 1, 1)}
    assert answers.rates(before, now, 2.0) == {0: (10.0, 200.0, 1.0, 4.0)}
    assert answers.rates(before, before, 0.0) == {}


def test_volumes_have_their_snapshots_and_odd_names_are_left_out() -> None:
    def row(image: str, **more: Any) -> dict[str, Any]:
        return {"image": image, "id": "1a", "size": 4096, "format": 2, **more}

    parent = {"pool": "vms", "pool_namespace": "", "image": "a", "snapshot": "s"}
    rows = [
        *(row("web", lock_type="exclusive"), row("web", snapshot="two"), row("web", snapshot="one")),
        *(
            row("web", snapshot="o d d"),
            row("my disk"),
            row("-x"),
            row("my disk", snapshot="s"),
            row("a", parent=parent),
        ),
    ]
    a, web = answers.volumes("vms", rows)
    assert (a.name, a.parent, a.locked, a.snapshots) == ("a", "vms/a@s", False, ())
    assert (web.name, web.parent, web.locked, web.snapshots) == ("web", None, True, ("one", "two"))


def test_names_without_an_image_are_read_from_the_error_lines() -> None:
    complaints = (
        "2026-01-02T03:04:05.678+0000 7f89eb7fe6c0 -1 librbd::image::OpenRequest: failed to retrieve initial metadata\n"
        "rbd: error opening half: (2) No such file or directory\n"
        "rbd: error opening busy: (16) Device or resource busy\n"
        "rbd: error opening an odd one: (2) No such file or directory\n"
        "rbd: listing images failed: (2) No such file or directory\n"
    )
    assert answers.unopened(Result(2, b"[]", complaints.encode())) == {"half"}
    assert answers.unopened(Result(0, b"[]", b"")) == set()


def test_pools_with_odd_names_are_left_out() -> None:
    def pool(name: str) -> dict[str, Any]:
        numbers = {"pool": 1, "pg_num_target": 8, "size": 3, "min_size": 2}
        return {"pool_name": name, "application_metadata": {"rbd": {}}, **numbers}

    space = {"max_avail": 1, "bytes_used": 2, "percent_used": 0.5}
    names = ("vms", ".mgr", "new")
    kinds = ("objects", "object_clones", "object_copies", "objects_missing_on_primary", "objects_unfound")
    numbers = dict.fromkeys((*(f"num_{kind}" for kind in kinds), "num_objects_degraded"), 0)
    traffic = dict.fromkeys(("read_ops", "read_bytes", "write_ops", "write_bytes"), 0)
    (found,) = answers.pools(
        {"pools": [pool(name) for name in names]},
        {"pools": [{"name": name, "stats": space} for name in names]},
        {"pools": [{"name": name, **numbers, **traffic} for name in names[:2]]},
    )
    assert (found.name, found.copies, found.mincopies, found.used_percent) == ("vms", 3, 2, 0.5)


def test_the_option_pause_is_read_from_pauserd_and_pausewr() -> None:
    assert answers.options({"flags_set": ["noout", "pauserd", "pausewr", "sortbitwise"]}) == {"noout", "pause"}


def test_output_that_is_not_json_is_a_failure() -> None:
    with pytest.raises(CephError, match="did not answer in JSON: 'oh dear'"):
        answers.document(Result(0, b"oh dear", b""))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Error EINVAL: pool min_size must be 1\n", "pool min_size must be 1"),
        ("rbd: create error: (17) File exists\n", "create error: (17) File exists"),
        ("2026-11-23T15:45:01.5+0000 7f7843d2a380 -1 librbd: it exists\nrbd: no\n\n", "no"),
        ("2026-11-23T15:45:01.5+0000 7f7843d2a380 -1 librbd: it exists.\n", "librbd: it exists"),
        ("Removing image: 0% complete...failed.\nrbd: image has snapshots.\n", "image has snapshots"),
        ("Removing image: 7% complete...failed.\n", ""),
        ("", ""),
    ],
)
def test_the_last_message_for_people_is_found_in_stderr(text: str, said: str) -> None:
    assert words(text) == said
