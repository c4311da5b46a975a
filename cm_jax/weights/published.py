"""Reads a published weights file as the parameters of one of our networks: `read_network`.

A file that was exported here holds the config of its run, which then says what no tensor reveals.
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cm_jax.errors import UserError, check_name, damage_is_one_line
from cm_jax.models.presets import PRESETS, Preset
from cm_jax.types import Params
from cm_jax.weights import inception, names
from cm_jax.weights.layouts import HEADS, MARKERS
from cm_jax.weights.read import read_tensors

SIGMA_DATA = 0.5  # of all networks in PRESETS
AUGMENT = ('model.map_augment.weight', 'map_augment.weight')  # in 'edm' and 'bare'
SONG_LAYOUTS = ('edm', 'bare', 'jcm')  # of a song_unet; each is looked for in this order
OPTIMIZER = (
    'opt_state.'  # where JCM's checkpoints have the moments of Adam, as large as the weights
)
TEACHERS = 'edm'  # how the names of OpenAI's files of diffusion models begin
PROCESSES = {'diffusion': 've', 'consistency': 've', 'flow': 'rf'}
# The denoiser of 'diffusion' is EDM's; that of 'consistency' has D(x, t_min) = x; that of 'flow' is
# D(x, t) = x - t v.
OBJECTIVES: dict[str, dict[str, Any]] = {
    'diffusion': {'name': 'edm', 'sigma_data': SIGMA_DATA},
    'consistency': {'name': 'ect', 'sigma_data': SIGMA_DATA, 'double_every': 10_000},
    'flow': {'name': 'catch_up'},
}
EXPORTED = 'cm_jax.convert export'  # who made a file, in its metadata
TRAINED_AS = {  # objective -> what it trains; weights of the others are not exported
    **dict.fromkeys(('edm', 'pd'), 'diffusion'),
    **dict.fromkeys(('ect', 'ict', 'ct', 'cd'), 'consistency'),
    **dict.fromkeys(('flow', 'catch_up', 'one_step'), 'flow'),
}
HIDDEN = ('noise_scale', 'skip_scaling')  # settings of networks that no tensor reveals
BOUNDARIES = {'edm': 0.003, 'edm2': 0.0}  # of ECT's networks (objectives/ect.py), by their layout
SAMPLERS = {'consistency': 'onestep', 'flow': 'euler@16'}  # and for diffusion models:
HEUN = {'song_unet': 'heun@18', 'adm_unet': 'heun@40', 'edm2_unet': 'heun@32'}
TRUNCATING = ('openai', 'jcm')  # layouts from codes whose samples truncate to bytes
REFERENCES = {  # (image height, layout) -> the statistics that the code of these networks compares with
    (64, 'edm'): 'imagenet-64x64.npz',
    (64, 'edm2'): 'img64.pkl',
    (64, 'openai'): 'VIRTUAL_imagenet64_labeled.npz',
}
FLOW = {'name': 'rf', 't_min': 1e-5, 't_max': 1.0}
DATA: dict[int, dict[str, Any]] = {  # image height -> the section `dataset` of such networks
    28: {'source': 'tfds', 'name': 'mnist', 'data_dir': ''},
    32: {'source': 'tfds', 'name': 'cifar10', 'data_dir': ''},
    64: {'source': 'folder', 'path': ''},
    256: {'source': 'folder', 'path': ''},
}
FID = {'extractor': inception.NAME, 'samples': 50_000}
SCORES = {28: {'extractor': 'lenet_fashion_mnist'}}  # image height -> instead of FID
# Image height -> the precision of the products, as in the configs of such images; else 'highest'.
PRECISIONS = {64: 'high', 256: 'high'}
HEAD = re.compile(rf'(?:.*\b{HEADS}\.)?(\d+)\.(?:module\.)?(block\..+)')


class Published(NamedTuple):
    """The parameters of a network from a file, and what the file and its preset say of it.

    `settings` are the network's in the file; `layout` is that of its tensors' names, of which every
    one begins with `prefix`; `trained_as` is 'diffusion', 'consistency' or 'flow'. `config` is that of
    the run in a file that was exported here, and else empty.
    """

    params: Params
    preset: Preset
    settings: Mapping[str, Any]
    layout: str
    prefix: str
    trained_as: str
    config: Mapping[str, Any]
    file_format: str


def read_network(
    path: pathlib.Path,
    network: str,
    *,
    ema: str | None = None,
    augment: bool = True,
    trained_as: str | None = None,
    heads: pathlib.Path | None = None,
) -> Published:
    """Returns the network in a weights file.

    Raises UserError, in one line, if the file is no weights file, holds none of this network, does not
    fit it, or is of another process or sigma_data.

    Args:
      path: the file.
      network: a name of PRESETS.
      ema: which of the weights in the file, as `select` takes it.
      augment: whether weights for augmentation labels are kept, if the file has them.
      trained_as: 'diffusion' or 'consistency'; None takes what the network and the file say.
      heads: the file of the further heads of Catch-Up Distillation's network.
    """
    check_name('network', network, PRESETS)
    preset = PRESETS[network]
    tensors, metadata = read_tensors(path)
    layout, prefix = select(tensors, preset, ema, path)
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    if heads is not None:
        state |= _heads(heads, layout)
    if not augment:
        state = {name: tensor for name, tensor in state.items() if name not in AUGMENT}
    config = _exported_config(metadata, path)
    settings = _settings_in(state, preset, layout, config)
    try:
        params = names.to_params(state, settings, preset.image_shape, preset.num_classes, layout)
    except UserError as error:
        raise UserError(f'{path}, network {network}: {error}') from error
    sigma_data = metadata.get(f'{prefix}init_kwargs.sigma_data', SIGMA_DATA)
    sigma_data = config.get('objective', {}).get('sigma_data', sigma_data)
    with damage_is_one_line(path, 'has a sigma_data that is no number'):
        is_same = float(sigma_data) == SIGMA_DATA
    if not is_same:
        raise UserError(f'{path} has sigma_data {sigma_data}; {network} has {SIGMA_DATA}')
    kind = _trained_as(preset, settings, config, metadata.get(f'{prefix}class_name'), path)
    if trained_as is not None and trained_as != kind:
        if kind == 'flow':
            raise UserError(f'{network} is a network of rectified flow, and no {trained_as} model')
        kind = trained_as
    process = metadata.get('process', PROCESSES[kind])
    if process != PROCESSES[kind]:
        raise UserError(
            f'{path} was trained on process {process!r}; {network} takes only {PROCESSES[kind]!r}'
        )
    return Published(
        params=params,
        preset=preset,
        settings=settings,
        layout=layout,
        prefix=prefix,
        trained_as=kind,
        config=config,
        file_format=metadata['format'],
    )


def sections(network: Published) -> dict[str, Any]:
    """Returns the parts of a run's config that a network decides: what it is and how it samples."""
    kind, settings, sampler = network.trained_as, network.settings, _sampler(network)
    objective, height = dict(OBJECTIVES[kind]), network.preset.image_shape[0]
    boundary = _boundary(network)
    if kind == 'consistency' and boundary is not None:
        objective['boundary'] = boundary
    if kind == 'flow':
        objective['order'] = objective['head'] = settings.get('heads', 1)
    return {
        'class_conditional': bool(network.preset.num_classes),
        'model': {**settings, 'precision': PRECISIONS.get(height, 'highest')},
        'objective': objective,
        'process': network.config.get('process', FLOW if kind == 'flow' else {}),
        'dataset': DATA[height],
        'sampling': {'sampler': sampler},
        'evaluation': {
            'samplers': (sampler,),
            'bytes': 'truncate' if _truncates(network) else 'round',
            'reference': REFERENCES.get((height, network.layout), 'train'),
            **SCORES.get(height, FID),
        },
    }


