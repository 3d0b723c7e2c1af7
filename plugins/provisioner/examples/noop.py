"""Installs nothing: for VMs whose disks are copies, or stay empty until somebody installs from a CD."""


def install(**kwargs):
    print(f"Nothing is installed on {kwargs['vm_name']}.")
