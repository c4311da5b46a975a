"""Wiring: settings become what they describe, and what does not fit is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from cm_jax import models
from cm_jax.errors import UserError
from cm_jax.settings import Evaluation
from cm_jax.training.setup import set_up
from cm_jax.training.summary import describe
from cm_jax.wiring import (
    net_params,
    open_data,
    open_reference,
    open_spaces,
    prior_settings,
    wire,
)
from tests.helpers import tiny
from tests.helpers.refusals import refusal
from tests.helpers.tiny import settings_of
from tests.helpers.two_networks import wired

SHAPE = (8, 8, 1)


def test_two_networks_are_one_model():
    config, parts = wired()
    params = parts.model.init(jax.random.key(0))
    assert set(params) == {models.NET, 'prior'}
    own = net_params(settings_of(config), params)
    plain_config, plain = wired(prior=False)
    bare = jax.eval_shape(plain.model.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(lambda leaf: leaf.shape, bare)
    assert net_params(settings_of(plain_config), own) is own
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), jnp.array([0.4, 0.9])
    label = jnp.array([1, 2])
    found = parts.objective.denoise(params, x, t, label)
    np.testing.assert_array_equal(found, plain.objective.denoise(own, x, t, label))
    other = params | {'prior': jax.tree.map(lambda leaf: leaf + 1, params['prior'])}
    np.testing.assert_array_equal(found, parts.objective.denoise(other, x, t, label))


def test_a_network_may_be_guided_if_it_was_trained_without_labels_too():
    for network, guidable in (
        ({}, False),
        ({'label_dropout': 0.0}, False),
        ({'label_dropout': 0.1}, True),
    ):
        config = tiny.get_config()
        config.model.update(network)
        assert wire(settings_of(config), SHAPE, 10).generative_model.guidable is guidable


@pytest.mark.parametrize(
    'change, message',
    [
        (
            lambda c: c.model.update({'heads': 1}),
            r"'catch_up' needs config\.model\.heads = 2, got 1",
        ),
        (
            lambda c: c.prior.update({'name': 'adm_unet'}),
            "network of a prior 'adm_unet'.*song_unet",
        ),
        (lambda c: c.prior.update({'heads': 3}), r'unknown key config\.prior\.heads'),
        (lambda c: c.prior.update({'chanels': 3}), r"config\.prior\.chanels.*mean 'channels'"),
        (lambda c: c.process.update({'t_max': 2.0}), r't_max in \(0, 1\], got 2.0'),
    ],
)
def test_networks_that_do_not_fit_are_refused(change, message):
    config = tiny.get_config('catch_up')
    change(config)
    with pytest.raises(UserError, match=message):
        wire(settings_of(config), (8, 8, 1), 10)


def test_a_prior_is_refused_where_none_is_taken():
    config = tiny.get_config('ect')
    config.prior.update({'name': 'song_unet', 'channels': 4, 'channel_mult': (1,)})
    with pytest.raises(UserError, match=r"'ect' takes no prior; config\.prior must be empty"):
        wire(settings_of(config), (8, 8, 1), 10)


# What settings describe


def test_settings_become_process_network_objective_and_generative_model():
    config = tiny.get_config('ect')
    parts = wire(settings_of(config), SHAPE, 10)
    assert (parts.process.name, parts.process.t_max) == ('ve', 80.0)
    model = parts.generative_model
    assert (model.image_shape, model.num_classes, model.heads) == (SHAPE, 10, ())
    assert model.process is parts.process and model.denoise is parts.objective.denoise


def test_labels_are_used_if_the_run_is_class_conditional():
    config = tiny.get_config('ect')
    config.class_conditional = False
    assert wire(settings_of(config), SHAPE, 10).generative_model.num_classes == 0
    config.class_conditional = True
    with pytest.raises(UserError, match=r'class_conditional is True, and the data has no labels'):
        wire(settings_of(config), SHAPE, 0)


def test_a_prior_without_a_name_is_none():
    config = tiny.get_config('catch_up')
    assert prior_settings(settings_of(config))['name'] == 'song_unet'
    config.prior.name = ''
    assert prior_settings(settings_of(config)) == {}


def test_wrong_keys_of_the_parts_are_refused_by_their_section():
    for section, message in (
        ('process', r'config\.process\.wrong.*legal: name, t_max, t_min'),
        ('model', r'config\.model\.wrong.*legal: .*channels'),
        ('objective', r'config\.objective\.wrong.*legal: .*sigma_data'),
    ):
        config = tiny.get_config('ect')
        config[section].wrong = 1
        with pytest.raises(UserError, match=message):
            wire(settings_of(config), SHAPE, 10)


# Data and reference


def test_data_are_opened_at_their_own_split_or_another():
    dataset = {'source': 'digits', 'split': 'train'}
    assert open_data(dataset).count == 1500 and open_data(dataset, 'test').count == 297
    assert dataset == {'source': 'digits', 'split': 'train'}
    for lacking in ({'source': 'digits'}, {'split': 'train'}, {}):
        with pytest.raises(UserError, match=r'config\.dataset lacks source or split'):
            open_data(lacking)
    assert open_data({'source': 'digits'}, 'test').count == 297


def test_a_run_trains_on_flipped_images_and_says_if_it_does_not_know_their_crop(tmp_path):
    config = tiny.get_config('ect')
    plain = set_up(settings_of(config), epath.Path(tmp_path))
    config.dataset.update({'flip': True, 'crop': 'adm'})
    run = set_up(settings_of(config), epath.Path(tmp_path))
    found, expected = next(run.batches)['image'], next(plain.batches)['image']
    flipped = [not np.array_equal(*pair) for pair in zip(found, expected)]
    assert 0 < sum(flipped) < 16
    mirrored = np.where(np.reshape(flipped, (16, 1, 1, 1)), expected[:, :, ::-1], expected)
    np.testing.assert_array_equal(found, mirrored)
    says = "do not say by which rule they were cropped; the config is for 'adm'"
    assert says in describe(run, 0) and 'rule' not in describe(plain, 0)


DIGITS = Evaluation(extractor='lenet_digits')


def test_a_reference_has_the_features_that_its_metrics_need():
    dataset = {'source': 'digits', 'split': 'train'}
    evaluation = dataclasses.replace(DIGITS, samples=40, batch_size=20, reference='test')
    extractor, plain, _ = open_reference(dataset, evaluation)
    assert extractor.name == 'lenet_digits' and plain.moments.count == 297
    assert plain.features is None
    _, kept, _ = open_reference(dataset, evaluation, ['fd_lenet'])
    assert kept.features is None  # the Fréchet distance needs the moments alone
    _, kept, _ = open_reference(dataset, evaluation, ['kd_lenet'])
    assert kept.features.shape == (297, 84)


def test_metrics_and_references_that_cannot_be_are_refused():
    dataset = {'source': 'digits', 'split': 'train'}
    for evaluation, metrics, message in (
        (DIGITS, ['fid'], r"'fid'; legal: fd_lenet, is_lenet, kd_lenet, pr_lenet"),
        (
            dataclasses.replace(DIGITS, samples=2),
            ['kd_lenet'],
            r'need at least \d+ samples .*, got 2',
        ),
        (dataclasses.replace(DIGITS, reference='valid'), [], r"'valid'.*legal: all, test, train"),
        (dataclasses.replace(DIGITS, reference='none.npz'), [], r'no file of .* none\.npz$'),
        (Evaluation(), [], r'no extractor is named.*legal: .*inception, lenet_digits'),
        (Evaluation(extractor='lenet'), [], r"'lenet'.*legal: .*lenet_digits"),
    ):
        with pytest.raises(UserError, match=message):
            open_reference(dataset, evaluation, metrics)


def test_other_extractors_measure_beside_the_first_each_its_own_metrics():
    dataset = {'source': 'digits', 'split': 'train'}
    second = ('lenet_digits_2', 'pixel')
    evaluation = dataclasses.replace(
        DIGITS, samples=40, batch_size=20, reference='test', second=second
    )

    def opened(metrics=(), kinds=(), evaluation=evaluation):
        found = open_spaces(dataset, evaluation, metrics, kinds)
        return {space.extractor.score: space.metrics for space in found}

    none = {'fd_lenet': (), 'fd_lenet_digits_2': (), 'fd_pixel': ()}
    assert opened() == none
    asked = opened(['kd_pixel', 'pr_lenet_digits_2'])
    assert asked == none | {'fd_lenet_digits_2': ('pr_lenet_digits_2',), 'fd_pixel': ('kd_pixel',)}
    # Of the kinds that are wanted where nothing is in use: the first space is, without metrics.
    assert opened(kinds=['pr']) == none | {'fd_lenet_digits_2': ('pr_lenet_digits_2',)}
    used = ['fd_lenet', 'fd_lenet_digits_2']
    found = opened(used, ['pr'])
    assert found['fd_pixel'] == ('pr_pixel',) and found['fd_lenet'] == ('fd_lenet',)
    alone = dataclasses.replace(evaluation, second=())
    assert opened(kinds=['pr'], evaluation=alone) == {'fd_lenet': ('pr_lenet',)}
    few = dataclasses.replace(evaluation, samples=5)
    assert opened(kinds=['pr'], evaluation=few) == none
    with pytest.raises(
        UserError, match=r"unknown metric 'fid'.*legal: fd_lenet, fd_lenet_digits_2"
    ):
        opened(['fid'])
    from_file = dataclasses.replace(evaluation, reference='digits.npz')
    with pytest.raises(UserError, match=r"that is a split .*'digits.npz' is the file"):
        opened(evaluation=from_file)


def mean_flow(**changes):
    """Settings of a tiny MeanFlow run, {'section.key': value} changed."""
    config = tiny.get_config('catch_up')
    config.prior.name = ''
    config.model.update({'heads': 1, 'skip_scaling': None, 'times': 2, 'label_dropout': 0.1})
    config.objective = ConfigDict({'name': 'mean_flow', 'guidance': 1.5})
    for key, value in changes.items():
        section, _, name = key.partition('__')
        config[section][name] = value
    return settings_of(config)


def test_a_flow_map_needs_a_network_of_two_times_and_its_guidance_classes():
    parts = wire(mean_flow(), (8, 8, 1), 10)
    assert parts.generative_model.jump is parts.objective.jump is not None
    said = refusal(wire, mean_flow(model__times=1), (8, 8, 1), 10)
    assert said == "objective 'mean_flow' needs config.model.times = 2, got 1"
    said = refusal(wire, mean_flow(model__label_dropout=0.0), (8, 8, 1), 10)
    assert said.startswith(
        'config.objective.guidance = 1.5 needs classes and images without theirs'
    )
    wire(mean_flow(model__label_dropout=0.0, objective__guidance=1.0), (8, 8, 1), 10)
