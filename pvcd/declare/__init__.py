"""The declarations of plugins, as plain data, and the context that their functions are given."""
