"""A run folder opened: its steps, the averages that it makes, its samplers, two networks in one run."""

import dataclasses
import itertools
import json
import pathlib
import re

import chex
import numpy as np
import pytest
from etils import epath

from cm_jax import checkpoint, run_folder, sharding
from cm_jax.config import to_plain
from cm_jax.errors import UserError
from cm_jax.generate import build_sampler, make_generator
from cm_jax.lcsc import combine
from cm_jax.run import open_run
from cm_jax.run_folder import DATA_CARD, TRAJECTORY
from cm_jax.weights import names
from cm_jax.wiring import net_params
from tests.helpers import tiny
from tests.helpers.averages import KEPT, STEPS, averaged, walk
from tests.helpers.refusals import refusal
from tests.helpers.run_folders import DIGITS, untrained_run
from tests.helpers.tiny import settings_of

# Averages


def write_run(folder: pathlib.Path, steps, sigma_rels=KEPT) -> np.ndarray:
    """A run folder with a random walk for weights and its power averages; returns the walk."""
    weights = walk(size=6)
    run_folder.write_config(folder, to_plain(tiny.get_config()))
    (folder / DATA_CARD).write_text(json.dumps({'image_shape': [8, 8, 1], 'num_classes': 10}))
    kept = {f'ema_power{s}': averaged(weights, s) for s in sigma_rels}
    with checkpoint.Stream(folder / TRAJECTORY) as stream:
        for step in steps:
            items = {'params': weights, 'ema_0.9': weights} | kept
            rows = {name: {'w': np.float32(rows[step - 1])} for name, rows in items.items()}
            stream.save(step, rows, {'step': step})
    return weights


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ema') / 'run'
    return folder, write_run(folder, range(20, STEPS + 1, 20))


def test_a_run_makes_averages_that_it_has_not_stored(stored):
    folder, weights = stored
    run = open_run(folder)
    assert run.emas() == ['0.9', 'power0.05', 'power0.1']
    for step, sigma_rel in ((240, 0.07), (160, 0.12), (20, 0.05)):
        made = run.params(step, f'posthoc{sigma_rel}')
        assert set(made) == {'w'} and made['w'].dtype == np.float32
        expected = averaged(weights, sigma_rel)[step - 1]
        np.testing.assert_allclose(made['w'], expected, atol=0.02 * np.sqrt(sigma_rel * step))
    chex.assert_trees_all_close(
        run.params(240, 'posthoc0.1'), run.params(240, 'power0.1'), rtol=1e-6
    )


def test_a_posthoc_average_says_what_it_is_made_of(stored):
    parts = open_run(stored[0]).posthoc(100, 'posthoc0.07')
    made_of = itertools.product(range(20, 101, 20), ('power0.05', 'power0.1'))
    assert [(part.step, part.ema) for part in parts] == list(made_of)
    np.testing.assert_allclose(sum(part.coefficient for part in parts), 1)


@pytest.mark.parametrize(
    'ema, words',
    [
        ('posthoc', ['takes a number', "'posthoc'"]),
        ('posthocx', ['takes a number', "'posthocx'"]),
        ('posthoc0.3', ['(0, 0.2887)', 'got 0.3']),
        (
            'posthoc0.005',
            ['out of the range of the 24 averages', 'power0.05, power0.1', '20 to 240'],
        ),
        ('power0.07', ["'power0.07'", '0.9, power0.05, power0.1']),
    ],
)
def test_averages_that_cannot_be_made_are_refused(stored, ema, words):
    with pytest.raises(UserError) as raised:
        open_run(stored[0]).params(240, ema)
    assert all(word in str(raised.value) for word in words), raised.value


def test_a_run_without_power_averages_says_what_it_takes(tmp_path):
    write_run(tmp_path / 'run', [20, 40], sigma_rels=())
    with pytest.raises(UserError, match=r'ema_sigma_rels.*trajectory\.emas=True'):
        open_run(tmp_path / 'run').params(40, 'posthoc0.07')


# Two networks in one run


