"""What the sandbox needs on a machine."""

import pytest

from pvcd.errors import Failed
from pvcd_plugins.sandbox.cluster import ALL
from pvcd_plugins.sandbox.packages import NEEDS, check, missing


def test_nothing_is_missing_where_everything_is_there():
    check(("zookeeper", "redis", "virtlogd", "libvirtd", "api", "node"), there=lambda what: True)


def test_all_that_is_missing_is_named_at_once_with_the_command_that_installs_it():
    with pytest.raises(Failed) as error:
        check(("zookeeper", "redis"), there=lambda what: what not in ("java", "redis-server"))
    assert error.value.code == "package-missing"
    assert error.value.sentence == (
        "The sandbox needs what is not installed here: java, redis-server.\n"
        "Install it with: apt-get install default-jre-headless redis-server"
    )


def test_a_package_that_brings_two_missing_things_is_named_once():
    with pytest.raises(Failed, match=r"apt-get install libvirt-daemon$"):
        check(("virtlogd", "libvirtd"), there=lambda what: what not in ("virtlogd", "libvirtd"))


def test_only_the_wanted_servers_count():
    assert {need.server for need in missing(("redis",), there=lambda what: False)} == {"all", "redis"}


def test_every_need_names_a_server_of_the_sandbox():
    assert {need.server for need in NEEDS} <= {"all", *ALL}


def test_what_ceph_needs_is_named_with_how_to_install_it():
    with pytest.raises(Failed, match=r"apt-get install .*ceph-mon ceph-common ceph-mgr ceph-osd"):
        check(("ceph-mon", "ceph-mgr", "ceph-osd"), there=lambda what: False)
