"""Each argument of the API, described once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pvcd import Path, Value

NodeName = Annotated[str, Path("Name of the node")]
Text = Annotated[str, Field(min_length=1, max_length=200), Value("Text of the note")]
TaskId = Annotated[str, Path("ID of the task")]
