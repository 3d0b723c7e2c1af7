"""Which tests run side by side: one worker runs all of a lane, file by file, so that no server of it is started twice.

Each worker has a network namespace of its own, and in it its own servers, which all its lanes share. A worker that has
nothing left to do takes the next lane in the order below. A file that none of them names is one by itself.
"""

from __future__ import annotations

import itertools
import shlex
from collections import Counter

import pytest
from xdist.scheduler import LoadScopeScheduling

EACH = "each file by itself"
"""Files that need no server of another file's."""
LANES: dict[str, tuple[str, ...]] = {
    "sandbox": (
        "integration/test_provisioner",
        "integration/test_ceph.py",
        "integration/test_metadata.py",
        "integration/test_hook_examples.py",
        "integration/test_site_hooks.py",
    ),
    "second sandbox": (
        "slow/",
        "integration/test_docs_examples.py",
        "integration/test_vm",
        "integration/test_everything_undone.py",
        "hostile/test_connections.py",
        "hostile/test_documents.py",
        "hostile/test_headers.py",
        "hostile/test_limits.py",
        "hostile/test_names.py",
        "hostile/test_networks.py",
        "hostile/test_provisioner.py",
        "manual/",
    ),
    "chaos": ("chaos/",),
    "Ceph": (
        "contract/test_ceph_cluster.py",
        "contract/test_mapping.py",
        "contract/test_install_volumes.py",
        "contract/test_installation.py",
        "hostile/test_install_scripts.py",
        "integration/test_sandbox_ceph.py",
    ),
    "document of the API": ("hostile/test_document_of_the_api.py",),
    "ZooKeeper": (
        "hostile/test_zookeeper_away.py",
        "integration/test_auth.py",
        "integration/test_networks.py",
        "integration/test_two_servers.py",
        "integration/test_worker",
    ),
    EACH: ("contract/", "integration/", "hostile/", "browser/", "scenarios/", "unit/"),
}
PARTS = [(part, lane) for lane, parts in LANES.items() for part in parts]


def place_of(nodeid: str) -> int:
    """Where a test stands among all, by the longest beginning of its name that a lane names."""
    name = nodeid.removeprefix("tests/")
    found = [(len(part), place) for place, (part, _) in enumerate(PARTS) if name.startswith(part)]
    return max(found, default=(0, len(PARTS)))[1]


def lane_of(nodeid: str) -> str:
    return [*(lane for _, lane in PARTS), EACH][place_of(nodeid)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how long each lane took, and how each test that failed is run alone."""
    seconds, failed = Counter[str](), set()
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            seconds[lane_of(report.nodeid)] += report.duration
            failed |= {report.nodeid} if report.failed else set()
    if len(seconds) > 1:
        terminalreporter.section("lanes")
    for lane, taken in seconds.items() if len(seconds) > 1 else ():
        terminalreporter.write_line(f"{taken:6.0f} s  {lane}")
    for nodeid in sorted(failed):
        terminalreporter.write_line(f"again: .venv/bin/pytest {shlex.quote(nodeid)}")


class Lanes(LoadScopeScheduling):
    """Gives whole lanes to workers, in their order."""

    def _split_scope(self, nodeid: str) -> str:
        lane = lane_of(nodeid)
        return nodeid.partition("::")[0] if lane == EACH else lane


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: place_of(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Lanes:
    config.option.loadscopereorder = False  # else the lane with the most tests, not the longest one, would be the first
    return Lanes(config, log)
