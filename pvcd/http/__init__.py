"""HTTP: routes are declared as functions; values, replies, errors and documents derive from the declarations."""

from pvcd.http.replies import Encoded, Message, Text
from pvcd.http.routes import Document, Flag, Parameter, Path, Place, Route, Routes, Value

__all__ = [
    "Document",
    "Encoded",
    "Flag",
    "Message",
    "Parameter",
    "Path",
    "Place",
    "Route",
    "Routes",
    "Text",
    "Value",
]
