"""The rules for networks, their leases and their ACLs: what may be asked, and what is then written."""
