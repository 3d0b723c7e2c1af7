"""The sandbox: a whole cluster of real servers on one machine."""
