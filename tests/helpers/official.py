"""The papers' own networks, as the fixtures recorded them, in our terms."""

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest


class Official(NamedTuple):
    """A fixture in our terms: the network and what its own code made of the inputs, NHWC."""

    settings: dict[str, Any]
    image_shape: tuple[int, int, int]
    num_classes: int
    layout: str
    state: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]


SAME = ('channel_mult', 'num_blocks', 'attn_resolutions', 'resample_filter', 'channel_mult_noise')
SAME = (*SAME, 'channels_per_head', 'logvar_channels', 'augment_dim')
RENAMED = {'model_channels': 'channels', 'embedding_type': 'embedding', 'encoder_type': 'encoder'}
CLASSES = {'SongUNet': 'song_unet', 'DhariwalUNet': 'adm_unet', None: 'edm2_unet'}


def official_of(recorded):
    arrays, config = recorded
    ours = {key: key for key in SAME} | RENAMED
    settings = {ours[key]: value for key, value in config.items() if key in ours}
    network = CLASSES[config.get('model_type')]
    if network == 'adm_unet':
        del settings['resample_filter' if 'resample_filter' in settings else 'augment_dim']
    state = {k.removeprefix('param/'): v for k, v in arrays.items() if k.startswith('param/')}
    shape = (config['img_resolution'],) * 2 + (config['img_channels'],)
    layout = 'edm2' if network == 'edm2_unet' else 'edm'
    given = {'name': network, **settings}
    return Official(given, shape, config['label_dim'], layout, state, arrays)


def by_rule(names):
    """The weights of OpenAI's fixtures, by the rule that their configs give, from names and shapes."""
    state = {}
    for j, (name, shape) in enumerate(sorted(names.items())):
        i = np.arange(np.prod(shape), dtype=np.float64)
        fraction = (i * i * 0.6180339887498949 + j * 0.7548776662466927) % 1.0
        offset = float(len(shape) == 1 and name.endswith(('weight', 'scale')))
        state[name] = ((0.35 * fraction - 0.175) + offset).astype(np.float32).reshape(shape)
    return state


def openai_of(recorded):
    arrays, config = recorded
    sizes = {'channels': 128, 'channel_mult': (1, 1), 'num_blocks': 1, 'attn_resolutions': (4,)}
    settings = {'name': 'adm_unet', **sizes, 'noise_scale': 1000.0}
    settings['scale_shift'] = config['use_scale_shift_norm']
    classes = 4 if config['class_cond'] == '4 classes' else 0
    return Official(settings, (8, 8, 3), classes, 'openai', by_rule(config['names']), arrays)


@functools.cache
def official(recorded, name):
    return (openai_of if name in OPENAI else official_of)(recorded(name))


OPENAI = ('openai_net_small', 'openai_lsun_net_small')  # with weights by a rule, not in the file
FIXTURES = ('net_ddpmpp_small', 'net_ncsnpp_small', 'net_adm_small', 'net_edm2_small', *OPENAI)
OFFICIAL = pytest.mark.parametrize('name', FIXTURES)
