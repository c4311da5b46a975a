"""The study of LCSC: its numbers, tables, picture and refusals, from made-up searches."""

import json
import re

import numpy as np
import PIL.Image
import pytest
from etils import epath

from cm_jax.errors import UserError
from cm_jax.reports import study_curves, study_lcsc, study_numbers, study_page, study_tables
from cm_jax.reports.study_searches import METHODS, USES, open_use
from tests.helpers import commands
from tests.helpers.searched import make_search
from tests.helpers.studies import make_run

AVERAGES = {  # as in a report, whose order is another than the tables'
    'last': (20.0, 21.0, 22.0, 2.0),
    'ema 0.5': (12.0, 13.0, 14.0, 1.2),
    'ema 0.9': (11.0, 12.0, 13.0, 1.1),
    'ema* 0.7': (10.0, 10.0, 10.0, 1.0),
    'uniform': (15.0, 15.0, 15.0, 1.5),
    'posthoc0.1': (10.5, 10.5, 10.5, 1.05),
}
FOUND = {  # of seed 0; each seed more is 1 more in every distance but that of pixels
    'random': (9.0, 9.0, 9.0, 0.95),
    'cma_es': (8.5, 9.0, 9.0, 0.95),
    'evolution': (8.0, 9.0, 9.0, 0.9),
    'gradient': (4.0, 12.0, 9.0, 0.9),
    'gradient_two': (4.0, 4.5, 9.0, 0.45),
}


def make_use(folder, run, methods, seeds, **settings):
    for method in methods:
        for seed in range(seeds):
            values = [v + seed for v in FOUND[method][:-1]] + [FOUND[method][-1]]
            is_first = (method, seed) == ('evolution', 0)
            models = (AVERAGES if is_first else {}) | {'lcsc': values}
            cost = {'baselines': 54_000} if is_first else {}
            make_search(folder / method / f'seed{seed}', run, models, method, **settings, **cost)


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """The searches of all uses; nothing writes to them."""
    folder = tmp_path_factory.mktemp('study')
    make_run(folder / 'ect' / 'seed0', [])
    for use, methods in USES.items():
        spec = {
            'consistency_2': 'multistep@80,1',
            'diffusion_9': 'dpm3@9',
            'diffusion_15': 'dpm3@15',
        }
        seeds = 3 if use == 'consistency_1' else 1
        sampler = spec.get(use, 'onestep')
        make_use(folder / 'search' / use, folder / 'ect' / 'seed0', methods, seeds, sampler=sampler)
    make_use(
        folder / 'search' / 'consistency_1' / 'old', folder, ['gradient'], 1
    )  # none of a method
    return epath.Path(folder)


@pytest.fixture(scope='module')
def uses(study):
    return {use: open_use(study / 'search' / use, methods) for use, methods in USES.items()}


@pytest.fixture(scope='module')
def text(uses):
    return study_tables.tables(uses)


def lines(text, title):
    """The lines of a section."""
    section = next(part for part in text.split('### ') if part.startswith(title))
    return section.splitlines()


def test_spreads_are_over_noise_sets_and_over_search_seeds(uses):
    score = study_numbers.found(uses['consistency_1'], 'evolution').scores['fd_lenet']
    assert score.values == [8.0, 9.0, 10.0] and score.mean == 9.0
    assert score.std_search == 1.0 and score.std_noise == pytest.approx(0.5)
    assert study_tables.main_text(score) == '9.00 ± 0.50 ± 1.00'
    assert study_tables.other_text(score) == '9.00 ± 1.00'
    average = study_numbers.ema_star(uses['consistency_1']).scores['fd_lenet']
    assert average == (10.0, 0.5, None, [10.0])
    assert study_tables.other_text(average) == '10.00 ± 0.50'


