"""HTTP: routes are declared as functions; arguments, replies, errors and documents derive from the declarations."""

from pvcd.http.parameters import Document, Flag, Parameter, Path, Place, Value
from pvcd.http.replies import Encoded, Message, Produces, Text
from pvcd.http.routes import Route, Routes

__all__ = [
    "Document",
    "Encoded",
    "Flag",
    "Message",
    "Parameter",
    "Path",
    "Place",
    "Produces",
    "Route",
    "Routes",
    "Text",
    "Value",
]
