"""Paths that users write, files of JSON lines, files that are written whole."""

import math
import re

import pytest
from etils import epath

from cm_jax.errors import UserError
from cm_jax.files import (
    append_json_line,
    check_folder,
    drop_json_lines,
    expanded,
    read_json_lines,
    sha256,
    write_text,
)


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


def test_numbers_that_are_not_finite_are_null_however_deep_and_read_as_they_were_returned(folder):
    row = {'a': math.nan, 'values': [1.5, -math.inf], 'of': {'b': (math.inf, 2)}, 'name': 'nan'}
    found = append_json_line(folder / 'rows.jsonl', row)
    assert found == {'a': None, 'values': [1.5, None], 'of': {'b': [None, 2]}, 'name': 'nan'}
    assert read_json_lines(folder / 'rows.jsonl') == [found]
    assert 'NaN' not in (folder / 'rows.jsonl').read_text()


@pytest.mark.parametrize('whole', ['', '{"a": 1}\n', '{"a": 1}\n{"a": 2}\n'])
def test_a_line_without_its_end_makes_room_for_the_next(folder, whole):
    path = folder / 'rows.jsonl'
    path.write_text(whole + '{"a": 1')
    before = read_json_lines(path)
    append_json_line(path, {'a': 3})
    append_json_line(path, {'a': 4})
    assert re.fullmatch(
        re.escape(whole) + r'{"a": 3, "crc32": "\w{8}"}\n{"a": 4, "crc32": "\w{8}"}\n',
        path.read_text(),
    )
    assert read_json_lines(path) == [*before, {'a': 3}, {'a': 4}]


def test_a_file_that_cannot_be_written_is_as_before_and_leaves_nothing_beside(folder):
    (folder / 'name').mkdir()  # in the way
    with pytest.raises(OSError, match='name'):
        write_text(folder / 'name', 'text')
    assert [path.name for path in folder.iterdir()] == ['name']


def test_a_file_is_replaced_whole(folder):
    for text in ('first\n', 'and a second, longer\n', ''):
        write_text(folder / 'name', text)
        assert (folder / 'name').read_text() == text
    assert [path.name for path in folder.iterdir()] == ['name']


def test_no_file_has_no_lines_and_nothing_to_drop(folder):
    assert read_json_lines(folder / 'rows.jsonl') == []
    drop_json_lines(folder / 'rows.jsonl', lambda row: True)
    assert list(folder.iterdir()) == []


def test_rows_of_later_steps_are_dropped_with_a_line_that_was_cut_short(folder):
    path = folder / 'rows.jsonl'
    rows = [{'step': step, 'loss': 0.5} for step in (1, 3, 2, 3, 4)]
    for row in rows:
        append_json_line(path, row)
    path.write_text(path.read_text() + '{"step": 2, "lo')
    drop_json_lines(path, lambda row: row['step'] > 3)
    assert read_json_lines(path) == rows[:4] and path.read_text().endswith('}\n')
    drop_json_lines(path, lambda row: row['step'] > 0)
    assert path.read_text() == ''


def test_a_checksum_is_that_of_the_bytes(folder):
    (folder / 'weights').write_bytes(b'abc')
    known = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    assert sha256(folder / 'weights') == known


def test_the_home_folder_is_written_out_or_refused(monkeypatch):
    monkeypatch.setenv('HOME', '/home/ada')
    assert expanded('~/runs/a') == '/home/ada/runs/a' and expanded('~') == '/home/ada'
    assert expanded('runs/~a') == 'runs/~a' and expanded('./~a') == './~a' and expanded('') == ''
    assert expanded('gs://bucket/~a') == 'gs://bucket/~a'
    with pytest.raises(UserError, match=r"~nobody_here/x: there is no user 'nobody_here'"):
        expanded('~nobody_here/x')


def test_a_folder_is_there_or_can_be_made(folder):
    (folder / 'file').write_text('')
    for name in ('', 'new', 'new/one/within'):
        check_folder(folder / name, '--workdir')
    check_folder(epath.Path('gs://no_such_bucket/run'), '--workdir')
    for place, there in (
        (folder / 'file', folder / 'file'),
        (folder / 'file' / 'x' / 'y', folder / 'file'),
        (epath.Path('/dev/null/x'), '/dev/null'),
    ):
        with pytest.raises(UserError) as raised:
            check_folder(place, '--workdir')
        assert str(raised.value).startswith(f'--workdir={place}: {there} is no folder; ')
