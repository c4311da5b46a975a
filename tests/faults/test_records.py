"""Damaged logs and records: one line with file and line and what to do; what can be read is used."""

import json
import re
import shutil
import tarfile
import warnings

import numpy as np
import pytest
from etils import epath

from cm_jax import cli, run_folder
from cm_jax.errors import UserError
from cm_jax.evaluation import references
from cm_jax.evaluation.scores import Reference
from cm_jax.files import append_json_line, drop_json_lines, read_json_lines, write_text
from cm_jax.lcsc import generations, plots, selection
from cm_jax.lcsc.identity import EMA_STAR, UNIFORM
from cm_jax.metrics import moments
from cm_jax.plotting import write_grid
from cm_jax.reports import searches
from cm_jax.run import open_run
from cm_jax.types import Extractor
from cm_jax.weights.write import write_safetensors
from tests.helpers import quadratic_search
from tests.helpers.faults import no_file_beyond
from tests.helpers.paths import FIXTURES
from tests.helpers.refusals import refusal


@pytest.fixture
def rows(tmp_path):
    """A file of five rows."""
    path = epath.Path(tmp_path) / 'metrics.jsonl'
    for step in range(1, 6):
        append_json_line(path, {'step': step, 'loss': 0.5})
    return path


@pytest.fixture(scope='module')
def unpacked(tmp_path_factory):
    """The folder of two run folders without their weights: `ect`, trained, and `lcsc`, searched."""
    folder = tmp_path_factory.mktemp('stored')
    with tarfile.open(FIXTURES / 'stored_runs.tar.gz') as archive:
        files = [one for one in archive if not re.search('/(trajectory|resume)/', one.name)]
        archive.extractall(folder, files, filter='data')
    return folder


@pytest.fixture
def stored(unpacked, tmp_path):
    """A copy of `unpacked` to damage."""
    return epath.Path(shutil.copytree(unpacked, tmp_path / 'runs'))


def damage(path, line, how):
    """Damages one line of a file, from 1."""
    lines = path.read_bytes().split(b'\n')
    lines[line - 1] = how(lines[line - 1])
    path.write_bytes(b'\n'.join(lines))


# Rows


@pytest.mark.parametrize(
    ('how', 'reason'),
    [
        (lambda line: line[:12], 'Expecting property name'),
        (lambda line: b'', None),
        (lambda line: line[:3] + bytes([line[3] ^ 0x80]) + line[4:], "can't decode byte 0xf4"),
        (lambda line: line.replace(b'0.5', b'0.4'), 'not what was written'),
        (lambda line: b'{"loss": 0.5}', "it lacks 'step'"),
        (lambda line: b'[1, 2]', 'no JSON object'),
    ],
    ids=['cut', 'blank', 'no text', 'another number', 'without its step', 'no object'],
)
def test_a_damaged_row_is_named_and_the_others_are_used(rows, how, reason):
    damage(rows, 3, how)
    before = rows.read_bytes()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        found = read_json_lines(rows, 'step')
    assert [row['step'] for row in found] == [1, 2, 4, 5]
    said = [str(warning.message) for warning in caught]
    if reason is None:
        assert said == []
    else:
        (text,) = said
        assert text.startswith(f'{rows}, line 3 is damaged and left out (')
        assert reason in text and text.endswith('mend it or delete it')
    assert rows.read_bytes() == before


@pytest.mark.filterwarnings('ignore:.*is damaged and left out')
def test_a_damaged_row_stays_where_it_is_when_others_are_added_and_dropped(rows):
    damage(rows, 2, lambda line: line[:9] + b'\xff')
    append_json_line(rows, {'step': 6, 'loss': 0.5})
    drop_json_lines(rows, lambda row: row['step'] > 4, 'step')
    assert rows.read_bytes().split(b'\n')[1] == b'{"step": \xff'
    assert [row['step'] for row in read_json_lines(rows)] == [1, 3, 4]


def test_a_last_row_that_lacks_only_its_newline_is_used(rows):
    rows.write_text(rows.read_text().removesuffix('\n'))
    assert [row['step'] for row in read_json_lines(rows)] == [1, 2, 3, 4, 5]
    append_json_line(rows, {'step': 6})
    assert [row['step'] for row in read_json_lines(rows)] == [1, 2, 3, 4, 5, 6]


def writes_grid(path, row):
    write_grid(path, np.random.default_rng(0).integers(0, 256, (4, 64, 64, 1), np.uint8), 2)


