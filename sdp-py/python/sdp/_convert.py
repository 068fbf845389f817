"""Between JSON and Python's objects: what the native module says, and what it is asked."""

from __future__ import annotations

import dataclasses
import json
import typing
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Type, TypeVar, Union

T = TypeVar("T")

_PLAIN = {str, int, float, bool, type(None)}

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def read_time(text: str) -> datetime:
    """Reads an RFC 3339 time in UTC; a datetime keeps microseconds of it."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}+00:00")


def write_time(time: datetime) -> str:
    """Writes a time with a zone; one without is taken as this machine's local time."""
    return time.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def read_duration(text: str) -> timedelta:
    """Reads ``250ms``, ``30s``, ``15m``, ``2h`` or ``7d``."""
    digits = text.rstrip("mshd")
    return timedelta(seconds=int(digits) * _UNITS[text[len(digits) :]])


def write_duration(duration: Union[str, timedelta]) -> str:
    """Writes a duration in milliseconds; text is taken as it is, and checked where it is read."""
    if isinstance(duration, str):
        return duration
    return f"{round(duration / timedelta(milliseconds=1))}ms"


def seconds(duration: Union[float, timedelta, None]) -> Optional[float]:
    """A time-out in seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else duration


def plain(value: Any) -> Any:
    """A value as JSON has it; what is None is left out of mappings."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return write_time(value)
    if isinstance(value, timedelta):
        return write_duration(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: plain(it) for field in fields if (it := getattr(value, field.name)) not in (None, {})}
    if isinstance(value, Mapping):
        return {key: plain(it) for key, it in value.items() if it is not None}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(it) for it in value]
    return value


def write(value: Any) -> str:
    """JSON for the native module."""
    return "null" if value is None else json.dumps(plain(value))


_decode = json.JSONDecoder().raw_decode


def parse(text: str) -> Any:
    """What the native module's JSON says. There is nothing around it, which ``json.loads`` would look for."""
    return _decode(text)[0]


_Reader = Optional[Callable[[Any], Any]]
_FIELDS: Dict[type, List[Tuple[str, str, _Reader]]] = {}


def _reader(hint: Any) -> _Reader:
    """What makes a value of a field's type from JSON; none when JSON has it already."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Union:
        inner = [it for it in arguments if it is not type(None)]
        return _reader(inner[0]) if len(inner) == 1 else None
    if origin in (list, dict):
        inside = _reader(arguments[-1])
        if inside is None:
            return None
        if origin is list:
            return lambda items: [inside(item) for item in items]
        return lambda items: {key: inside(item) for key, item in items.items()}
    if not isinstance(hint, type):
        return None
    if hint is datetime:
        return read_time
    if hint is timedelta:
        return read_duration
    if issubclass(hint, Enum):
        members = {str(it.value): it for it in hint}
        # What is none of them is an error that says so.
        return lambda value: members.get(value) or hint(value)
    if dataclasses.is_dataclass(hint):
        return lambda data: read(hint, data)
    return None


def _fields(cls: type) -> List[Tuple[str, str, _Reader]]:
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)
    # A name that is a word of Python's has an underscore after it.
    keys = [str(field.metadata.get("key", field.name.rstrip("_"))) for field in fields]
    found = [(field.name, key, _reader(hints[field.name])) for field, key in zip(fields, keys)]
    _FIELDS[cls] = found
    return found


def read(cls: Type[T], data: Mapping[str, Any]) -> T:
    """Makes a dataclass from a JSON object. What the class does not know is passed over."""
    given = {}
    for name, key, reader in _FIELDS.get(cls) or _fields(cls):
        value = data.get(key)
        if value is not None:
            given[name] = reader(value) if reader is not None else value
    return cls(**given)