def test_a_run_of_two_networks_opens_samples_combines_and_exports(tmp_path):
    run = untrained_run(tmp_path / 'run', tiny.get_config('catch_up'))
    params = run.params(2)
    images = run.sample(params, 'euler@2', 3)
    assert images.shape == (3, 8, 8, 1) and len(np.unique(images)) > 1
    one_hot = combine.combine(run.params, [1, 2], np.array([0.0, 1.0]))
    chex.assert_trees_all_equal(one_hot, params)
    np.testing.assert_array_equal(run.sample(one_hot, 'euler@2', 3), images)
    half = combine.combine(run.params, [1, 2], np.array([0.5, 0.5]))
    assert np.any(run.sample(half, 'euler@2', 3) != images)

    model = run.config.model.to_dict()
    own = net_params(run.settings, params)
    state = names.to_state(own, model, (8, 8, 1), 10, 'edm')
    assert {'model.head2_norm.weight', 'model.head2_conv.bias'} < set(state)
    chex.assert_trees_all_equal(names.to_params(state, model, (8, 8, 1), 10, 'edm'), own)


# What there is


def test_an_opened_run_says_what_there_is(opened):
    assert opened.steps() == [0, 3] and opened.step() == 3 and opened.step(0) == 0
    assert opened.emas() == ['0.9'] and opened.emas(0) == []
    assert opened.settings == settings_of(opened.config)
    assert opened.card['image_shape'] == [8, 8, 1]
    assert opened.metrics() == opened.scores() == opened.tuned() == []
    chex.assert_trees_all_equal(opened.params(), opened.params(3))
    chex.assert_trees_all_equal(opened.params(ema='0.9'), opened.params(0))


def test_samples_are_bytes_that_depend_on_the_seed(opened):
    params = opened.params()
    one, again, other = (opened.sample(params, 'onestep', 4, seed) for seed in (0, 0, 1))
    assert one.shape == (4, 8, 8, 1) and one.dtype == np.uint8
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)


def test_a_step_that_is_not_there_is_told_with_those_that_are(opened, tmp_path):
    with pytest.raises(UserError, match=r'has no step 2; there are 0, 3$'):
        opened.params(2)
    with pytest.raises(UserError, match=r"'0.5'.*legal: 0.9$"):
        opened.params(3, '0.5')
    with pytest.raises(UserError, match=r"'0.9'.*legal: none$"):
        opened.check_ema(0, '0.9')
    opened.check_ema(0, '')
    empty = untrained_run(tmp_path / 'empty', tiny.get_config('ect'), steps=())
    with pytest.raises(UserError, match=r'has no trajectory step yet: it was not trained'):
        empty.params()


def test_what_is_no_run_folder_is_told(tmp_path):
    with pytest.raises(UserError, match=r'is no run folder: it has no config.json'):
        open_run(tmp_path)
    run_folder.write_config(epath.Path(tmp_path), to_plain(tiny.get_config()))
    with pytest.raises(UserError, match=r'has no data_card.json: its training did not start'):
        open_run(tmp_path)


def test_tuned_stands_for_the_levels_that_were_tuned_for_these_weights(opened, tmp_path):
    assert opened.sampler_spec('heun@3', 3, '') == 'heun@3'
    with pytest.raises(UserError, match=r'no levels were tuned .*--step=3 --ema=\'0.9\''):
        opened.sampler_spec('tuned', 3, '0.9')
    records = [
        {'levels': 2, 'sampler': 'multistep@80,1', 'step': 3, 'ema': ''},
        {'levels': 2, 'sampler': 'multistep@80,2', 'step': 3, 'ema': ''},
        {'levels': 2, 'sampler': 'multistep@80,9', 'step': 0, 'ema': ''},
    ]
    run = dataclasses.replace(opened, workdir=epath.Path(tmp_path))
    (run.workdir / run_folder.TUNED_LEVELS).write_text(json.dumps(records))
    assert run.sampler_spec('tuned', 3, '') == 'multistep@80,2'  # the newest
    assert run.sampler_spec('tuned@2', 3, '') == 'multistep@80,2'
    assert run.sampler_spec('tuned', 0, '') == 'multistep@80,9'
    with pytest.raises(UserError, match=r"'tuned@3'.*legal: tuned@2$"):
        run.sampler_spec('tuned@3', 3, '')
    more = [*records, {'levels': 3, 'sampler': 'multistep@80,5,1', 'step': 3, 'ema': ''}]
    (run.workdir / run_folder.TUNED_LEVELS).write_text(json.dumps(more))
    with pytest.raises(UserError, match=r"'tuned'.*legal: tuned@2, tuned@3$"):
        run.sampler_spec('tuned', 3, '')


