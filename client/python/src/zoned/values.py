"""What comes back: results, tables, reports, and the errors.

All of them print readably, and in a notebook draw themselves.
"""
from __future__ import annotations

import html
from typing import Any, Iterator, Mapping, Sequence


class ZonedError(Exception):
    """Anything that zoned, or the way to it, had against a request."""


class CallFailed(ZonedError):
    """No machine was reached: unknown machine, argument out of range, overload, deadline,
    no connection. `code` is gRPC's name for it: NOT_FOUND, INVALID_ARGUMENT, ..."""

    def __init__(self, code: str, details: str):
        super().__init__(f"{code}: {details}")
        self.code = code
        self.details = details


class OpFailed(ZonedError):
    """The machine answered, and not with OK. `result` has all it said."""

    def __init__(self, result: "Result"):
        super().__init__(f"{result.name}: op {result.op}: {result.status}"
                         + (f": {result.detail}" if result.detail else ""))
        self.result = result
        self.status = result.status


class Result(Mapping[str, Any]):
    """What an op answered: a mapping of its named values, also as attributes."""

    def __init__(self, name: str, op: int, status: str, detail: str, values: dict[str, Any]):
        self.name = name      # AllocPages
        self.op = op          # its number on the machine
        self.status = status  # OK, NO_MEMORY, ...
        self.detail = detail  # for people
        self._values = values

    @property
    def ok(self) -> bool:
        return self.status == "OK"

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(f"{self.name} has no {name!r}; "
                                 f"it has {', '.join(self._values) or 'no values'}") from None

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        values = "".join(f" {k}={v!r}" for k, v in self._values.items())
        return f"<{self.name} #{self.op} {self.status}{values}>"


class Table(Sequence[dict[str, Any]]):
    """Rows with named columns: a sequence of dicts, and table["column"] is a list."""

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[Any]],
                 truncated: bool = False):
        self.columns = list(columns)
        self.rows = [tuple(r) for r in rows]
        self.truncated = truncated  # a limit was reached, and there was more

    @classmethod
    def of_dicts(cls, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> "Table":
        columns = list(columns) or (list(rows[0]) if rows else [])
        return cls(columns, [[r.get(c) for c in columns] for r in rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key not in self.columns:
                raise KeyError(f"no column {key!r}; there are {', '.join(self.columns)}")
            at = self.columns.index(key)
            return [r[at] for r in self.rows]
        if isinstance(key, slice):
            return Table(self.columns, self.rows[key])
        return dict(zip(self.columns, self.rows[key]))

    def to_columns(self) -> dict[str, list[Any]]:
        return {c: [r[i] for r in self.rows] for i, c in enumerate(self.columns)}

    def to_pandas(self) -> Any:
        """A pandas.DataFrame; ImportError without pandas."""
        import pandas
        return pandas.DataFrame(self.rows, columns=self.columns)

    def __repr__(self) -> str:
        cells = [self.columns] + [["" if v is None else str(v) for v in r] for r in self.rows[:60]]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        numeric = [all(isinstance(r[i], (int, float)) for r in self.rows if r[i] is not None)
                   for i in range(len(self.columns))]
        lines = ["  ".join(v.rjust(w) if n else v.ljust(w)
                           for v, w, n in zip(row, widths, numeric)).rstrip() for row in cells]
        if len(self.rows) > 60:
            lines.append(f"... {len(self.rows)} rows")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        def row(cells: Sequence[Any], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape('' if c is None else str(c))}</{tag}>"
                                    for c in cells) + "</tr>"
        more = f"<p>{len(self.rows)} rows</p>" if len(self.rows) > 60 else ""
        return ("<table>" + row(self.columns, "th")
                + "".join(row(r, "td") for r in self.rows[:60]) + "</table>" + more)


class Report:
    """An inspection: `text` as Linux prints it, and tables as attributes (zoneinfo().zones)."""

    def __init__(self, word: str, op: int, text: str, truncated: bool, tables: dict[str, Table]):
        self.word = word
        self.op = op                # the machine as it was after this op
        self.text = text
        self.truncated = truncated  # cut at the size of a message: ask for a part
        self.tables = tables

    def __getattr__(self, name: str) -> Table:
        try:
            return self.__dict__["tables"][name]
        except KeyError:
            raise AttributeError(f"{self.word} has no {name!r}; "
                                 f"it has {', '.join(self.tables)}") from None

    def __repr__(self) -> str:
        return self.text or "\n".join(f"{k}:\n{t!r}" for k, t in self.tables.items())

    def _repr_html_(self) -> str:
        if self.text:
            return f"<pre>{html.escape(self.text)}</pre>"
        return "".join(f"<h4>{html.escape(k)}</h4>{t._repr_html_()}" for k, t in self.tables.items())