def test_columns_tell_what_was_searched_by_all_by_some_and_by_none(uses):
    named = study_numbers.columns(uses['consistency_1'])
    assert named.main == 'fd_lenet' and named.some == ['fd_pixel']
    assert named.never == ['fd_lenet_digits_2', 'fd_lenet_fashion_mnist']
    assert named.qualities == ['precision_lenet_digits_2', 'recall_lenet_digits_2']


def test_the_table_of_a_use_has_averages_then_methods_with_their_costs(text):
    section = lines(text, 'A consistency model (ECT), 1 evaluation')
    header, _, *rows = [line.strip('| ').split(' | ') for line in section if line[:1] == '|']
    assert header[0] == 'weights' and header[1] == '`fd_lenet_40`, mean ± noise ± search'
    assert header[2] == '`fd_lenet_digits_2_40`, never searched'
    assert header[4] == '`fd_pixel_40`, searched by gradient (two spaces)'
    assert header[5] == '`precision_lenet_digits_2`' and header[-1] == 'cost'
    labels = ['last', 'ema 0.5', 'ema 0.9', 'ema* 0.7', 'posthoc0.1', 'uniform']
    assert [row[0].strip() for row in rows] == [*labels, *METHODS.values()]
    assert rows[-1][1:5] == ['5.00 ± 0.50 ± 1.00', '5.50 ± 1.00', '10.00 ± 1.00', '0.450 ± 0.000']
    assert rows[-1][-1] == '0.170 + 0.036' and rows[3][1:3] == ['10.00 ± 0.50', '10.00 ± 0.50']
    assert 'the windows and BEMA averages took 0.054 to choose' in '\n'.join(section)


def test_sentences_on_wins_ratios_and_losses(text):
    section = '\n'.join(lines(text, 'A consistency model (ECT), 1 evaluation'))
    assert 'At or below EMA* in `fd_lenet`: random search in 2 of 3; CMA-ES in 2 of 3;' in section
    assert 'gradient (two spaces) in 3 of 3.' in section
    ratios = np.array([4 / 8, 5 / 9, 6 / 10])
    mean = f'{ratios.mean():.2f} ± {ratios.std(ddof=1):.2f}'
    assert (
        f'seed by seed: `fd_lenet` (searched by both) {mean}, `fd_lenet_digits_2` (never' in section
    )
    assert '`fd_pixel` (searched by it) 0.50 ± 0.00.' in section
    assert 'lose to it in a distance never searched: gradient (in `fd_lenet_digits_2`).' in section
    section = '\n'.join(lines(text, 'A diffusion model'))
    assert 'seed by seed: `fd_lenet` (searched by both) 0.50, `fd' in section


def test_no_flag_where_nothing_is_lost(uses):
    use = {name: searches for name, searches in uses['consistency_2'].items() if name != 'gradient'}
    assert study_numbers.losses(use) == {}
    assert study_tables.loss_sentence(use).startswith('No method that gains on EMA* in `fd_lenet`')


def test_the_diffusion_model_is_compared_with_more_evaluations(text):
    section = lines(text, 'The diffusion model')
    assert section[4].startswith('| ema* 0.7 | 15 | 10.00 ± 0.50 |')
    assert section[5].startswith('| ema* 0.7 | 9 |') and section[6].startswith(
        '| random search | 9 |'
    )
    labels = ', '.join(METHODS.values())
    assert f'by the means: in `fd_lenet` {labels}; in `fd_lenet_digits_2`' in section[-2]


def test_costs_count_training_and_search_in_network_evaluations(uses, text):
    training = 12 * 16 * 4
    assert uses['cut']['evolution'].training_cost() == training
    section = lines(text, 'Use (b)')
    ours = section[-3].strip('| ').split(' | ')
    assert ours[:2] == ['trained on, gradient (two spaces)', '4.00 ± 0.50']
    share = f'{training / (2 * training + 206_000):.2f}'
    assert ours[-3:] == [f'{2 * training / 1e6:.3f}', '0.206', share]
    section = lines(text, 'Use (a)')
    assert [line.split(' | ')[0] for line in section[4:8]] == [
        *('| long run, EMA*', '| short run, EMA*', '| short run, evolution'),
        '| short run, gradient (two spaces)',
    ]


