"""What the terminal shows: bars there and in a log file, sizes, tables, spreads."""

import io
import sys
import time

import pytest

from cm_jax import terminal
from cm_jax.terminal import Progress


class Terminal(io.StringIO):
    """A file that says that it is a terminal."""

    def isatty(self):
        return True


def shown(monkeypatch, file: io.StringIO, pause: float, **settings) -> str:
    """What a bar of 5 updates writes, with so many seconds before each."""
    monkeypatch.setattr(sys, 'stderr', file)
    with Progress(60, 'sampling', done=10, **settings) as bar:
        for _ in range(5):
            time.sleep(pause)
            bar.show(loss='0.5')
            bar.update(10)
    return file.getvalue()


def test_a_log_file_gets_whole_lines_and_a_short_command_none(monkeypatch):
    assert shown(monkeypatch, io.StringIO(), 0.0) == ''
    monkeypatch.setattr(terminal, 'LOG_SECONDS', 0.01)
    text = shown(monkeypatch, io.StringIO(), 0.02)
    lines = text.splitlines()
    assert '\r' not in text and 2 <= len(lines) <= 7
    assert lines[-1].startswith('sampling 100% 60.0 of 60.0 images, ')
    assert all(' images/s, ' in line and ' left' in line for line in lines)
    assert lines[-1].endswith('loss=0.5')


def test_a_terminal_gets_one_line_that_is_drawn_again(monkeypatch):
    monkeypatch.setattr(terminal, 'BAR_SECONDS', 0.01)
    text = shown(monkeypatch, Terminal(), 0.02)
    assert (
        text.startswith('\rsampling  17%')
        and text.count('\r') >= 3
        and text.count('\n') == 1
        and '100%' in text
    )
    assert shown(monkeypatch, Terminal(), 0.0, active=False) == ''


def test_the_speed_does_not_count_what_an_earlier_attempt_has_done(monkeypatch):
    monkeypatch.setattr(terminal, 'LOG_SECONDS', 0.01)
    monkeypatch.setattr(sys, 'stderr', io.StringIO())
    with Progress(2_000_000, 'training', done=1_000_000) as bar:
        time.sleep(0.1)
        bar.update(10)
    speed = sys.stderr.getvalue().splitlines()[0].split(', ')[1].removesuffix(' images/s')
    assert 0 < float(speed) <= 100


def test_a_bar_of_other_units_has_no_speed(monkeypatch):
    monkeypatch.setattr(terminal, 'LOG_SECONDS', 0.0)
    monkeypatch.setattr(sys, 'stderr', io.StringIO())
    assert list(terminal.progress('ab', 2, 'search', 'generations')) == ['a', 'b']
    (*_, last) = sys.stderr.getvalue().splitlines()
    assert last.startswith('search 100% 2 of 2 generations, ') and '/s' not in last


@pytest.mark.parametrize(
    ('count', 'text'),
    [
        *((0, '0 B'), (999, '999 B'), (1000, '1.0 kB'), (11_380, '11 kB'), (999_600, '1.0 MB')),
        *((9_940_000, '9.9 MB'), (305_284, '305 kB'), (2.5e9, '2.5 GB'), (7e15, '7000 TB')),
    ],
)
def test_sizes_are_in_the_unit_that_suits_them(count, text):
    assert terminal.size(count) == text


def test_spreads_and_tables():
    assert terminal.plus_minus(1.5, None) == '1.5000'
    assert terminal.plus_minus(1.5, 0.25, '.2f') == '1.50 ± 0.25'
    assert terminal.table({'a': '1', 'name': 'x\ny'}).splitlines() == [
        '  a     1',
        '  name  x',
        '        y',
    ]
