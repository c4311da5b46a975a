"""Rows that show themselves as an aligned table, in a terminal and in a notebook."""

import html
import importlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cm_jax.config import flatten
from cm_jax.errors import UserError, check_name

MOST = 60  # rows that are shown; of a longer table the first and the last half of so many


class Table(list):
    """A list of rows, each a dict, that shows itself as a table with a column for each key.

    Values within values have keys with dots, as 'protocol.sampler'. The table shows the columns
    `columns`, a mapping of their titles to their keys, or all of them if it is None; `note` stands
    above it. Programs read the rows, which may hold more than what is shown.
    """

    def __init__(
        self,
        rows: Iterable[Mapping[str, Any]] = (),
        columns: Mapping[str, str] | None = None,
        note: str = '',
    ):
        super().__init__(rows)
        self.columns, self.note = columns, note

    def column(self, key: str) -> np.ndarray:
        """Returns the values of a key, [N]; numbers as float64, with NaN where a row has none.

        Raises UserError if no row has the key.
        """
        rows = [flatten(row) for row in self]
        check_name('column', key, {name for row in rows for name in row})
        values = [row.get(key) for row in rows]
        if all(value is None or isinstance(value, int | float) for value in values):
            return np.array([math.nan if value is None else value for value in values])
        return np.array(values, object)

    def frame(self) -> Any:
        """Returns the rows as a pandas.DataFrame. Raises UserError if pandas is not installed."""
        try:
            pandas = importlib.import_module('pandas')
        except ImportError:
            raise UserError(
                'pandas is not installed; this installs it: pip install pandas. Without it a table is '
                'a list of dicts, and column(key) returns an array'
            ) from None
        return pandas.DataFrame([flatten(row) for row in self])

    def __repr__(self) -> str:
        titles, cells = self._cells()
        widths = [max(map(len, column)) for column in zip(titles, *cells)]
        is_text = [_is_text(column) for column in zip(*cells)] or [True] * len(titles)

        def line(texts: Sequence[str]) -> str:
            padded = (
                text.ljust(width) if left else text.rjust(width)
                for text, width, left in zip(texts, widths, is_text)
            )
            return '  '.join(padded).rstrip()

        lines = [line(texts) for texts in (titles, *cells)] if self else ['no rows']
        return '\n'.join([*filter(None, [self.note]), *lines])

    def _repr_html_(self) -> str:
        titles, cells = self._cells()
        head = ''.join(f'<th>{html.escape(title)}</th>' for title in titles)
        align = ['left' if _is_text(column) else 'right' for column in zip(*cells)]
        body = ''.join(
            '<tr>'
            + ''.join(
                f'<td style="text-align:{side}">{html.escape(text)}</td>'
                for side, text in zip(align, texts)
            )
            + '</tr>'
            for texts in cells
        )
        note = f'<p>{html.escape(self.note)}</p>' if self.note else ''
        return f'{note}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """Returns the titles of the columns and the texts of the rows that are shown."""
        rows = [flatten(row) for row in self]
        columns = self.columns
        if columns is None:
            columns = {key: key for row in rows for key in row}
        cells = [[_text(row.get(key)) for key in columns.values()] for row in rows]
        if len(cells) > MOST:
            half = MOST // 2
            left_out = [f'… {len(cells) - MOST:,} more', *[''] * (len(columns) - 1)]
            cells = [*cells[:half], left_out, *cells[-half:]]
        return list(columns), cells


def _text(value: Any) -> str:
    """Returns a value as a cell shows it."""
    if value is None:
        return ''
    if isinstance(value, bool | str):
        return str(value) or "''"
    if isinstance(value, int | np.integer):
        return f'{value:,}'
    if isinstance(value, float | np.floating):
        return f'{value:.4g}'
    if isinstance(value, Sequence | np.ndarray):
        texts = [_text(part) for part in value]
        return ', '.join([*texts[:3], '…', *texts[-1:]] if len(texts) > 6 else texts)
    return str(value)


def _is_text(column: Iterable[str]) -> bool:
    """Returns whether a column holds anything else than numbers."""
    texts = [text for text in column if text and not text.startswith('…')]
    return not texts or not all(_is_number(text) for text in texts)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(',', ''))
    except ValueError:
        return False
    return True
