"""Each argument, described once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pvcd import Path, Value

NodeName = Annotated[str, Path("Name of the node")]
Reason = Annotated[str, Field(min_length=1, max_length=200), Value("Why it is frozen")]
Question = Annotated[str, Value("What to ask the node")]
