"""For authors of plugins: `pvcd plugin new`, which copies skeleton/, a plugin that works, and `pvcd plugin check`."""
