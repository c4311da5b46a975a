"""Who is chosen on selection noise, and the rows of the report."""

import dataclasses
import json
import types

import numpy as np
import pytest
from etils import epath

from cm_jax.errors import UserError
from cm_jax.files import read_json_lines
from cm_jax.lcsc import ask_tell, generations, selection
from cm_jax.lcsc.baselines import Baseline
from cm_jax.lcsc.identity import Identity
from cm_jax.lcsc.profiles import stacked_profiles
from cm_jax.lcsc.snapshots import Snapshot
from tests.helpers.quadratic_search import BUDGET, K, Killed, fitness, start

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


def test_a_choice_is_kept_to_the_last_bit(searched, tmp_path):
    path = epath.Path(tmp_path) / 'chosen.json'
    baselines = {
        'window': Baseline(Identity('window', 'window 1-3'), np.array([1 / 3] * 3), 0.1),
        'posthoc': Baseline(Identity('posthoc', 'posthoc0.1'), selection_score=0.2),
    }
    chosen = selection.Chosen(selection.choose(searched, fitness, 4, (20,)), baselines)
    selection.save_chosen(path, chosen)
    loaded = selection.load_chosen(path)
    assert list(loaded.baselines) == list(baselines)
    for kind, one in baselines.items():
        np.testing.assert_array_equal(loaded.baselines[kind].coefficients, one.coefficients)
        assert loaded.baselines[kind]._replace(coefficients=0) == one._replace(coefficients=0)
    assert loaded.choices.keys() == chosen.choices.keys()
    for kind, choice in chosen.choices.items():
        np.testing.assert_array_equal(loaded.choices[kind].coefficients, choice.coefficients)
        assert loaded.choices[kind]._replace(coefficients=0) == choice._replace(coefficients=0)


def test_the_choice_of_an_earlier_version_had_a_post_hoc_average_alone(tmp_path):
    path = epath.Path(tmp_path) / 'chosen.json'
    for name, expected in (('posthoc0.1', ['posthoc0.1']), (None, [])):
        path.write_text(json.dumps({'choices': {}, 'posthoc': name}))
        found = selection.load_chosen(path).baselines
        assert [one.identity.label for one in found.values()] == expected
        assert set(found) <= {'posthoc'}


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
    baselines = {
        'window': Baseline(Identity('window', 'window 4-6'), np.array([0, 0.5, 0.5])),
        'posthoc': Baseline(Identity('posthoc', 'posthoc0.2')),
    }
    run = types.SimpleNamespace(params=lambda step, ema: (step, ema))  # whose weights are names
    snapshots, stored = [Snapshot(step, run) for step in (2, 4, 6)], ['0.9', 'power0.1']
    chosen = selection.Chosen(choices, baselines)
    models = selection.models(snapshots, '', stored, chosen, lambda c: tuple(c))
    assert {(*one.identity,): one.load() for one in models} == {
        ('last', 'last'): (6, ''),
        ('ema', 'ema 0.9'): (6, '0.9'),
        ('ema', 'ema power0.1'): (6, 'power0.1'),
        ('ema*', 'ema* 0.5'): (2.0, 2.0, 2.0),
        ('uniform', 'uniform'): (1 / 3, 1 / 3, 1 / 3),
        ('window', 'window 4-6'): (0, 0.5, 0.5),
        ('posthoc', 'posthoc0.2'): (6, 'posthoc0.2'),
        ('random', 'random'): (3.0, 3.0, 3.0),
        ('lcsc', 'lcsc'): (1.0, 1.0, 1.0),
    }


def test_a_baseline_has_the_same_coefficients_for_every_group_of_weights():
    of_two = selection.Choice(None, np.arange(6.0), 0.0, 0.0)
    window = Baseline(Identity('window', 'window 4-6'), np.array([0, 0.5, 0.5]))
    chosen = selection.Chosen({'lcsc': of_two, 'ema*': of_two}, {'window': window})
    run = types.SimpleNamespace(params=lambda step, ema: (step, ema))
    snapshots = [Snapshot(step, run) for step in (2, 4, 6)]
    models = {
        model.identity.kind: model.load()
        for model in selection.models(snapshots, '', [], chosen, lambda c: tuple(c))
    }
    assert models['window'] == (0, 0.5, 0.5) * 2 and models['uniform'] == (1 / 3,) * 6


def test_labels_of_earlier_versions_tell_their_kinds():
    """Their rows had a label, as `model`, and no kind."""
    kinds = {
        **{'last': 'last', 'ema 0.99': 'ema', 'ema power0.1': 'ema', 'ema* 0.94': 'ema*'},
        **{'uniform': 'uniform', 'posthoc0.1': 'posthoc', 'random': 'random', 'lcsc': 'lcsc'},
    }
    rows = selection.read_rows([{'model': label, 'fd': 1.0} for label in kinds])
    assert {row['label']: row['kind'] for row in rows} == kinds
    assert selection.read_rows(rows) == rows
