"""The plugin interface: what a plugin can add, how plugins are found, and what they declared together."""
