"""Reading untrusted TOML and JSON: field by field, with the field's path in every error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from comfy_cpu_core.errors import InputError

__all__ = ["Table"]

_MISSING: Any = object()


class Table:
    """A table of a document, read one field at a time.

    Args:
        values: the table.
        where: what the document is called in errors: its file.
        path: where in the document the table is, empty at the top.
    """

    def __init__(self, values: Mapping[str, Any], where: str, path: str = "") -> None:
        self._values = values
        self._where = where
        self._path = path
        self._asked: set[str] = set()

    def error(self, field: str, problem: str, remedy: str | None = None) -> InputError:
        """An error about a field."""
        return InputError(f"{self._where}: {self.path(field)}: {problem}", remedy=remedy)

    def path(self, field: str) -> str:
        """A field's path in the document."""
        return f"{self._path}.{field}" if self._path else field

    def has(self, field: str) -> bool:
        """Whether the table has the field."""
        return field in self._values

    def text(self, field: str, default: Any = _MISSING, *, like: re.Pattern[str] | None = None, hint: str = "") -> Any:
        """A text, which matches `like` in full; `hint` says what it should look like."""
        value = self._get(field, default)
        if value is default and default is not _MISSING:
            return default
        return self._checked(field, value, like, hint)

    def texts(self, field: str, *, like: re.Pattern[str] | None = None, hint: str = "") -> tuple[str, ...]:
        """A list of texts; empty if it is not there."""
        value = self._get(field, ())
        if not isinstance(value, list | tuple):
            raise self.error(field, f"must be a list of texts, not {_kind(value)}")
        return tuple(self._checked(f"{field}[{index}]", item, like, hint) for index, item in enumerate(value))

    def flag(self, field: str, default: bool) -> bool:
        """A truth value."""
        value = self._get(field, default)
        if not isinstance(value, bool):
            raise self.error(field, f"must be true or false, not {_kind(value)}")
        return value

    def number(self, field: str, default: float | None = None) -> float | None:
        """A number above 0; `default` if it is not there."""
        value = self._get(field, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise self.error(field, f"must be a number above 0, not {value!r}")
        return float(value)

    def count(self, field: str, default: Any = _MISSING) -> Any:
        """A whole number, 0 or more."""
        value = self._get(field, default)
        if value is default and default is not _MISSING:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.error(field, f"must be a whole number, not {value!r}")
        return value

    def mapping(self, field: str, check: Callable[[str, Any], str | None]) -> dict[str, Any]:
        """A table of values with free names; `check` gives what is wrong with a name or its value."""
        value = self._get(field, {})
        if not isinstance(value, Mapping):
            raise self.error(field, f"must be a table, not {_kind(value)}")
        for name, item in value.items():
            if problem := check(name, item):
                raise self.error(f"{field}.{name}", problem)
        return dict(value)

    def table(self, field: str) -> Table:
        """A table inside this one; an empty one if it is not there."""
        value = self._get(field, {})
        if not isinstance(value, Mapping):
            raise self.error(field, f"must be a table, not {_kind(value)}")
        return Table(value, self._where, self.path(field))

    def tables(self, field: str) -> Iterator[Table]:
        """The tables of a list of tables (``[[field]]``)."""
        value = self._get(field, ())
        if not isinstance(value, list | tuple):
            raise self.error(field, f"must be a list of tables, not {_kind(value)}")
        for index, item in enumerate(value):
            if not isinstance(item, Mapping):
                raise self.error(f"{field}[{index}]", f"must be a table, not {_kind(item)}")
            yield Table(item, self._where, f"{self.path(field)}[{index}]")

    def done(self) -> None:
        """Make sure that the table has no other fields than those that were asked for.

        Raises:
            InputError: it has; the error names the field, and one that is near.
        """
        for field in self._values:
            if field not in self._asked:
                near = difflib.get_close_matches(field, self._asked, n=1)
                known = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(self._asked))}"
                raise self.error(field, "there is no such field", known)

    def raw(self, field: str, default: Any = None) -> Any:
        """The value as it is, for what the caller checks itself."""
        return self._get(field, default)

    def _get(self, field: str, default: Any) -> Any:
        self._asked.add(field)
        if field in self._values:
            return self._values[field]
        if default is _MISSING:
            raise self.error(field, "is missing")
        return default

    def _checked(self, field: str, value: Any, like: re.Pattern[str] | None, hint: str) -> str:
        if not isinstance(value, str):
            raise self.error(field, f"must be a text, not {_kind(value)}")
        if like is not None and not like.fullmatch(value):
            raise self.error(field, f"{value!r} will not do here", f"it should look like {hint}" if hint else None)
        return value


def _kind(value: Any) -> str:
    names = {bool: "a truth value", int: "a number", float: "a number", str: "a text", list: "a list", dict: "a table"}
    return names.get(type(value), type(value).__name__)
