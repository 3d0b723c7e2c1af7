"""Install nothing: for VMs whose disks are copies, or stay empty until you install from a CD."""


def install(**kwargs):
    print(f"nothing to install on {kwargs['vm_name']}")