# Guided by another run


def test_a_run_is_guided_by_another_network(opened, tmp_path):
    """The guide is of another size; its last step is written into the sampler's text."""
    config = tiny.get_config('edm')
    config.model.channels = 8
    guide = untrained_run(tmp_path / 'guide', config)
    written = f'onestep+auto2.5={guide.workdir}'
    spec = opened.sampler_spec(written, 3, '')
    assert spec == f'{written},2'
    assert opened.sampler_spec(f'{written},1,0.9', 3, '') == f'{written},1,0.9'

    def images(run, params, spec):
        model, mesh = run.guided_model([spec]), sharding.make_mesh()
        return make_generator(model, build_sampler(spec, model), mesh, 4, lambda x0: x0)(
            params, 5, 0
        )

    own, worse = (images(run, run.params(), 'onestep') for run in (opened, guide))
    found = images(opened, opened.params(), spec)
    np.testing.assert_allclose(found, worse + 2.5 * (own - worse), atol=1e-4)
    assert np.abs(found - own).max() > 1e-2
    first = images(opened, opened.params(), f'{written},2,0.9')
    np.testing.assert_array_equal(first, images(opened, opened.params(), f'{written},1'))
    sampled = opened.sample(opened.params(), written, 4, 5)
    np.testing.assert_array_equal(sampled, opened.sample(opened.params(), spec, 4, 5))
    with checkpoint.Stream(guide.workdir / TRAJECTORY) as stream:  # the guide is trained on
        stream.save(3, {'params': guide.params(1)}, {'step': 3})
    later = opened.sample(opened.params(), written, 4, 5)
    assert np.any(later != sampled)


def test_guidance_by_class_of_a_network_that_always_had_classes_has_to_be_asked_for(opened):
    said = refusal(opened.guided_model, ['onestep+cfg2'])
    assert "'onestep+cfg2'" in said and 'label_dropout = 0' in said and '--unsupported' in said
    run = open_run(opened.workdir, unsupported=True)
    images = run.generator('onestep+cfg2', 2)(run.params(), 0)
    assert images.shape == (2, 8, 8, 1)


def test_guides_that_do_not_fit_are_refused_in_one_line(opened, tmp_path):
    kinds = {name: tiny.get_config('edm') for name in ('noise', 'classes', 'images')}
    kinds['noise'].process.t_max = 40.0
    kinds['classes'].class_conditional = False
    cards = {'images': DIGITS | {'image_shape': [16, 16, 1]}}
    for name, config in kinds.items():
        untrained_run(tmp_path / name, config, steps=(2,), card=cards.get(name, DIGITS))
    for guide, words in (
        (tmp_path / 'noise', r'does not fit .*process\.t_max: 40\.0 there, 80\.0 here'),
        (tmp_path / 'classes', r'classes: 0 there, 10 here'),
        (tmp_path / 'images', r'images: \[16, 16, 1\] there, \[8, 8, 1\] here'),
        (tmp_path / 'nothing', 'nothing is no run folder'),
        (f'{opened.workdir},7', 'has no step 7; there are 0, 3'),
        (f'{opened.workdir},3,0.7', r"unknown average.*'0\.7'.*legal: 0\.9"),
    ):
        said = refusal(opened.guided_model, [f'onestep+auto2={guide}'])
        assert re.search(words, said) and '\n' not in said, said
