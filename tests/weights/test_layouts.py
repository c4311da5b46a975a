"""The published layouts: real names and shapes, and round trips to the bit."""

import jax
import numpy as np
import pytest

from cm_jax.models.presets import PRESETS
from cm_jax.weights import names
from tests.helpers.networks import SHAPE, SMALL, weights

CUD_HEADS = {'name': 'song_unet', 'heads': 3, 'skip_scaling': 0.75}
WRITTEN = {  # our small network, the layout, and a name that is only there
    'LCSC on CIFAR-10': ('ncsnpp', {}, 'bare', 'enc.4x4_aux_residual.weight'),
    'CUD with three heads': ('ddpmpp', CUD_HEADS, 'bare', 'generator_list.1.block.2.weight'),
    'JCM, NCSN++': ('ncsnpp', {}, 'jcm', 'Downsample_0.Conv2d_0.weight'),
    'JCM, DDPM++': ('ddpmpp', {}, 'jcm', 'AttnBlockpp_0.NIN_2.W'),
    'LSUN': ('adm', {'scale_shift': False}, 'openai', 'output_blocks.1.2.in_layers.0.weight'),
    'ECT on ImageNet': ('edm2', {'logvar_channels': 0}, 'edm2', 'unet.out_gain'),
}
PUBLISHED = {  # in the fixture: our preset, the layout, changes of its settings
    'cm_lsun256': ('cm_lsun256', 'openai', {}),
    'cm_imagenet64': ('cm_imagenet64', 'openai', {}),
    'lcsc_imagenet64': ('cm_imagenet64', 'openai', {}),
    'lcsc_cifar10': ('cm_cifar10', 'bare', {}),
    'jcm_cifar10': ('cm_cifar10', 'jcm', {}),
    'cud_imagenet64': ('cud_imagenet64', 'openai', {}),
    'cud_cifar10': ('cud_cifar10', 'bare', {'heads': 3}),
    'cud_mnist': ('cud_mnist', 'bare', {'heads': 2}),
    'ect_imagenet64_s': ('edm2_imagenet64_s', 'edm2', {'logvar_channels': 0}),
}


def test_round_trips_are_bit_identical():
    for case, (network, changes, layout, name) in WRITTEN.items():
        settings, params = SMALL[network] | changes, weights(network, **changes)
        state = names.to_state(params, settings, SHAPE, 0, layout)
        assert name in state and names.layout_of(state) == layout, case
        again = names.to_params(state, settings, SHAPE, 0, layout)
        assert jax.tree.structure(again) == jax.tree.structure(params), case
        jax.tree.map(np.testing.assert_array_equal, again, params)


def test_queries_keys_and_values_apart_are_those_of_one_tensor():
    params = weights('ddpmpp')
    state = names.to_state(params, SMALL['ddpmpp'], SHAPE, 0, 'jcm')
    # The second attention is that of the middle block; the first is in the encoder.
    joined = np.concatenate([state[f'AttnBlockpp_1.NIN_{j}.W'] for j in range(3)], axis=1)
    np.testing.assert_array_equal(joined, params['dec_4_in0']['qkv']['kernel'])


@pytest.mark.parametrize('published', PUBLISHED)
def test_published_networks_have_the_real_names_and_shapes(recorded, published):
    """At full size, without allocating a weight."""
    _, recorded_names = recorded('published_names')
    preset, layout, changes = PUBLISHED[published]
    preset = PRESETS[preset]
    theirs = {name: tuple(shape) for name, shape in recorded_names[published].items()}
    for i in range(changes.get('heads', 1) - 1):  # CUD keeps each further head in a file of its own
        head = recorded_names[f'{published}_head'].items()
        theirs |= {f'generator_list.{i}.{name}': tuple(shape) for name, shape in head}
    required, optional = names.official_shapes(
        dict(preset.settings) | changes, preset.image_shape, preset.num_classes, layout
    )
    assert theirs == required | optional
