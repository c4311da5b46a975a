"""The page of a run folder: of a run that trains, of one without scores, of damaged rows."""

import json

import pytest

from cm_jax.reports import run_page, samples
from tests.helpers import chromium, tiny
from tests.helpers.run_folders import untrained_run
from tests.helpers.studies import score

STEPS = (1, 2, 3, 5, 8, 9, 10, 12)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A run of twelve steps with metrics, a curriculum and two scored steps; nothing writes to it."""
    config = tiny.get_config('ect')
    config.sampling.ema = '0.9'
    folder = tmp_path_factory.mktemp('run') / 'ect'
    run = untrained_run(folder, config, STEPS)
    rows = [
        {'step': s, 'images': 16 * s, 'images_per_s': 100.0, 'loss': 1 / s, 'distance': 2 / s}
        | ({'fd_lenet_1k': 40.0 - s} if s % 4 == 0 else {})
        for s in range(1, 13)
    ]
    lines = [json.dumps(row) for row in rows]
    lines[3] = '{"step": '  # damaged: it is left out
    (folder / 'metrics.jsonl').write_text('\n'.join(lines))
    scored = [score(7.0 / s, step=s, ema='0.9') for s in (6, 12)]
    (folder / 'scores.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in scored))
    return run


@pytest.fixture(scope='module')
def page(run):
    return run_page.render(run, 3)


def test_the_page_of_a_run_says_what_it_is_and_shows_all_that_it_has(run, page):
    assert '<h1>ECT on digits</h1>' in page and 'trained to its end, step 12.' in page
    assert 'digits, split train: images of 8×8×1, 10 classes' in page
    for title in ('Loss', 'Speed', 'fd_lenet_1k during training', 'fd_lenet over training'):
        assert page.count(f'aria-label="{title}"') == 1
    assert page.count('<svg ') == 4
    assert '1.17</td>' in page and '0.583</td>' in page  # 7/6 and 7/12
    assert page.count('<h3>Protocol ') == 1 and 'seeds 1000' in page
    assert '<th scope="row">ema 0.9</th>' in page


def test_samples_are_of_some_steps_and_of_the_last_average(run, page):
    names = [weights.name for weights in samples.over_trajectory(run)]
    shown = samples.spread(STEPS, samples.STEPS)
    assert shown[0] == 1 and shown[-1] == 12 and len(shown) == samples.STEPS
    assert names == [*(f'step {step}' for step in shown), 'step 12, ema 0.9']
    for name in names:
        assert page.count(f'alt="Samples: {name}"') == 1
    assert page.count('<img ') == len(names)


def test_a_snapshot_that_cannot_be_read_has_a_note_in_its_place(run):
    broken = samples.Weights('step 2', lambda: run.params(7))
    text = samples.draw(
        run, 'onestep', [broken, samples.Weights('step 1', lambda: run.params(1))], 2
    )
    assert 'class="flag">step 2: ' in text and 'has no step 7' in text and text.count('<img ') == 1


def test_a_run_that_still_trains_says_what_is_missing_and_what_makes_it(tmp_path):
    config = tiny.get_config('ect')
    run = untrained_run(tmp_path / 'ect', config, (4,))
    page = run_page.render(run, 0)
    assert f'{tmp_path}/ect: trained to step 4 of 12. The page shows what is there now.' in page
    assert 'No metrics yet: training writes them every' in page
    assert f'python -m cm_jax.evaluate --workdir={tmp_path}/ect --ema=' in page
    assert 'No samples were drawn: --samples=0.' in page and '<img' not in page
    (tmp_path / 'ect' / 'skipped.jsonl').write_text('{"step": 3}\n')
    assert '1 steps were skipped' in run_page.render(run, 0)


def test_weights_that_were_imported_say_from_where(tmp_path):
    run = untrained_run(tmp_path / 'imported', tiny.get_config('edm'), (0,))
    origin = {'made_by': 'import', 'file': 'edm<1>.pkl', 'format': 'pickle', 'layout': 'edm'}
    (tmp_path / 'imported' / 'origin.json').write_text(json.dumps(origin))
    page = run_page.render(run, 0)
    assert 'weights that were not trained in this folder, one step' in page
    assert 'made_by import, file edm&lt;1&gt;.pkl, format pickle' in page
    assert 'No metrics yet' not in page and '<h2>Training</h2>' not in page


@pytest.mark.skipif(not chromium.BINARY, reason=chromium.MISSING)
@pytest.mark.parametrize('width, dark', [(400, True), (1400, False)])
def test_a_browser_shows_all_figures_without_an_error_or_scrolling(page, tmp_path, width, dark):
    file = tmp_path / 'report.html'
    file.write_text(page)
    found = chromium.look(file, width, dark)
    assert (found['width'], found['dark'], found['console']) == (width, dark, [])
    assert found['scrolls_to'] <= width
    assert len(found['images']) == 7 and all(found['images'])
    assert len(found['figures']) == 4 and all(300 < size <= width for size in found['figures'])
    lights = {channels(colour) for colour in found['ink']}
    assert lights and all((light > 128) == dark for light in lights)
    assert (channels(found['page']) < 128) == dark


def channels(colour):
    """The mean of the channels of 'rgb(17, 24, 39)'."""
    red, green, blue = map(int, colour.removeprefix('rgb(').removesuffix(')').split(','))
    return (red + green + blue) / 3


@pytest.mark.skipif(not chromium.BINARY, reason=chromium.MISSING)
def test_the_browser_notices_what_is_wrong(tmp_path):
    file = tmp_path / 'bad.html'
    wide = '<div style="width: 900px">wide</div><img src="none.png"><script>nothing()</script>'
    file.write_text(f'<!DOCTYPE html><html><head></head><body>{wide}</body></html>')
    found = chromium.look(file, 400)
    assert found['scrolls_to'] > 400 and found['images'] == [0]
    assert 'nothing is not defined' in found['console'][0]
