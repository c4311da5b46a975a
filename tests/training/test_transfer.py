"""Weights of another run: whether they mean the same here, and fit; a teacher and its student."""

import re

import chex
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from cm_jax.errors import UserError
from cm_jax.models import NET
from cm_jax.training.transfer import check_tree, initial_weights, open_frozen
from cm_jax.wiring import OF_TRAINING, weights_meaning, wire
from tests.helpers import tiny
from tests.helpers.refusals import refusal
from tests.helpers.run_folders import untrained_run
from tests.helpers.tiny import settings_of
from tests.helpers.two_networks import wired

SHAPE = (8, 8, 1)


@pytest.fixture(scope='module')
def edm(tmp_path_factory):
    """An EDM run with the steps 1 and 2, not trained."""
    return untrained_run(tmp_path_factory.mktemp('transfer') / 'edm', tiny.get_config('edm'))


@pytest.fixture(scope='module')
def velocity(tmp_path_factory):
    """A run of two networks, the velocity and its prior."""
    folder = tmp_path_factory.mktemp('transfer') / 'catch_up'
    return untrained_run(folder, tiny.get_config('catch_up'))


def settings(objective='ect', section='init_from', run=None, change=None, **of):
    """Of a tiny run; `section` names `run`, with `of`, and `change` is made to the config."""
    config = tiny.get_config(objective)
    if run is not None:
        config[section].update({'workdir': str(run.workdir), **of})
    if change:
        change(config)
    return settings_of(config)


def template(of):
    """The shapes of the weights of a run."""
    return jax.eval_shape(wire(of, SHAPE, 10).model.init, jax.random.key(0))


# What weights mean


def test_what_weights_mean_names_the_prior_and_no_sigma_data():
    config, _ = wired()
    found = weights_meaning(settings_of(config), (8, 8, 1))
    assert found['prior']['name'] == 'song_unet' and 'sigma_data' not in found
    assert 'dropout' not in found['prior'] and 'dropout' not in found['model']
    plain = weights_meaning(settings_of(tiny.get_config('edm')), (8, 8, 1))
    assert plain['prior'] == {} and plain['sigma_data'] == 0.5


def test_the_objective_and_what_only_training_has_do_not_change_what_weights_mean():
    plain = weights_meaning(settings('edm'), SHAPE)
    assert weights_meaning(settings('ect'), SHAPE) == plain
    values = {'dropout': 0.1, 'label_dropout': 0.1, 'dtype': 'bfloat16', 'remat': (8,)}
    values['precision'] = 'high'
    assert values.keys() <= set(OF_TRAINING)
    for key, value in values.items():
        other = settings('edm', change=lambda c, key=key, value=value: c.model.update({key: value}))
        assert weights_meaning(other, SHAPE) == plain, key


def test_a_default_that_is_written_out_changes_nothing():
    written = settings('edm', change=lambda c: c.model.update({'embedding': 'positional'}))
    assert weights_meaning(written, SHAPE) == weights_meaning(settings('edm'), SHAPE)


def test_attention_at_a_height_that_the_network_has_not_means_nothing():
    def attends(*heights):
        return settings('edm', change=lambda c: c.model.update({'attn_resolutions': heights}))

    plain = weights_meaning(attends(), SHAPE)
    assert weights_meaning(attends(16), SHAPE) == plain != weights_meaning(attends(8), SHAPE)
    assert weights_meaning(attends(16, 8), SHAPE) == weights_meaning(attends(8), SHAPE)


# To start from


def test_a_run_that_names_no_other_starts_from_none():
    assert initial_weights(settings(), {}, SHAPE) is None


@pytest.mark.parametrize('step, ema, of', [(None, '', 2), (2, '', 2), (1, '', 1), (None, '0.9', 1)])
def test_a_run_starts_from_the_step_and_average_that_it_names(edm, step, ema, of):
    ours = settings(run=edm, step=step, ema=ema)
    chex.assert_trees_all_equal(initial_weights(ours, template(ours), SHAPE), edm.params(of))


