"""The report: which rows, which refusals, and a page that needs nothing but itself."""

import html.parser
import io
import json
import types

import numpy as np
import PIL.Image
import pytest

from cm_jax.errors import UserError
from cm_jax.lcsc import plots as search_plots
from cm_jax.lcsc.identity import Identity, of_earlier_label
from cm_jax.metrics.protocol import protocol
from cm_jax.reports import page, plots
from cm_jax.reports import rows as report_rows
from cm_jax.settings import Budget, RunSettings, Sampling, SearchSettings
from cm_jax.types import Extractor
from tests.helpers import commands

LEVELS = {
    'onestep': [80.0],
    'multistep@80,0.8': [80.0, 0.8],
    'heun@3': [80.0, 5.0, 0.002, 0.0],
    'heun@18': [*np.geomspace(80, 0.002, 18), 0.0],
}
EVALUATIONS = {'onestep': 1, 'multistep@80,0.8': 2, 'heun@3': 5, 'heun@18': 35}
EXTRACTOR = Extractor('lenet_digits', 'fd_lenet', 84, None, {}, None, 'c0ffee')
REFERENCE = {
    'source': 'digits',
    'split': 'train',
    'count': 1500,
    'checksum': 'beef',
    'rank_deficient': False,
}
# Of the averages, another one is the best with each sampler.
ONE = {'last': 18.0, 'ema 0.99': 4.0, 'ema* 0.9': 4.2, 'uniform': 6.0, 'lcsc': 3.0}
TWO = {'last': 22.0, 'ema 0.99': 3.4, 'ema* 0.9': 3.5, 'uniform': 3.2, 'lcsc': 2.4}


def scored(value, sampler, ema='', step=12, samples=5000, seeds=(1000, 1001)):
    """A row as `evaluate` stores it."""
    record = protocol(
        EXTRACTOR,
        samples,
        seeds,
        REFERENCE,
        sampler=sampler,
        levels=LEVELS[sampler],
        evaluations=EVALUATIONS[sampler],
        ema=ema,
        step=step,
        labels='index modulo 10',
    )
    values = list(value + 0.1 * np.arange(len(seeds)))
    spread = 0.05 if len(seeds) > 1 else None
    return {'fd_lenet': value, 'fd_lenet_std': spread, 'values': values, 'protocol': record}


def searched(one=ONE, two=TWO):
    """The rows of a search's report.json."""
    return [
        of_earlier_label(name)._asdict() | scored(table[name], sampler, ema=name)
        for name in one
        for sampler, table in (('onestep', one), ('multistep@80,0.8', two))
    ]


def teacher(*rows, sampler='heun@18', ema='0.995'):
    """A run folder that holds scores, and nothing else that is asked for."""
    settings = RunSettings(sampling=Sampling(sampler=sampler, ema=ema))
    return types.SimpleNamespace(
        workdir='runs/teacher', settings=settings, step=lambda: 12, scores=lambda: list(rows)
    )


def entries(**settings):
    entries = report_rows.report_entries(searched(**settings))
    run = teacher(scored(2.0, 'heun@18', ema='0.995'), scored(180.0, 'onestep', ema='0.995'))
    return report_rows.teacher_entries(run, entries[-1].row['protocol']) + entries


def test_the_rows_and_the_best_average_of_each_sampler():
    found = report_rows.results(entries())
    assert json.loads(json.dumps(found)) == found
    shown = [(r['model'], r['steps'], r['evaluations'], r['fd_lenet']) for r in found]
    assert shown == [
        ('teacher', 18, 35, 2.0),
        ('teacher', 1, 1, 180.0),
        ('ect', 1, 1, 18.0),
        ('ema', 1, 1, 4.0),
        ('lcsc', 1, 1, 3.0),
        ('ect', 2, 2, 22.0),
        ('ema', 2, 2, 3.2),
        ('lcsc', 2, 2, 2.4),
    ]
    for row in found:
        assert row['samples'] == 5000 and row['seeds'] == [1000, 1001]
        assert row['fd_lenet_std'] == 0.05
    assert [e.weights for e in entries() if e.model == 'ema'] == ['ema 0.99', 'uniform']


