"""Other programs: run one, keep one running, confine one. No other room of the core starts programs."""

from pvcd.process import stat_fields
from pvcd.programs import confine, supervise
from pvcd.programs.locks import ProgramLocks
from pvcd.programs.runner import MAX_OUTPUT_BYTES, ProgramFailed, Result, TooMuchWritten, run, start

__all__ = [
    "MAX_OUTPUT_BYTES",
    "ProgramFailed",
    "ProgramLocks",
    "Result",
    "TooMuchWritten",
    "confine",
    "run",
    "start",
    "stat_fields",
    "supervise",
]
