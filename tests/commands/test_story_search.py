"""What a search leaves, killed or not, and what it is compared with, on the story's run of seconds."""

import json
import shutil
import time

import jax
import numpy as np
import PIL.Image
import pytest
from etils import epath

from cm_jax.lcsc import combine
from cm_jax.reports import search_page
from cm_jax.run import open_run
from tests.helpers import commands
from tests.helpers.run_folders import unchecked
from tests.helpers.story import search_arguments

pytestmark = pytest.mark.devices


def test_the_result_of_a_search_is_a_run_that_opens(story):
    run, source = open_run(story / 'lcsc'), open_run(story / 'ect')
    record = json.loads((story / 'lcsc' / 'coefficients.json').read_text())
    assert record['steps'] == [2, 4, 6, 8, 10, 12] and run.steps() == [12]
    assert abs(sum(record['coefficients']) - 1) < 1e-9
    assert record['groups'] == ['']
    combined = combine.combine(source.params, record['steps'], record['coefficients'])
    found = run.sample(run.params(), 'onestep', 4, seed=5)
    np.testing.assert_array_equal(found, source.sample(combined, 'onestep', 4, seed=5))


def test_the_search_writes_every_candidate_and_uses_three_noises(story):
    lines = (story / 'lcsc' / 'search.jsonl').read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row['generation'] for row in rows] == [0] * 10 + [1] * 3 + [2] * 3
    assert all(abs(sum(row['coefficients']) - 1) < 1e-9 for row in rows)
    report = json.loads((story / 'lcsc' / 'report.json').read_text())
    best = min(row['score'] for row in rows)
    assert report['lcsc_search_score'] >= best
    assert report['searched'] == ['fd_lenet']
    assert report['second'] == ['fd_lenet_fashion_mnist', 'fd_pixel']
    assert {tuple(r['protocol']['seeds']) for r in report['rows']} == {(1000, 1001)}
    evaluations = 40 * (10 + 2 * 3), 40 * 2 * (10 + 2), 40 * 2 * (2 + 2)
    assert report['cost'] == dict(zip(('search', 'selection', 'baselines'), evaluations))


def test_the_report_of_a_search_has_every_control_and_its_pictures(story):
    folder = story / 'lcsc'
    rows = json.loads((folder / 'report.json').read_text())['rows']
    who = [(r['kind'], r['label']) for r in rows if r['protocol']['sampler'] == 'onestep']
    own = [('ema', 'ema 0.5'), ('ema', 'ema 0.9'), ('ema', 'ema power0.1')]
    assert who[:4] == [('last', 'last'), *own]
    kinds = ['ema*', 'uniform', 'window', 'bema', 'posthoc', 'random', 'lcsc']
    assert [kind for kind, _ in who[4:]] == kinds
    assert all(label.startswith(kind) for kind, label in who)
    assert len({row['protocol']['id'] for row in rows}) == 1
    random = (folder / 'random.jsonl').read_text().splitlines()
    assert len(random) == len((folder / 'search.jsonl').read_text().splitlines())
    for name in ('progress', 'coefficients', 'landscape', 'samples/lcsc'):
        assert np.asarray(PIL.Image.open(folder / f'{name}.png')).std() > 0
    assert len(json.loads((folder / 'landscape.json').read_text())['scores']) == 9


def test_scanned_baselines_are_no_candidates(story):
    """The search and its starting profiles are to the last bit those of a search without them."""
    folder = story / 'lcsc'
    arguments = search_arguments(story, controls=['--config.controls.posthoc=()'])
    commands.run('search', *arguments, f'--workdir={story}/alone')
    for name in ('search.jsonl', 'random.jsonl'):
        assert (story / 'alone' / name).read_text() == (folder / name).read_text()
    report = json.loads((story / 'alone' / 'report.json').read_text())
    assert not {row['kind'] for row in report['rows']} & {'window', 'bema', 'posthoc'}
    assert set(report['cost']) == {'search', 'selection'}