def _exported_config(metadata: Mapping[str, Any], path: pathlib.Path) -> dict[str, Any]:
    """Returns the config of the run in a file that was exported here, and else {}.

    Raises UserError if it is damaged.
    """
    if metadata.get('made_by') != EXPORTED:
        return {}
    with damage_is_one_line(path, 'has a damaged config in its metadata'):
        config = dict(json.loads(metadata['config']))
        check_name('objective', config['objective']['name'], TRAINED_AS)
        dict(config['model'])
        return config


def _boundary(network: Published) -> float | None:
    """Returns the level at which a consistency model is the identity, or None if that is t_min."""
    if network.config:
        return network.config['objective'].get('boundary')
    return BOUNDARIES.get(network.layout)


def _sampler(network: Published) -> str:
    """Returns the sampler of the code that trained a network; OpenAI's clips x0."""
    if network.trained_as != 'diffusion':
        return SAMPLERS[network.trained_as]
    return HEUN[network.settings['name']] + (',clip' if network.layout == 'openai' else '')


def _truncates(network: Published) -> bool:
    """Returns whether the code that trained a network truncates its samples to bytes.

    Of the layout 'bare' it is that of LCSC, whose networks are consistency models, and not CUD's.
    """
    of_lcsc = (network.layout, network.trained_as) == ('bare', 'consistency')
    return of_lcsc or network.layout in TRUNCATING


