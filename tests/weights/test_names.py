"""Weights under the papers' own names: round trips, and what does not fit."""

import jax
import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.weights import names
from tests.helpers.networks import NETWORKS, SHAPE, SMALL, weights
from tests.helpers.official import OFFICIAL, official

LAYOUT = {'ddpmpp': 'edm', 'ncsnpp': 'edm', 'adm': 'edm', 'edm2': 'edm2'}


def as_official(network):
    layout = LAYOUT[network]
    settings = SMALL[network] | ({} if layout == 'edm2' else {'augment_dim': 2})
    return settings, (layout,), weights(network, 5, **settings)


@NETWORKS
def test_round_trip_of_names_is_bit_identical(network):
    settings, layouts, params = as_official(network)
    for layout in (*layouts, *(('openai',) if network == 'adm' else ())):
        if layout == 'openai':
            settings, params = SMALL[network], weights(network, 5)
        state = names.to_state(params, settings, SHAPE, 5, layout)
        assert names.layout_of(state) == layout
        again = names.to_params(state, settings, SHAPE, 5, layout)
        assert jax.tree.structure(again) == jax.tree.structure(params)
        jax.tree.map(np.testing.assert_array_equal, again, params)


@OFFICIAL
def test_export_is_the_official_state_dict(recorded, name):
    settings, shape, classes, layout, state, _ = official(recorded, name)
    params = names.to_params(state, settings, shape, classes, layout)
    found = names.to_state(params, settings, shape, classes, layout)
    assert found.keys() == state.keys()
    for key, value in state.items():
        assert found[key].dtype == np.float32
        np.testing.assert_array_equal(found[key], value)
        assert found[key].shape == value.shape


def test_half_precision_weights_are_read_as_float32():
    settings, (layout,), params = as_official('edm2')
    state = names.to_state(params, settings, SHAPE, 5, layout)
    half = {name: value.astype(np.float16) for name, value in state.items()}
    again = names.to_params(half, settings, SHAPE, 5, layout)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(again))
    np.testing.assert_allclose(again['out_gain'], params['out_gain'], rtol=1e-3)


def without(state, *gone):
    return {name: value for name, value in state.items() if name not in gone}


CONV0 = 'model.enc.8x8_block0.conv0.weight'


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda s: without(s, CONV0), f'do not fit song_unet: 1 missing: {CONV0}$'),
        (lambda s: without(s, *s), r'missing: .*, .*, .* and \d+ more$'),
        (lambda s: s | {'model.extra': s[CONV0]}, '1 unexpected: model.extra$'),
        (lambda s: s | {CONV0: s[CONV0][:, :3]}, f'{CONV0} is 16x3x3x3, not 16x16x3x3$'),
        (
            lambda s: without(s, CONV0) | {'model.a': s[CONV0], CONV0[:-6] + 'bias': s[CONV0]},
            '1 missing: .*; 1 unexpected: model.a; 1 of the wrong shape: .*bias is 16x16x3x3, not 16$',
        ),
        (
            lambda s: s | {k: v + 0.1 for k, v in s.items() if k.endswith('filter')},
            'resample_filter is not that of model.resample_filter',
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(change, message):
    settings, (layout,), params = as_official('ncsnpp')
    state = names.to_state(params, settings, SHAPE, 5, layout)
    with pytest.raises(UserError, match=message) as caught:
        names.to_params(change(state), settings, SHAPE, 5, layout)
    assert '\n' not in str(caught.value)


def test_weights_of_another_resolution_or_network_or_none_are_refused():
    settings, (layout,), params = as_official('adm')
    state = names.to_state(params, settings, SHAPE, 5, layout)
    with pytest.raises(UserError, match=r'missing: model.dec.16x16.*unexpected: .*4x4'):
        names.to_params(state, settings, (16, 16, 3), 5, layout)
    with pytest.raises(UserError, match=r'missing: .*unexpected: '):
        names.to_params(state, SMALL['ddpmpp'], SHAPE, 5, layout)
    with pytest.raises(UserError, match='legal: edm2_unet'):
        names.to_params(state, settings, SHAPE, 5, 'edm2')
    with pytest.raises(UserError, match=r'no network known here: 1 tensors: fc\.weight'):
        names.layout_of({'fc.weight': 0})
    with pytest.raises(UserError, match='not those of adm_unet'):
        names.to_state(params, SMALL['adm'] | {'num_blocks': 2}, SHAPE, 5, layout)
