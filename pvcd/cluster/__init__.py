"""How the cluster holds together: presence, the primary lease, node commands, handlers at work, operations, schema."""