def test_a_search_that_was_killed_after_choosing_keeps_its_baselines(story, tmp_path):
    """It reports the baseline that chosen.json names, here another one than it would choose."""
    folder = tmp_path / 'lcsc'
    shutil.copytree(story / 'lcsc', folder)
    for name in ('report.json', 'report.jsonl'):
        (folder / name).unlink()
    chosen = json.loads((folder / 'chosen.json').read_text())
    window = chosen['baselines']['window']
    window |= {'label': 'window 12-12', 'coefficients': [0, 0, 0, 0, 0, 1]}
    (folder / 'chosen.json').write_text(json.dumps(unchecked(chosen)))
    commands.run('search', *search_arguments(story), f'--workdir={folder}')
    rows = json.loads((folder / 'report.json').read_text())['rows']
    values = {row['kind']: row['values'] for row in rows[::2]}
    assert 'window 12-12' in {row['label'] for row in rows}
    np.testing.assert_allclose(values['window'], values['last'], rtol=1e-6)
    before = json.loads((story / 'lcsc' / 'report.json').read_text())['rows']
    bema, same = ([row for row in some if row['kind'] == 'bema'] for some in (rows, before))
    assert bema == same


@pytest.mark.slow
def test_a_search_that_was_killed_three_times_ends_as_if_it_had_not_been(story, tmp_path):
    """In the search, in its random search and in its report; by SIGKILL."""
    folder = tmp_path / 'lcsc'
    arguments = [*search_arguments(story), f'--workdir={folder}']
    for name, lines in (('search.jsonl', 11), ('random.jsonl', 12), ('report.jsonl', 3)):
        process = commands.start('search', *arguments)
        while not (folder / name).exists() or (folder / name).read_text().count('\n') < lines:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.wait()
        process.communicate()
    commands.run('search', *arguments)
    for name in ('search.jsonl', 'random.jsonl', 'landscape.json', 'chosen.json', 'report.json'):
        assert (folder / name).read_text() == (story / 'lcsc' / name).read_text(), name
    weights = (open_run(path).params() for path in (folder, story / 'lcsc'))
    jax.tree.map(np.testing.assert_array_equal, *weights)


def test_training_goes_on_from_the_result_of_a_search(story, tmp_path):
    commands.run(
        'train',
        '--config=tests/helpers/tiny.py:ect',
        f'--workdir={tmp_path}/more',
        f'--config.init_from.workdir={story}/lcsc',
        '--config.steps=2',
    )
    more = open_run(tmp_path / 'more')
    assert more.steps() == [0, 2]
    jax.tree.map(np.testing.assert_array_equal, more.params(0), open_run(story / 'lcsc').params())


def test_the_page_of_a_search_says_what_was_searched(story):
    commands.run('report', f'--workdir={story}/lcsc', '--samples=2')
    text = (story / 'lcsc' / 'report.html').read_text()
    assert text.count('<img ') == 3 and text.count('<svg ') == 3
    assert text.count('aria-label="LCSC (evolution): landscape"') == 1
    assert 'did not use fd_lenet_fashion_mnist and fd_pixel' in text
    assert '<h3>fd_lenet: searched</h3>' in text and '<h3>fd_pixel: a second opinion</h3>' in text
    rows = json.loads((story / 'lcsc' / 'report.json').read_text())['rows']
    assert text.count('*</td>') == sum(row['kind'] in ('random', 'lcsc') for row in rows)
    shown = [f'{row["fd_lenet"]:.2f} ± {row["fd_lenet_std"]:.2f}' for row in rows]
    assert all(number in text for number in shown)


def test_the_page_of_a_search_that_is_not_finished_has_its_progress(story, tmp_path):
    folder = tmp_path / 'lcsc'
    folder.mkdir()
    for name in ('search.json', 'snapshots.json', 'search.jsonl', 'search_state.json'):
        shutil.copy(story / 'lcsc' / name, folder / name)
    with (folder / 'search.jsonl').open('a') as file:
        file.write('{"generation": 3, "sc')  # as a killed program leaves it
    text = search_page.render(epath.Path(folder), 2)
    assert '16 candidates scored, generation 2 of 2' in text
    assert 'There is no report.json yet' in text and text.count('<svg ') == 1
    (folder / 'search.jsonl').unlink()
    assert 'No candidate was scored yet' in search_page.render(epath.Path(folder), 2)


def test_a_finished_search_says_so_and_another_is_refused(story):
    assert 'is done' in commands.run('search', *search_arguments(story))
    line = commands.error('search', *search_arguments(story), '--config.seed=9')
    assert 'seed: 0 there, 9 here' in line