def test_weights_that_mean_something_else_are_refused_by_the_keys_that_differ(edm):
    for change, message in (
        (lambda c: c.model.update({'channels': 8}), r'model\.channels: 4 there, 8 here'),
        (lambda c: c.model.update({'name': 'adm_unet'}), r"model\.name: 'song_unet' there"),
        (lambda c: c.objective.update({'sigma_data': 0.7}), r'sigma_data: 0\.5 there, 0\.7 here'),
        (lambda c: c.process.update({'t_max': 40.0}), r'process\.t_max: 80\.0 there, 40\.0 here'),
        (lambda c: c.update({'class_conditional': False}), 'class_conditional: True there, False'),
    ):
        ours = settings(run=edm, change=change)
        said = refusal(initial_weights, ours, {}, SHAPE)
        assert re.search(message, said), f'must say {message!r}, says {said!r}'
        assert said.startswith(f'config.init_from {edm.workdir} does not fit: ')
    said = refusal(initial_weights, settings(run=edm), {}, (16, 16, 1))
    assert re.search(r'image_shape: \[8, 8, 1\] there, \[16, 16, 1\] here', said)


def test_a_step_or_an_average_that_is_not_there_is_refused(edm):
    assert 'no step 3; there are 1, 2' in refusal(
        initial_weights, settings(run=edm, step=3), {}, SHAPE
    )
    said = refusal(initial_weights, settings(run=edm, ema='0.8'), {}, SHAPE)
    assert "'0.8'" in said and 'legal: 0.9' in said


def test_a_prior_that_is_not_learnt_here_is_left_behind(velocity):
    def without(c):
        c.prior.name = ''

    both = settings('catch_up', run=velocity)
    assert set(initial_weights(both, template(both), SHAPE)) == {NET, 'prior'}
    alone = settings('catch_up', run=velocity, change=without)
    found = initial_weights(alone, template(alone), SHAPE)
    chex.assert_trees_all_equal(found, velocity.params()[NET])


def test_a_scaling_of_skips_may_be_left_behind_and_no_other_may_be_taken(velocity):
    def scaling(value):
        return lambda c: c.model.update({'skip_scaling': value})

    for value in (0.75, None):
        ours = settings('catch_up', run=velocity, change=scaling(value))
        chex.assert_trees_all_equal(initial_weights(ours, template(ours), SHAPE), velocity.params())
    ours = settings('catch_up', run=velocity, change=scaling(0.5))
    said = refusal(initial_weights, ours, {}, SHAPE)
    assert 'model.skip_scaling: 0.75 there, 0.5 here' in said


def flows(name, **model):
    """A change that makes a tiny config one of rectified flow with one head and no prior."""

    def change(c):
        c.prior.name = ''
        c.objective = ConfigDict({'name': name})
        c.model.update({'heads': 1, 'skip_scaling': None, **model})

    return change


def test_weights_of_one_time_start_a_network_of_two_as_the_same_function(tmp_path):
    config = tiny.get_config('catch_up')
    flows('flow')(config)
    flow = untrained_run(tmp_path / 'flow', config)
    ours = settings('catch_up', run=flow, change=flows('mean_flow', times=2))
    found, parts = initial_weights(ours, template(ours), SHAPE), wire(ours, SHAPE, 10)
    x, t = jax.random.normal(jax.random.key(0), (2, *SHAPE)), np.float32([0.5, 0.9])
    theirs = flow.parts.objective.denoise(flow.params(), x, t)
    for denoised in (
        parts.objective.denoise(found, x, t),
        x + t[:, None, None, None] / 0.3 * (parts.objective.jump(found, x, t, t - 0.3) - x),
    ):
        np.testing.assert_allclose(denoised, theirs, atol=1e-5)
    back = settings('catch_up', run=flow, change=flows('flow', times=2))
    assert 'needs config.model.times = 1, got 2' in refusal(wire, back, SHAPE, 10)


def test_a_prior_that_is_not_there_is_refused(velocity, tmp_path):
    config = tiny.get_config('catch_up')
    config.prior.name = ''
    plain = untrained_run(tmp_path / 'plain', config)
    said = refusal(initial_weights, settings('catch_up', run=plain), {}, SHAPE)
    assert 'prior.name' in said and "'song_unet' here" in said


