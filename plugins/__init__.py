"""The built-in plugins: what makes a cluster of hypervisors out of the core."""
