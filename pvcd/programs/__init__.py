"""Other programs: run one to its end, keep one running, confine one."""