def test_the_first_weight_that_does_not_fit_is_named():
    wanted = {'conv': {'kernel': np.zeros((3, 3, 1, 4)), 'bias': np.zeros(4)}}
    check_tree(wanted, wanted, 'weights of x')
    check_tree(wanted, jax.eval_shape(lambda: wanted), 'weights of x')
    for conv, message in (
        (
            {'kernel': np.zeros((3, 3, 1, 4))},
            r"\['conv'\]\['bias'\] is missing, the network has \(4,\)",
        ),
        (
            {**wanted['conv'], 'kernel': np.zeros((3, 3, 2, 4))},
            r"\['conv'\]\['kernel'\] is \(3, 3, 2, 4\), the network has \(3, 3, 1, 4\)",
        ),
        (
            {**wanted['conv'], 'scale': np.zeros(2)},
            r"\['conv'\]\['scale'\] is \(2,\), the network has no such weight",
        ),
    ):
        with pytest.raises(UserError, match=rf'^weights of x: {message}$'):
            check_tree({'conv': conv}, wanted, 'weights of x')


# To learn from


def test_an_objective_without_a_teacher_has_none():
    found = open_frozen(settings('ect'), SHAPE)
    assert found.teacher_denoise is None and found.lpips is None and found.weights == ()


def test_a_teacher_is_its_denoiser_and_its_weights(edm):
    found = open_frozen(settings('cd', 'teacher', edm, step=1), SHAPE)
    chex.assert_trees_all_equal(found.weights, edm.params(1))
    assert found.lpips is None
    x, t = jax.random.normal(jax.random.key(0), (2, *SHAPE)), np.float32([0.5, 3.0])
    theirs = edm.parts.objective.denoise(edm.params(1), x, t)
    np.testing.assert_array_equal(found.teacher_denoise(found.weights, x, t), theirs)


def test_a_teacher_that_is_missing_or_does_not_fit_is_refused(edm):
    assert refusal(open_frozen, settings('cd'), SHAPE) == (
        "objective 'cd' learns from a teacher: set config.teacher.workdir to its run folder"
    )
    for change, message in (
        (lambda c: c.process.update({'t_max': 40.0}), r'process\.t_max: 80\.0 there, 40\.0 here'),
        (lambda c: c.update({'class_conditional': False}), 'class_conditional: True there, False'),
    ):
        said = refusal(open_frozen, settings('cd', 'teacher', edm, change), SHAPE)
        assert re.search(message, said) and f'config.teacher {edm.workdir} does not fit' in said
    said = refusal(open_frozen, settings('cd', 'teacher', edm), (16, 16, 1))
    assert re.search(r'images: \[8, 8, 1\] there, \[16, 16, 1\] here', said)


def test_a_teacher_of_another_size_or_objective_teaches(edm):
    """Its network, its weights' meaning and its objective are its own."""
    ours = settings('cd', 'teacher', edm, lambda c: c.model.update({'channels': 8}))
    assert open_frozen(ours, SHAPE).teacher_denoise is not None


def test_guidance_needs_classes(edm):
    def change(c):
        c.class_conditional = False
        c.objective.guidance = 2.0

    said = refusal(open_frozen, settings('cd', 'teacher', edm, change), SHAPE)
    assert said == 'config.objective.guidance needs classes: set config.class_conditional'


def test_guidance_needs_a_teacher_that_learnt_without_classes_too(edm, tmp_path):
    def change(c):
        c.objective.guidance = 2.0

    said = refusal(open_frozen, settings('cd', 'teacher', edm, change), SHAPE)
    assert said.startswith('config.objective.guidance = 2.0 needs a teacher that also learnt from')
    assert f'{edm.workdir} has model.label_dropout = 0' in said
    config = tiny.get_config('edm')
    config.model.label_dropout = 0.1
    teacher = untrained_run(tmp_path / 'teacher', config)
    assert open_frozen(settings('cd', 'teacher', teacher, change), SHAPE).teacher_denoise


def test_lpips_without_its_files_is_refused():
    ours = settings('ct', change=lambda c: c.objective.update({'distance': 'lpips'}))
    assert "the path of the file of its features, got ''" in refusal(open_frozen, ours, SHAPE)
