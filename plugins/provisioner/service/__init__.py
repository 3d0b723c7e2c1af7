"""The rules of the provisioner: what may be asked for, and what is then written."""

from pvcd_plugins.provisioner.service.catalogue import create, find, remove
from pvcd_plugins.provisioner.service.creation import (
    cancel,
    create_vm,
    follow_log,
    get_status,
    list_tasks,
    plan,
    read_log,
    request_for,
)
from pvcd_plugins.provisioner.service.profiles import create_profile, storage_template_of
from pvcd_plugins.provisioner.service.scripts import create_script, replace_script
from pvcd_plugins.provisioner.service.templates import (
    DiskOptions,
    add_disk,
    add_net,
    create_network,
    create_system,
    create_userdata,
    find_disk,
    find_net,
    remove_disk,
    remove_net,
    remove_userdata,
    replace_userdata,
)

# fmt: off
__all__ = [
    "DiskOptions", "add_disk", "add_net", "cancel", "create", "create_network", "create_profile", "create_script",
    "create_system", "create_userdata", "create_vm", "find", "find_disk", "find_net", "follow_log", "get_status",
    "list_tasks", "plan", "read_log", "remove", "remove_disk", "remove_net", "remove_userdata", "replace_script",
    "replace_userdata", "request_for", "storage_template_of",
]
# fmt: on
