"""The search command's parts: going on after a kill, who is chosen, what is reported, pictures."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest
from etils import epath

from cm_jax.errors import UserError
from cm_jax.files import read_json_lines
from cm_jax.lcsc import ask_tell, generations, job, plots, selection
from cm_jax.lcsc.identity import Identity
from cm_jax.lcsc.profiles import stacked_profiles
from cm_jax.plotting import save_figure
from cm_jax.settings import Budget

K = 6
BUDGET = Budget(generations=5, seed=3)
OPTIMUM = np.array([0.5, -0.4, 0.2, 0.1, -0.1, 0.7])


class Killed(BaseException):
    """What stands for a kill."""


def fitness(coefficients, seed):
    """A quadratic whose optimum moves with the noise; one side has no score."""
    values = np.sum((coefficients - OPTIMUM - 0.01 * seed) ** 2, axis=1)
    return np.where(coefficients[:, 4] > 0.24, np.nan, values)


def start(method='evolution', **settings):
    return ask_tell.init(jax.random.key(0), K, method=method, population=5, **settings)


def killed_after(calls):
    """The fitness of a program that is killed in its call number `calls`."""
    left = iter(range(calls))

    def limited(coefficients, seed):
        if next(left, None) is None:
            raise Killed
        return fitness(coefficients, seed)

    return limited


def files(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def same(a, b):
    assert a._replace(coefficients=0, scores=0, memory=0) == b._replace(
        coefficients=0, scores=0, memory=0
    )
    np.testing.assert_array_equal(a.coefficients, b.coefficients)
    np.testing.assert_array_equal(a.scores, b.scores)


@pytest.fixture
def whole(tmp_path):
    """An uninterrupted search of each method: its last state and its files."""

    def run(method):
        folder = epath.Path(tmp_path / f'whole_{method}')
        folder.mkdir()
        state = generations.run(start(method), fitness, BUDGET, folder, 'search')
        return state, files(folder)

    return run


@pytest.mark.parametrize('method', ['evolution', 'cma_es', 'random'])
def test_a_killed_search_ends_as_if_it_had_not_been(method, whole, tmp_path):
    expected, expected_files = whole(method)
    assert len(expected.scores) == 10 + 5 * 5 and not np.isfinite(expected.scores).all()
    folder = epath.Path(tmp_path)
    for calls in (0, 2, 1):
        with pytest.raises(Killed):
            generations.run(start(method), killed_after(calls), BUDGET, folder, 'search')
    found = generations.run(start(method), fitness, BUDGET, folder, 'search')
    same(found, expected)
    assert files(folder) == expected_files


def test_rows_that_the_state_does_not_know_of_are_written_again(whole, tmp_path):
    """A kill between the rows of a generation and its state, and in the middle of a line."""
    expected, expected_files = whole('evolution')
    folder = epath.Path(tmp_path)
    with pytest.raises(Killed):
        generations.run(start(), killed_after(3), BUDGET, folder, 'search')
    rows = folder / 'search.jsonl'
    lines = expected_files['search.jsonl'].splitlines(keepends=True)
    assert rows.read_text() == ''.join(lines[:20])
    rows.write_text(''.join(lines[:23]) + lines[23][:30])
    same(generations.run(start(), fitness, BUDGET, folder, 'search'), expected)
    assert files(folder) == expected_files


def test_a_finished_search_is_not_searched_again(whole, tmp_path):
    folder = epath.Path(tmp_path)
    first = generations.run(start(), fitness, BUDGET, folder, 'search')
    same(generations.run(start(), killed_after(0), BUDGET, folder, 'search'), first)


def test_no_generation_after_the_profiles_scores_these_alone(tmp_path):
    budget = dataclasses.replace(BUDGET, generations=0)
    state = generations.run(start(), fitness, budget, epath.Path(tmp_path), 'search')
    assert len(state.scores) == 10 and state.generation == 1


# Who is chosen


@pytest.fixture(scope='module')
def searched(tmp_path_factory):
    folder = epath.Path(tmp_path_factory.mktemp('searched'))
    budget = dataclasses.replace(BUDGET, generations=30)
    return generations.run(start(), fitness, budget, folder, 'search')


def test_the_winner_and_the_best_average_are_those_of_selection_noise(searched):
    seeds = (20, 21)
    chosen = selection.choose(searched, fitness, 4, seeds)
    on_selection = np.mean([fitness(searched.coefficients, seed) for seed in seeds], axis=0)
    first, ranked = np.arange(10), ask_tell.ranking(searched.scores)
    among = np.concatenate([first, [i for i in ranked if i >= 10][:4]])
    best = among[np.nanargmin(on_selection[among])]
    np.testing.assert_array_equal(chosen['lcsc'].coefficients, searched.coefficients[best])
    assert chosen['lcsc'].selection_score == on_selection[best]
    assert chosen['lcsc'].search_score == searched.scores[best]
    ema = 1 + np.nanargmin(on_selection[1:9])  # the eight EMA profiles
    np.testing.assert_array_equal(chosen['ema*'].coefficients, searched.coefficients[ema])
    assert chosen['ema*'].profile == ask_tell.profile_identities(searched)[ema]
    assert chosen['lcsc'].selection_score <= chosen['ema*'].selection_score


def test_a_search_whose_finalists_were_lucky_falls_back_on_a_profile(searched):
    """On selection noise every candidate of the search is bad, and a profile wins."""
    profiles, _ = ask_tell.ask(start())

    def unlucky(coefficients, seed):
        known = [any(np.array_equal(c, p) for p in profiles) for c in coefficients]
        return np.where(known, fitness(coefficients, seed), 100.0)

    chosen = selection.choose(searched, unlucky, 4, (20,))
    assert chosen['lcsc'].profile in ask_tell.profile_identities(searched)


def test_nothing_is_chosen_where_nothing_has_a_score(searched):
    with pytest.raises(UserError, match='no candidate has a finite score on selection noise'):
        selection.choose(searched, lambda c, seed: np.full(len(c), np.nan), 4, (20,))


def test_profiles_of_groups_are_the_first_candidates():
    state = start(groups=2)
    candidates, _ = ask_tell.ask(state)
    stacked = stacked_profiles(K, 2, state.settings.ema_rates).reshape(-1, 2 * K)
    np.testing.assert_array_equal(stacked, candidates)
    kinds = [identity.kind for identity in ask_tell.profile_identities(state)]
    assert kinds == ['last', *['ema*'] * 8, 'uniform'] and len(kinds) == len(candidates)


def test_rows_of_candidates_say_which_profile_they_are(whole, tmp_path):
    """Also the rows that earlier versions wrote, which did not."""
    state, _ = whole('evolution')
    folder = epath.Path(tmp_path / 'whole_evolution')
    rows = generations.read_candidates(folder, 'search')
    profiles = [row['profile'] for row in rows]
    assert profiles[:10] == ask_tell.profile_identities(state) and set(profiles[10:]) == {None}
    earlier = [{k: v for k, v in row.items() if k != 'profile'} for row in rows]
    text = ''.join(json.dumps(row) + '\n' for row in earlier)
    (folder / 'search.jsonl').write_text(text)
    assert generations.read_candidates(folder, 'search') == rows


def test_a_choice_is_kept_to_the_last_bit(searched, tmp_path):
    path = epath.Path(tmp_path) / 'chosen.json'
    chosen = selection.Chosen(selection.choose(searched, fitness, 4, (20,)), 'posthoc0.1')
    selection.save_chosen(path, chosen)
    loaded = selection.load_chosen(path)
    assert loaded.posthoc == 'posthoc0.1' and loaded.choices.keys() == chosen.choices.keys()
    for kind, choice in chosen.choices.items():
        np.testing.assert_array_equal(loaded.choices[kind].coefficients, choice.coefficients)
        assert loaded.choices[kind]._replace(coefficients=0) == choice._replace(coefficients=0)


# The report


class Counting:
    """Stands for a Scorer: the score is the weights, and each call is counted."""

    def __init__(self, stop_after=100):
        self.calls, self.left = [], stop_after

    def score(self, params, spec, samples, seeds, *, ema, step):
        if not self.left:
            raise Killed
        self.left -= 1
        self.calls.append((ema, spec))
        return {'fd': params, 'protocol': {'sampler': spec, 'seeds': list(seeds), 'step': step}}


def test_a_report_scores_each_model_once_also_when_it_was_killed(tmp_path):
    ev = types.SimpleNamespace(samplers=('onestep', 'heun@3'), samples=40, seeds=(1, 2))
    path = epath.Path(tmp_path) / 'report.jsonl'
    identities = [Identity(name, f'label {name}') for name in 'abc']
    models = lambda: iter(  # noqa: E731
        [selection.ReportModel(one, lambda one=one: ord(one.kind)) for one in identities]
    )
    with pytest.raises(Killed):
        selection.report_rows(models(), Counting(3), ev, 12, path)
    rest = Counting()
    rows = selection.report_rows(models(), rest, ev, 12, path)
    b, c = 'label b', 'label c'
    assert rest.calls == [(b, 'heun@3'), (c, 'onestep'), (c, 'heun@3')]
    assert [(r['kind'], r['label'], r['protocol']['sampler'], r['fd']) for r in rows] == [
        (*one, spec, ord(one.kind)) for one in identities for spec in ev.samplers
    ]
    assert rows == read_json_lines(path)


def a_run(emas, makes=()):
    """A run whose weights are their names, which stored what `makes` these post-hoc averages."""

    def posthoc(step, name):
        if name not in makes:
            raise UserError(f'{name} is out of the range')

    params = lambda step, ema: (step, ema)  # noqa: E731
    return types.SimpleNamespace(emas=lambda step: emas, posthoc=posthoc, params=params)


def test_the_models_of_a_report():
    lcsc, ema, other = (np.full(3, x) for x in (1.0, 2.0, 3.0))
    choices = {
        kind: selection.Choice(profile, coefficients, 0.0, 0.0)
        for kind, profile, coefficients in (
            ('lcsc', None, lcsc),
            ('ema*', Identity('ema*', 'ema* 0.5'), ema),
            ('random', None, other),
        )
    }
    run, chosen = a_run(['0.9', 'power0.1']), selection.Chosen(choices, 'posthoc0.2')
    models = selection.models(run, [2, 4, 6], '', chosen, lambda c: tuple(c))
    assert {(*one.identity,): one.load() for one in models} == {
        ('last', 'last'): (6, ''),
        ('ema', 'ema 0.9'): (6, '0.9'),
        ('ema', 'ema power0.1'): (6, 'power0.1'),
        ('ema*', 'ema* 0.5'): (2.0, 2.0, 2.0),
        ('uniform', 'uniform'): (1 / 3, 1 / 3, 1 / 3),
        ('posthoc', 'posthoc0.2'): (6, 'posthoc0.2'),
        ('random', 'random'): (3.0, 3.0, 3.0),
        ('lcsc', 'lcsc'): (1.0, 1.0, 1.0),
    }


def test_labels_of_earlier_versions_tell_their_kinds():
    """Their rows had a label, as `model`, and no kind."""
    kinds = {
        **{'last': 'last', 'ema 0.99': 'ema', 'ema power0.1': 'ema', 'ema* 0.94': 'ema*'},
        **{'uniform': 'uniform', 'posthoc0.1': 'posthoc', 'random': 'random', 'lcsc': 'lcsc'},
    }
    rows = selection.read_rows([{'model': label, 'fd': 1.0} for label in kinds])
    assert {row['label']: row['kind'] for row in rows} == kinds
    assert selection.read_rows(rows) == rows


def test_post_hoc_averages_are_those_that_the_run_can_make(capsys):
    run = a_run(['0.9', 'power0.1'], makes=('posthoc0.1',))
    assert selection.posthoc_names(run, 6, (0.1, 0.2)) == ['posthoc0.1']
    assert 'posthoc0.2 is out of the range' in capsys.readouterr().out
    assert selection.posthoc_names(a_run(['0.9']), 6, (0.1, 0.2)) == []
    assert 'the run stored none to make them of at step 6' in capsys.readouterr().out


# What a search is told


@pytest.mark.parametrize(
    'text, expected',
    [
        ('', {}),
        ('kd_lenet', {'kd_lenet': 1.0}),
        ('fd_lenet+100*kd_lenet', {'fd_lenet': 1.0, 'kd_lenet': 100.0}),
        ('0.5*fid + 2*kid', {'fid': 0.5, 'kid': 2.0}),
    ],
)
def test_metrics_of_a_search(text, expected):
    assert job.parse_metric(text) == expected
    with pytest.raises(UserError, match=r'as fd_lenet\+100\*kd_lenet'):
        job.parse_metric('kd_lenet*100')


# Pictures


def test_the_plane_goes_through_its_three_snapshots():
    grid = plots.plane(5, 5)
    grid = grid._replace(x=np.array([0.0, 1.0, 2.0]), y=np.array([0.0, 1.0]))
    rows = grid.coefficients(5, 2)
    assert rows.shape == (6, 10)
    np.testing.assert_allclose(rows[:, :5], rows[:, 5:])
    eye = np.eye(5)
    np.testing.assert_array_equal(rows[[0, 1, 3], :5], eye[[0, 2, 4]])
    np.testing.assert_array_equal(rows[2, :5], 2 * eye[2] - eye[0])
    np.testing.assert_allclose(rows.sum(1), 2)


def test_the_best_so_far_never_rises_and_counts_candidates():
    scores = [None, 5.0, 7.0, 4.0, 6.0]
    rows = [{'generation': g, 'score': s} for g, s in zip((0, 0, 1, 1, 2), scores)]
    counts, best = plots.best_so_far(rows)
    assert counts.tolist() == [2, 4, 5] and best.tolist() == [5.0, 4.0, 4.0]


def test_a_plane_without_a_score_is_drawn_too(tmp_path):
    grid = plots.plane(K, 3)
    figure = plots.landscape(grid, np.full((3, 3), np.nan), range(K), 'fd_lenet')
    save_figure(epath.Path(tmp_path) / 'landscape.png', figure)
    assert (tmp_path / 'landscape.png').stat().st_size > 1000


def test_pictures_are_drawn_whatever_is_missing(tmp_path):
    profile = Identity('ema*', 'ema* 0.5')
    rows = [{'generation': 0, 'score': s, 'profile': profile} for s in (None, -1.0)]
    folder, steps = epath.Path(tmp_path), [10, 20, 30]
    save_figure(folder / 'progress.png', plots.progress(rows, [], 'is'))
    one, two = np.ones((1, 3)), np.ones((2, 3))
    for found in (one, two):
        figure = plots.coefficients(steps, found, ('a', ''), np.ones(3) / 3, 'ema* 0.5')
        save_figure(folder / f'coefficients{len(found)}.png', figure)
    scores = np.array([[1.0, np.nan], [2.0, 3.0]])
    grid = plots.plane(3, 2)
    save_figure(folder / 'landscape.png', plots.landscape(grid, scores, steps, 'fd'))
    assert len(list(folder.glob('*.png'))) == 4
