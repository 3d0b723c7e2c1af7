"""The daemons and the command line: from the settings to a process that serves until it is told to stop."""
