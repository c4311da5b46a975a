"""The folder of a search opened: its tables and pictures, of earlier versions and under way too."""

import json
import tarfile

import numpy as np
import pytest

from cm_jax.lcsc import selection
from cm_jax.lcsc.opened import open_search
from cm_jax.run import open_run
from tests.helpers.paths import FIXTURES
from tests.helpers.refusals import refusal


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A finished search that an earlier version wrote, with a random search and a landscape."""
    runs = tmp_path_factory.mktemp('stored')
    with tarfile.open(FIXTURES / 'stored_runs.tar.gz') as archive:
        archive.extractall(runs, filter='data')
    return runs / 'lcsc'


def test_a_search_says_what_it_is(folder):
    text = repr(open_search(folder))
    assert 'evolution; minimises fd_lenet of onestep' in text and '3 of runs/stored/ect' in text
    assert 'finished' in text and 'lcsc' in text and '16 scored' in text
    assert '16 scored' in open_search(folder)._repr_html_()


def test_its_tables_are_what_it_wrote(folder):
    search = open_search(folder)
    rows = [json.loads(line) for line in (folder / 'search.jsonl').read_text().splitlines()]
    np.testing.assert_array_equal(
        search.candidates().column('score'), [row['score'] for row in rows]
    )
    labels = [row['profile'] for row in search.candidates() if row['profile']]
    assert labels[0] == 'last' and 'uniform' in labels
    assert len(search.candidates('random')) > 1
    table = search.coefficients()
    winner = json.loads((folder / 'coefficients.json').read_text())
    np.testing.assert_array_equal(table.column('all'), winner['coefficients'])
    assert list(table.column('step')) == winner['steps']
    (ema_star,) = (key for key in table[0] if key.startswith('ema*'))
    np.testing.assert_allclose(table.column(ema_star).sum(), 1)
    report = search.report()
    assert [row['label'] for row in report[-2:]] == ['lcsc', 'lcsc']
    assert repr(report).splitlines()[0].split()[:3] == ['label', 'sampler', 'evaluations']


def test_its_pictures_are_those_of_its_folder(folder):
    search = open_search(folder)
    for figure in (search.plot_progress(), search.plot_coefficients(), search.plot_landscape()):
        axes = figure.axes[0]
        assert axes.get_xlabel() and axes.get_ylabel()


def test_a_search_under_way_shows_what_there_is(folder, tmp_path):
    for name in ('search.json', 'search.jsonl', 'search_state.json'):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert 'no snapshots.json' in refusal(open_search, tmp_path)
    kept = json.loads((folder / 'coefficients.json').read_text())
    del kept['coefficients']
    (tmp_path / 'snapshots.json').write_text(json.dumps(kept))
    assert 'its search is not finished' in refusal(open_run, tmp_path)
    search = open_search(tmp_path)
    assert 'not finished' in repr(search) and search.report() == []
    assert len(search.candidates()) == 16 and search.plot_progress().axes
    assert 'no winner yet' in refusal(search.coefficients)
    assert 'controls.landscape' in refusal(search.plot_landscape)
    (tmp_path / 'search.jsonl').unlink()
    assert '0 scored' in repr(search) and 'no candidate yet' in refusal(search.plot_progress)


def test_a_folder_of_no_search_is_refused(tmp_path):
    assert 'it has no search.json' in refusal(open_search, tmp_path)


def test_groups_are_named_as_their_paths(folder, tmp_path):
    search = open_search(folder)
    patterns = ['^net/conv_in(/|$)', r'^net/a\-b$', 'attn', '']
    grouped = search.__class__(
        workdir=search.workdir,
        settings=search.settings,
        origin={**search.origin, 'groups': patterns},
    )
    assert grouped.groups == ['net/conv_in', 'net/a-b', 'attn', 'rest']
    assert search.groups == ['all']
    assert selection.load_chosen(search.workdir / 'chosen.json').choices