def test_a_curve_begins_at_the_best_average_and_ends_at_the_cost(uses):
    curves = study_curves.curves(uses['consistency_1'])
    for method, curve in curves.items():
        profiles = 20_000 if method == 'gradient_two' else 10_000
        assert (curve.evaluations[0], curve.evaluations[-1]) == (profiles, 170_000)
        assert len(curve.values) == 13 and curve.values[0] == 1.0
    assert (np.diff(curves['evolution'].values) <= 0).all()


def test_the_command_writes_tables_numbers_and_picture(study, text):
    out = commands.run('study', f'--workdir={study}', '--lcsc')
    assert (study / 'study.md').read_text() == text and text in out
    stored = json.loads((study / 'study.json').read_text())
    assert list(stored) == list(USES)
    assert [model['method'] for model in stored['diffusion_15']['models']][-1] == 'evolution'
    assert stored['consistency_1']['losses'] == {'gradient': ['fd_lenet_digits_2']}
    assert stored['consistency_1']['models'][-1]['scores']['fd_pixel']['mean'] == 0.45
    assert np.asarray(PIL.Image.open(study / 'study.png')).std() > 0
    folder = epath.Path(study)
    page = study_page.render(folder)
    assert study_page.is_study(folder) and page.count('<svg ') == 1
    tables = sum(re.fullmatch('[-| ]+', line) is not None for line in text.splitlines() if line)
    assert page.count('<table>') == tables + 1 > 2  # and that of the searches
    assert page.count('finished</td>') == len(list(study.glob('search/*/*/seed*')))
    assert 'EMA*' in page


def test_what_is_missing_is_named(tmp_path):
    folder, run = epath.Path(tmp_path), tmp_path / 'run'
    make_run(run, [])
    make_search(tmp_path / 'search' / 'consistency' / 'seed0', run, {'lcsc': (1.0,) * 4})
    with pytest.raises(UserError, match='consistency_1/random holds no seed<k> searches: bash lau'):
        study_lcsc.write(folder)  # of an earlier version
    make_use(tmp_path / 'use', run, ['evolution', 'gradient'], 2)
    use = open_use(folder / 'use', ['evolution', 'gradient'])
    with pytest.raises(
        UserError, match=r'seed1: its report has no ema\* with onestep; it has: lcsc'
    ):
        use['evolution'].rows('ema*')
    (tmp_path / 'use' / 'gradient' / 'seed1').rename(tmp_path / 'use' / 'gradient' / 'seed1.old1')
    with pytest.raises(UserError, match='holds seed0 of gradient, and seed0, seed1 of evolution'):
        open_use(folder / 'use', ['evolution', 'gradient'])
    (tmp_path / 'use' / 'evolution' / 'seed0' / 'report.json').unlink()
    with pytest.raises(UserError, match=r'seed0 has no report.json: its search is not finished'):
        open_use(folder / 'use', ['evolution'])


def test_numbers_that_a_row_does_not_have_are_refused(uses):
    rows = [{'label': 'lcsc', 'fd_lenet': 1.0, 'fd_lenet_std': None}]
    assert study_numbers.score(rows, 'fd_lenet').std_noise is None
    with pytest.raises(
        UserError, match='the row of lcsc in a report has no fd_pixel, which others'
    ):
        study_numbers.score(rows, 'fd_pixel')


def test_scores_of_different_protocols_are_refused(uses):
    first = study_numbers.ema_star(uses['cut'])
    other = {'fd_pixel': first.protocols['fd_pixel'] | {'samples': 41}}
    second = first._replace(protocols=first.protocols | other)
    with pytest.raises(UserError, match='not scored alike in fd_pixel: samples is 41 and 40'):
        study_lcsc.check_comparable({'cut': [first], 'more': [second]})