def test_the_teacher_row_is_of_its_average_and_measured_like_the_others():
    like = scored(0.0, 'onestep')['protocol']
    rows = [
        scored(1.0, 'heun@18', ema=''),
        scored(1.1, 'heun@18', ema='0.995', step=6),
        scored(1.2, 'heun@18', ema='0.995', samples=2000),
        scored(1.3, 'heun@18', ema='0.995', seeds=(5,)),
        scored(1.4, 'heun@3', ema='0.995'),
        scored(1.5, 'heun@18', ema='0.995'),
        scored(180.0, 'onestep', ema='0.995', seeds=(5,)),
    ]
    for order in (rows, rows[::-1]):
        many, one = report_rows.teacher_entries(teacher(*order), like)
        assert (many.value, many.steps, many.weights) == (1.5, 18, '0.995')
        assert (one.value, one.score) == (180.0, '180.00')


@pytest.mark.parametrize(
    'rows, sampler',
    [
        ([], 'heun@18'),
        ([scored(1.0, 'onestep', ema='0.995')], 'heun@18'),
        ([scored(1.0, 'heun@18', ema='0.995')], 'onestep'),
    ],
)
def test_a_missing_score_names_the_command_that_makes_it(rows, sampler):
    text = f"cm_jax.evaluate --workdir=runs/teacher --ema='0.995' --sampler={sampler}"
    with pytest.raises(UserError, match=text):
        report_rows.teacher_entries(teacher(*rows), scored(0.0, 'onestep')['protocol'])


def test_scores_of_different_protocols_are_refused_by_name():
    mixed = entries()
    report_rows.check_comparable(mixed)
    mixed[0] = mixed[0]._replace(row=scored(2.0, 'heun@18', ema='0.995', samples=2000))
    with pytest.raises(UserError, match=r'teacher .* samples: 2000 there, 5000 here'):
        report_rows.check_comparable(mixed)


def test_the_terminal_table_is_aligned():
    lines = report_rows.table(entries(), 41).split('\n')
    assert len(lines) == 9 and 'combination of 41 checkpoints' in lines[5]
    starts = {line.rindex('  ') for line in lines}
    assert len(starts) == 1 and lines[5].endswith('3.00 ± 0.05')


def make_page(**settings):
    found = entries(**settings)
    metrics = [{'step': s, 'loss': 1.0 + 1 / s, 'distance': 1 / s} for s in (4, 8, 12)]
    ema_star = Identity('ema*', 'ema* 0.9')
    candidates = [
        {'generation': g, 'profile': None if g else ema_star, 'score': s}
        for g in (0, 1, 2)
        for s in (5.0 - g, None, 9.0)
    ]
    figures = {
        'teacher': plots.training(metrics, 'teacher', None),
        'ect': plots.training(metrics, 'ect', 4),
        'search': search_plots.progress(candidates, [], 'fd_lenet'),
        'coefficients': search_plots.coefficients(
            [4, 8, 12], np.array([[-0.5, 0.5, 1.0]]), ('',), [0.1, 0.3, 0.6], 'ema* 0.9', 4
        ),
    }
    picture = plots.to_png(np.zeros((4, 4, 3), np.uint8))
    return page.Page(
        dataset='<digits>',
        entries=found,
        averages=report_rows.average_entries(searched()),
        grids=[(entry, picture) for entry in found],
        grid_note='the same noise',
        plots={name: plots.to_svg(figure, name) for name, figure in figures.items()},
        stage=4,
        search=SearchSettings(
            budget=Budget(samples=2000, seed=10, selection_seeds=(20, 21), finalists=8)
        ),
        candidates=9,
        snapshots=3,
        facts={'ECT': '768 images'},
        settings={'ECT': {'objective': {'name': '<b>ect'}}},
    )


class Checker(html.parser.HTMLParser):
    """Collects tags with attributes, and asserts that each is closed in order."""

    VOID = ('meta', 'img', 'br', 'link')

    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope='module')
