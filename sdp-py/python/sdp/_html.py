"""Tables for notebooks."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from enum import Enum
from html import escape
from typing import Any, Iterable, List, Mapping, Sequence, TypeVar

T = TypeVar("T")


def cell(value: Any) -> str:
    """A value as a cell shows it."""
    if value is None or value == [] or value == {}:
        return ""
    if isinstance(value, Enum):
        return escape(str(value.value))
    if isinstance(value, datetime):
        return escape(value.isoformat(sep=" ", timespec="seconds"))
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        return f'<a href="{escape(value, quote=True)}">{escape(value)}</a>'
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return escape(str(value))
    if isinstance(value, Mapping):
        return "<br>".join(f"{escape(str(key))}: {cell(it)}" for key, it in value.items())
    if isinstance(value, (list, tuple)):
        return "<br>".join(cell(it) for it in value)
    return escape(str(value))


def rows(heads: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A table with a head."""
    head = "".join(f"<th>{escape(it)}</th>" for it in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell(it)}</td>" for it in line) + "</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class Shown:
    """Shows its fields as a table in notebooks."""

    def _repr_html_(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        pairs = [(field.name, getattr(self, field.name)) for field in fields if field.repr]
        body = "".join(f"<tr><th>{name}</th><td>{cell(it)}</td></tr>" for name, it in pairs if cell(it))
        return f"<table><caption>{escape(type(self).__name__)}</caption><tbody>{body}</tbody></table>"


class Listing(List[T]):
    """A list that notebooks show as a table."""

    def _repr_html_(self) -> str:
        if not self:
            return "<em>none</em>"
        fields = dataclasses.fields(self[0])  # type: ignore[arg-type]
        names = [field.name for field in fields if field.repr and any(cell(getattr(it, field.name)) for it in self)]
        return rows(names, ([getattr(it, name) for name in names] for it in self))
