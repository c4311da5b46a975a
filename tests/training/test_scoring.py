"""Scores during training: they are those of `evaluate`, of the weights alone, by one program."""

import dataclasses

import jax
import numpy as np
import pytest

from cm_jax.evaluation import references
from cm_jax.evaluation.scores import Scorer
from cm_jax.sharding import make_mesh
from cm_jax.training.scoring import open_scoring
from cm_jax.training.step import TrainState
from cm_jax.wiring import open_reference, wire
from tests.helpers import tiny
from tests.helpers.refusals import refusal
from tests.helpers.tiny import settings_of

SHAPE = (8, 8, 1)


def settings(**changed):
    """Those of the tiny run, scored every 3 steps on 40 samples; keys such as train__evaluate_every."""
    config = tiny.get_config('edm')
    config.train.update({'evaluate_every': 3, 'evaluate_samples': 40})
    config.sampling.ema = '0.9'
    for name, value in changed.items():
        section, _, key = name.rpartition('__')
        (config[section] if section else config)[key] = value
    return settings_of(config)


@pytest.fixture(scope='module')
def parts():
    return wire(settings(), SHAPE, 10)


def state_of(parts, seed):
    """A state whose weights and average differ; none of the weights is 0, as some are at first."""
    weights, average = (
        jax.tree.map(lambda leaf: leaf + 0.05, parts.model.init(jax.random.key(key)))
        for key in (seed, seed + 1)
    )
    return TrainState(
        step=0,
        params=weights,
        opt_state=(),
        emas={'0.9': average},
        refs=(),
        skipped=0,
        skipped_in_row=0,
    )


def test_scores_are_those_of_evaluate_and_compile_once(parts):
    traced = []

    def denoise(*arguments):
        traced.append(1)
        return parts.generative_model.denoise(*arguments)

    model, mesh = parts.generative_model._replace(denoise=denoise), make_mesh()
    given = settings(evaluation__bytes='truncate')
    scoring = open_scoring(given, model, mesh)
    assert scoring.name == 'fd_lenet_40' and not traced
    score = scoring.start()
    states = {step: state_of(parts, seed) for step, seed in ((3, 0), (6, 2), (12, 4))}
    scores = {step: score(state, step) for step, state in states.items()}
    assert len(traced) == 1
    assert score(states[3], 4) == score(states[3], 11) == {}  # not due; the last step always is
    last = dataclasses.replace(given, steps=11)
    assert open_scoring(last, model, mesh).start()(states[3], 11) == scores[3]

    evaluation = dataclasses.replace(given.evaluation, samples=40)
    space = open_reference(given.dataset, evaluation)
    scorer = Scorer(model, [space], 20, mesh, rule='truncate')
    for step, found in scores.items():
        weights = states[step].emas['0.9']
        row = scorer.score(weights, 'onestep', 40, (given.seed,), ema='0.9', step=step)
        assert found == {'fd_lenet_40': row['fd_lenet']}
    assert len({*(value for found in scores.values() for value in found.values())}) == 3


def test_a_run_that_does_not_ask_for_scores_opens_nothing(parts):
    off = settings(
        train__evaluate_every=0, evaluation__extractor='inception', evaluation__reference='none.npz'
    )
    assert open_scoring(off, parts.generative_model, make_mesh()) is None


def test_what_cannot_be_scored_is_refused_before_anything_is_computed(parts, tmp_path):
    model, mesh = parts.generative_model, make_mesh()
    wide = tmp_path / 'wide.npz'
    np.savez(wide, arr_0=np.zeros((9, 4, 4, 3), np.uint8), mu=np.zeros(84), sigma=np.eye(84))
    for changed, words in (
        ({'evaluation__extractor': ''}, ['no extractor is named', 'config.evaluation.extractor']),
        (
            {'evaluation__extractor': 'inception'},
            ['config.evaluation.weights', 'pt_inception-2015-12-05-6726825d.pth'],
        ),
        ({'evaluation__extractor': 'inception=none.pth'}, ['no weights file none.pth']),
        ({'evaluation__extractor': 'pixel_rgb'}, ["'pixel_rgb'", '1 channels']),
        ({'evaluation__reference': 'none.npz'}, ['no file of reference statistics none.npz']),
        ({'evaluation__reference': 'imagenet-64x64.npz'}, ['https://', 'edm/fid-refs']),
        ({'evaluation__reference': str(wide)}, ['images of 4x4x3', '8x8x1']),
        ({'evaluation__reference': 'valid'}, ["'valid'", 'all, test, train']),
        ({'seed': 1000}, ['config.seed = 1000', '(1000, 1001)', 'reported on']),
    ):
        said = refusal(open_scoring, settings(**changed), model, mesh)
        assert all(word in said for word in words), (changed, said)
        assert '\n' not in said


def test_a_file_of_statistics_gives_the_scores_of_its_split(parts, tmp_path):
    model, mesh = parts.generative_model, make_mesh()
    given = settings()
    extractor, made, _ = open_reference(given.dataset, given.evaluation)
    references.save(tmp_path / 'digits.npz', made, extractor)
    from_file = settings(evaluation__reference=str(tmp_path / 'digits.npz'))
    state = state_of(parts, 0)
    one, other = (open_scoring(s, model, mesh).start()(state, 3) for s in (given, from_file))
    np.testing.assert_allclose(other['fd_lenet_40'], one['fd_lenet_40'], rtol=1e-9)
