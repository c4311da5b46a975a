"""Tables: aligned in a terminal, escaped in a notebook, and nothing but lists of dicts to programs."""

import sys

import numpy as np
import pytest

from cm_jax.run.tables import MOST, Table
from tests.helpers.refusals import refusal

ROWS = [
    {'step': 5, 'loss': 0.123456, 'of': {'sampler': 'onestep'}},
    {'step': 12_000, 'loss': None, 'of': {'sampler': 'multistep@80,1'}},
]


def test_a_table_is_the_list_of_its_rows():
    table = Table(ROWS)
    assert table == ROWS and isinstance(table, list)
    np.testing.assert_array_equal(table.column('step'), [5, 12_000])
    np.testing.assert_array_equal(table.column('loss'), [0.123456, np.nan])
    assert list(table.column('of.sampler')) == ['onestep', 'multistep@80,1']
    assert "unknown column 'los' (did you mean 'loss'?)" in refusal(table.column, 'los')


def test_columns_are_aligned_numbers_right_and_words_left():
    assert repr(Table(ROWS, note='two rows')).splitlines() == [
        'two rows',
        '  step    loss  of.sampler',
        '     5  0.1235  onestep',
        '12,000          multistep@80,1',
    ]
    assert repr(Table(ROWS, {'by': 'of.sampler'})).splitlines()[0] == 'by'
    assert repr(Table()) == 'no rows'


def test_a_long_table_shows_its_ends_and_how_much_is_between():
    lines = repr(Table({'i': i} for i in range(MOST + 7))).splitlines()
    assert len(lines) == MOST + 2 and lines[1 + MOST // 2].strip() == '… 7 more'
    assert [lines[1].strip(), lines[-1].strip()] == ['0', str(MOST + 6)]


def test_what_a_notebook_shows_is_escaped():
    html = Table([{'a<b': '<script>'}])._repr_html_()
    assert '&lt;script&gt;' in html and 'a&lt;b' in html and '<script>' not in html


def test_a_frame_has_the_nested_values_as_columns():
    pytest.importorskip('pandas')
    frame = Table(ROWS).frame()
    assert list(frame.columns) == ['step', 'loss', 'of.sampler'] and len(frame) == 2
    assert np.isnan(frame['loss'][1])


def test_without_pandas_a_frame_says_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pandas', None)
    assert 'pip install pandas' in refusal(Table(ROWS).frame)