def select(
    tensors: Mapping[str, np.ndarray], preset: Preset, ema: str | None, path: pathlib.Path
) -> tuple[str, str]:
    """Returns the layout of one network's tensors in a weights file, and the prefix of their names.

    A file may hold several copies of the weights, such as 'ema.' and 'net.' before every name; `ema`
    chooses one by its prefix without the last character. A file with a single copy needs no choice;
    its prefix may be ''. `path` is the file, for messages. Raises UserError, naming what the file
    holds, if it has no weights of the preset's network, none called `ema`, or several and no `ema`.
    """
    layouts = SONG_LAYOUTS if preset.settings['name'] == 'song_unet' else (preset.layout,)
    for layout in layouts:
        marker = MARKERS[layout]
        prefixes = [name.removesuffix(marker) for name in tensors if name.endswith(marker)]
        prefixes = sorted(
            prefix
            for prefix in prefixes
            if not prefix or (prefix[-1] in './' and not prefix.startswith(OPTIMIZER))
        )
        if prefixes:
            break
    else:
        first_names = ', '.join(sorted(tensors)[:3])
        raise UserError(
            f'{path} has no {MARKERS[preset.layout]}: the first of its {len(tensors)} tensors are '
            f'{first_names}'
        )
    labels = {prefix[:-1]: prefix for prefix in prefixes}
    if ema is not None:
        check_name(f'weights in {path}', ema, labels)
        return layout, labels[ema]
    if len(prefixes) > 1:
        raise UserError(
            f'{path} holds several weights; choose one with --ema=NAME: {", ".join(labels)}'
        )
    return layout, prefixes[0]


def _heads(path: pathlib.Path, layout: str) -> dict[str, np.ndarray]:
    """Returns the tensors of CUD's heads 2 and 3 from their file, by their names in the layout 'bare'.

    Raises UserError if the file is of other tensors, or the network has no such heads.
    """
    if layout != 'bare':
        raise UserError(
            f'{path} cannot be read as heads of this network: only those of Catch-Up Distillation '
            'on MNIST and CIFAR-10 have some'
        )
    found = {}
    for name, tensor in read_tensors(path)[0].items():
        match = HEAD.fullmatch(name)
        if match:
            found[f'{HEADS}.{match[1]}.{match[2]}'] = tensor
    if not found:
        raise UserError(
            f'{path} holds no heads of Catch-Up Distillation: it has no 0.block.0.weight'
        )
    return found


def _settings_in(
    state: Mapping[str, Any], preset: Preset, layout: str, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the settings of the preset with those that the tensors in a file reveal.

    EDM's networks need not have augmentation labels, nor EDM2's a log variance; the number of heads is
    that of the file. A `config`, which may be empty, has the settings that are HIDDEN.
    """
    settings = dict(preset.settings)
    told = config.get('model', {})
    settings |= {name: told[name] for name in HIDDEN if name in told}
    if settings.get('augment_dim') and not any(name in state for name in AUGMENT):
        settings['augment_dim'] = 0
    if layout == 'edm2' and not any(name.startswith('logvar_') for name in state):
        settings['logvar_channels'] = 0
    pattern = re.compile(rf'model\.head\d+_norm\.weight|{HEADS}\.\d+\.block\.0\.weight')
    heads = sum(bool(pattern.fullmatch(name)) for name in state)
    if heads and preset.trained_as == 'flow':
        settings['heads'] = 1 + heads
    return settings


def _trained_as(
    preset: Preset,
    settings: Mapping[str, Any],
    config: Mapping[str, Any],
    class_name: str | None,
    path: pathlib.Path,
) -> str:
    """Returns what the network in a file was trained as: 'diffusion', 'consistency' or 'flow'.

    The objective of a config tells it. Without one, consistency models are those of ECT, whose files
    name the class ECMPrecond on CIFAR-10 and lack the log variance on ImageNet, and those of OpenAI
    and LCSC, except OpenAI's teachers, by the name of their file.
    """
    if config:
        return TRAINED_AS[config['objective']['name']]
    if class_name == 'ECMPrecond' or settings.get('logvar_channels') == 0:
        return 'consistency'
    if preset.trained_as == 'consistency' and path.name.startswith(TEACHERS):
        return 'diffusion'
    return preset.trained_as