def writes_weights(path, row):
    write_safetensors(path, {'a': np.zeros(1000)}, {})


def writes_reference(path, row):
    of = Extractor('made_up', 'fd_made_up', 100, lambda params, x: x, (), None, 'c0ffee')
    references.save(path, Reference(moments.of(np.eye(100)), {}, None, None), of)


@pytest.mark.parametrize(
    'write',
    [
        append_json_line,
        lambda path, row: write_text(path, str(row)),
        writes_grid,
        writes_weights,
        writes_reference,
    ],
    ids=['row', 'text', 'pictures', 'weights', 'statistics'],
)
def test_a_full_disk_leaves_a_file_as_it_was_and_is_told_with_its_name(rows, write):
    before = rows.read_bytes()
    with pytest.raises(OSError, match=re.escape(str(rows))), no_file_beyond(len(before) + 100):
        write(rows, {'long': 'x' * 1000})
    assert rows.read_bytes() == before
    assert [path.name for path in rows.parent.iterdir()] == [rows.name]


def test_a_command_shows_a_warning_as_one_line():
    shown = cli.one_line_warning(UserWarning('a row\n is lost'), UserWarning, 'files.py', 3)
    assert shown == 'warning: a row is lost\n'


# The rows of a run


def test_a_run_with_damaged_rows_opens_and_a_lost_score_is_measured_again(stored):
    ect = open_run(stored / 'ect')
    metrics, scores = ect.metrics(), ect.scores()
    damage(ect.workdir / 'metrics.jsonl', 3, lambda line: line[:40])
    damage(ect.workdir / 'scores.jsonl', 2, lambda line: line[:-30])
    with pytest.warns(UserWarning, match=r'metrics\.jsonl, line 3 is damaged'):
        assert ect.metrics() == [*metrics[:2], *metrics[3:]]
    with pytest.warns(UserWarning, match=r'scores\.jsonl, line 2 is damaged'):
        assert ect.scores() == [scores[0], *scores[2:]]


def test_a_damaged_candidate_moves_no_other_and_the_search_goes_on_from_its_state(stored):
    """The rows of this earlier version name no profiles: these are known by their places."""
    candidates = generations.read_candidates(stored / 'lcsc', 'search')
    path = stored / 'lcsc' / 'search.jsonl'
    damage(path, 2, lambda line: line[:20])
    with pytest.warns(UserWarning, match=r'search\.jsonl, line 2 is damaged'):
        found = generations.read_candidates(stored / 'lcsc', 'search')
    assert found == [candidates[0], *candidates[2:]] and found[1]['profile'] is not None
    state = quadratic_search.start()
    with pytest.warns(UserWarning, match=r'search\.jsonl, line 2 is damaged'):
        resumed = generations.resume(state, stored / 'lcsc', 'search')
    assert len(resumed.scores) == len(candidates)


def test_a_report_needs_no_row_of_a_candidate_for_its_averages(stored):
    whole = opens_search(stored)
    rows = {row['profile']: row['coefficients'] for row in whole.folder.candidates()}
    (stored / 'lcsc' / 'search.jsonl').unlink()
    search = opens_search(stored)
    assert not search.folder.candidates()
    for kind, label in ((EMA_STAR, whole.ema_star), (UNIFORM, UNIFORM)):
        assert search.average(kind).tolist() == pytest.approx(rows[label][: len(whole.steps)])


# Records


def opens_search(folder):
    config = run_folder.read_config(folder / 'lcsc', 'search.json')
    return searches.open_finished(folder / 'lcsc', config, 'x')


def opens(folder):
    open_run(folder / 'ect')


def continues(folder):
    run_folder.is_new(folder / 'ect', {'seed': 0})


def searches_on(folder):
    run_folder.is_new(folder / 'lcsc', {'seed': 0}, run_folder.SEARCH)


def goes_on(folder):
    generations.resume(quadratic_search.start(), folder / 'lcsc', 'search')


def draws(folder):
    plots.read_landscape(folder / 'lcsc', plots.plane(3, 3))


def chooses(folder):
    selection.load_chosen(folder / 'lcsc' / 'chosen.json')


def tuned(folder):
    run = open_run(folder / 'ect')
    (folder / 'ect' / 'tuned_levels.json').write_text('[\n {"step": 12,')
    run.tuned()