def rendered():
    text = page.render(make_page())
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return text, checker.tags


def test_the_page_needs_nothing_but_itself(rendered):
    text, tags = rendered
    assert 'http:' not in text and 'https:' not in text and '//www' not in text
    assert '@import' not in text and 'url(' not in text.replace('url(#', '')
    assert not {'script', 'link', 'iframe', 'object'} & {tag for tag, _ in tags}
    for _, attributes in tags:
        for name in ('src', 'href', 'xlink:href'):
            assert attributes.get(name, '#').startswith(('#', 'data:image/png;base64,'))


def test_the_page_is_whole_and_escaped(rendered):
    text, tags = rendered
    names = [tag for tag, _ in tags]
    assert names.count('img') == 8 and names.count('svg') == 4
    assert all(attributes['alt'] for tag, attributes in tags if tag == 'img')
    ids = [attributes['id'] for _, attributes in tags if 'id' in attributes]
    used = {a['xlink:href'][1:] for _, a in tags if 'xlink:href' in a}
    assert len(ids) == len(set(ids)) and used <= set(ids)
    assert '&lt;digits&gt;' in text and '&lt;b&gt;ect' in text and '<b>ect' not in text
    for expected in ('seed 10, 2,000 samples', 'seeds 20, 21, as many samples', 'seeds 1000, 1001'):
        assert expected in text


def test_the_summary_says_what_the_numbers_say():
    better = page.summary(make_page()).replace('\u00a0', ' ')
    assert '25 % lower than the best average of weights, ema 0.99' in better
    assert 'lower on 2 of 2 noise seeds' in better and '83 % lower than the last' in better
    assert 'With 2 evaluations it is 2.40, 25 % lower than' in better
    assert '2.00 with 35 evaluations and 180.00 with 1 evaluation' in better
    worse = page.summary(make_page(one=ONE | {'lcsc': 5.0})).replace('\u00a0', ' ')
    assert '25 % higher than the best average' in worse and 'lower on 0 of 2' in worse


def test_grids_are_enlarged_pixel_by_pixel():
    images = np.arange(3 * 2 * 2).reshape(3, 2, 2, 1).astype(np.uint8)
    grid = plots.tile(images, columns=2, scale=3, gap=1)
    assert grid.shape == (13, 13, 3)
    np.testing.assert_array_equal(grid[:6:3, :6:3, 0], images[0, :, :, 0])
    np.testing.assert_array_equal(grid[2:6:3, 9:13:3, 0], images[1, :, :, 0])
    np.testing.assert_array_equal(grid[7::3, :6:3, 1], images[2, :, :, 0])
    assert (grid[6] == 255).all() and (grid[7:, 7:] == 255).all()


def test_the_picture_is_as_wide_as_a_readme_and_shows_the_very_pixels():
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), np.uint8)
    panel = plots.Panel(images, 'LCSC', '1 evaluation', 'fd_lenet 3.00', '#d55e00')
    png = plots.comparison([panel] * 5, 5)
    picture = np.asarray(PIL.Image.open(io.BytesIO(png)).convert('RGB'))
    assert picture.shape[1] == 1200
    grid = plots.tile(images, 5, 5, gap=2)
    np.testing.assert_array_equal(picture[24 : 24 + len(grid), 24 : 24 + grid.shape[1]], grid)


def test_a_missing_run_names_the_command_that_makes_it(tmp_path):
    line = commands.error('report', f'--workdir={tmp_path}')
    assert f'{tmp_path}/teacher has no config.json' in line
    assert f'cm_jax.train --config=configs/digits_edm.py --workdir={tmp_path}/teacher' in line
    for model in ('teacher', 'other'):
        (tmp_path / model / 'trajectory').mkdir(parents=True)
        for name in ('config.json', 'data_card.json'):
            (tmp_path / model / name).write_text('{}')
    line = commands.error('report', f'--workdir={tmp_path}', f'--ect={tmp_path}/other')
    assert f'{tmp_path}/lcsc has no search.json' in line and 'cm_jax.search' in line
