"""Other programs: run one to its end, keep one running, confine one. No other room of the core starts any."""

from pvcd.process import stat_fields
from pvcd.programs import confine, supervise
from pvcd.programs.runner import MAX_OUTPUT, ProgramFailed, Result, TooMuchWritten, run, start

__all__ = [
    "MAX_OUTPUT",
    "ProgramFailed",
    "Result",
    "TooMuchWritten",
    "confine",
    "run",
    "start",
    "stat_fields",
    "supervise",
]