BEGIN, SEARCH = 'restore it: the command that made this folder', 'delete it, and report.json'


@pytest.mark.parametrize(
    ('file', 'use', 'remedy'),
    [
        ('ect/config.json', opens, BEGIN),
        ('ect/config.json', continues, BEGIN),
        ('ect/data_card.json', opens, BEGIN),
        ('ect/tuned_levels.json', tuned, 'delete it, and tune the levels again'),
        ('lcsc/search.json', searches_on, BEGIN),
        ('lcsc/search.json', opens_search, BEGIN),
        ('lcsc/search_state.json', goes_on, SEARCH),
        ('lcsc/chosen.json', chooses, SEARCH),
        ('lcsc/chosen.json', opens_search, SEARCH),
        ('lcsc/coefficients.json', opens_search, SEARCH),
        ('lcsc/report.json', opens_search, SEARCH),
        ('lcsc/landscape.json', draws, SEARCH),
    ],
)
def test_a_truncated_record_is_one_line_with_its_place_and_what_to_do(stored, file, use, remedy):
    path = stored / file
    if path.exists():
        use(stored) if use not in (continues, searches_on) else None
        path.write_bytes(path.read_bytes()[: path.stat().length // 2])
    said = refusal(use, stored)
    assert re.match(rf'{path}, line \d+, is damaged \(.+\): {remedy}', said), said
    assert '\n' not in said


def test_a_record_with_another_number_is_told_and_may_be_changed_on_purpose(tmp_path):
    folder = epath.Path(tmp_path)
    config = {'seed': 0, 'model': {'sigma_data': 0.5, 'sizes': (1, 2)}, 'ω': 1e-05, 'rest': None}
    run_folder.write_config(folder, config)
    path = folder / run_folder.CONFIG
    read = run_folder.read_config(folder)
    assert read == config | {'model': {'sigma_data': 0.5, 'sizes': [1, 2]}}
    path.write_text(path.read_text().replace('0.5', '0.7'))
    said = refusal(run_folder.read_config, folder)
    assert f'{path} is damaged (not what was written; if you have changed it, remove its' in said
    path.write_text(re.sub(r',\s+"crc32": "\w+"', '', path.read_text()))
    assert run_folder.read_config(folder)['model']['sigma_data'] == 0.7


@pytest.mark.parametrize('file', ['scores.jsonl', 'chosen.json'])
def test_no_byte_of_a_record_changes_unnoticed(tmp_path, file):
    """A flip of any bit is told of, or has changed nothing that is read."""
    path, record = epath.Path(tmp_path) / file, {'fd': 12.25, 'of': [3, 'a'], 'none': None}
    if path.suffix == '.json':
        run_folder.write_record(path, record)
        read = lambda: [run_folder.read_record(path.parent, file)]  # noqa: E731
    else:
        append_json_line(path, record)
        read = lambda: read_json_lines(path)  # noqa: E731
    whole, noticed = path.read_bytes(), 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            try:
                found = read()
            except UserError:
                caught.append(None)
                found = []
        noticed += bool(caught)
        assert caught or found[0].items() >= record.items(), bytes(damaged)
    assert noticed > 0.8 * 8 * len(whole)


def changed(path, change):
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))


@pytest.mark.parametrize(
    ('file', 'use', 'change', 'reason'),
    [
        ('ect/data_card.json', opens, lambda p: p.pop('image_shape'), "it lacks 'image_shape'"),
        ('lcsc/chosen.json', chooses, lambda p: p.pop('choices'), "it lacks 'choices'"),
        ('lcsc/search_state.json', goes_on, lambda p: p['scores'].pop(), ''),
        ('lcsc/landscape.json', draws, lambda p: p.pop(), 'cannot reshape'),
    ],
)
def test_a_record_of_other_content_is_told_too(stored, file, use, change, reason):
    changed(stored / file, change)
    said = refusal(use, stored)
    assert said.startswith(f'{stored / file} is damaged (') and reason in said, said


def test_a_truncated_report_does_not_count_as_done(stored, capsys):
    path = stored / 'lcsc' / 'report.json'
    assert selection.is_done(stored / 'lcsc')
    path.write_bytes(path.read_bytes()[:-100])
    assert not selection.is_done(stored / 'lcsc')
    assert capsys.readouterr().out == f'  {path} is damaged: it is made again\n'
    path.unlink()
    assert not selection.is_done(stored / 'lcsc')
