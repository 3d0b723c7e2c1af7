"""Pages of the API in a headless Chromium."""
