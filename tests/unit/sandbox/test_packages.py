"""The packages that the sandbox needs."""

import pytest

from pvcd.errors import Failed
from pvcd_plugins.sandbox.cluster import ALL
from pvcd_plugins.sandbox.packages import NEEDS, check, missing


def test_nothing_is_missing_if_everything_is_installed():
    check(("zookeeper", "redis", "virtlogd", "libvirtd", "api", "node"), there=lambda what: True)


def test_error_names_everything_missing_and_how_to_install_it():
    with pytest.raises(Failed) as error:
        check(("zookeeper", "redis"), there=lambda what: what not in ("java", "redis-server"))
    assert error.value.code == "package-missing"
    assert error.value.sentence == (
        "Cannot start the sandbox: not installed: java, redis-server.\n"
        "Install with: apt-get install default-jre-headless redis-server"
    )


def test_package_with_two_missing_files_is_named_once():
    with pytest.raises(Failed, match=r"apt-get install libvirt-daemon$"):
        check(("virtlogd", "libvirtd"), there=lambda what: what not in ("virtlogd", "libvirtd"))


def test_only_needs_of_the_requested_servers_count():
    assert {need.server for need in missing(("redis",), there=lambda what: False)} == {"all", "redis"}


def test_every_need_names_a_server_of_the_sandbox():
    assert {need.server for need in NEEDS} <= {"all", *ALL}


def test_error_names_the_packages_of_ceph():
    with pytest.raises(Failed, match=r"apt-get install .*ceph-mon ceph-common ceph-mgr ceph-osd"):
        check(("ceph-mon", "ceph-mgr", "ceph-osd"), there=lambda what: False)
