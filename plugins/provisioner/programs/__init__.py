"""Programs that compile scripts and render userdata, which may hang or exhaust memory, and the doors to them."""
