"""Template filters: functions for userdata templates, `{{ value | name }}`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TemplateFilter:
    """A function of a value and of the arguments in the template.

    Templates are rendered in a separate process, which imports the function's module. So the function must be
    at the top of a module that needs nothing else of its plugin.
    """

    name: str
    doc: str
    function: Callable[..., Any]

    def __post_init__(self) -> None:
        module = sys.modules.get(getattr(self.function, "__module__", None) or "")
        if getattr(module, getattr(self.function, "__name__", ""), None) is not self.function:
            raise TypeError(f"the template filter {self.name!r} must be a function at the top of a module")
        if not self.name.isidentifier():
            raise TypeError(f"the name of a template filter must be an identifier; got {self.name!r}")
