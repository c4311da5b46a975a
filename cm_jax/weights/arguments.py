"""Translates the arguments of the official network classes into the settings of our networks."""

from collections.abc import Mapping
from typing import Any

from cm_jax.errors import UserError, check_name
from cm_jax.models.presets import Preset

SAME = ('channel_mult', 'channel_mult_emb', 'num_blocks', 'attn_resolutions', 'dropout')
EDM_SAME = (*SAME, 'label_dropout', 'augment_dim')
EDM2_SAME = (*SAME, 'channel_mult_noise', 'channels_per_head', 'label_balance', 'concat_balance')
ARGUMENTS = {  # for each of our networks: official argument -> our setting
    'song_unet': {name: name for name in (*EDM_SAME, 'channel_mult_noise', 'resample_filter')}
    | {'model_channels': 'channels', 'embedding_type': 'embedding', 'encoder_type': 'encoder'},
    'adm_unet': {name: name for name in EDM_SAME} | {'model_channels': 'channels'},
    'edm2_unet': {name: name for name in (*EDM2_SAME, 'logvar_channels')}
    | {'model_channels': 'channels', 'dropout_res': 'dropout_resolution'},
}
DEFAULTS: dict[str, dict[str, Any]] = {  # the official defaults that differ from ours
    'song_unet': {'channel_mult': [1, 2, 2, 2], 'dropout': 0.1},
    'adm_unet': {'dropout': 0.1},
    'edm2_unet': {},
}
BUILT_IN: dict[str, dict[str, Any]] = {  # arguments that our networks fix at one value
    'song_unet': {'decoder_type': 'standard'},
    'adm_unet': {},
    'edm2_unet': {'res_balance': 0.3, 'attn_balance': 0.3, 'clip_act': 256}
    | {'resample_filter': [1, 1]},
}
CLASSES = {'SongUNet': 'song_unet', 'DhariwalUNet': 'adm_unet', 'UNet': 'edm2_unet'}
DEFAULT_CLASS = {'edm': 'DhariwalUNet', 'edm2': 'UNet'}  # for each layout of weights
OUTSIDE = (
    'img_resolution',
    'img_channels',
    'label_dim',
    'model_type',
    'sigma_data',
)  # not settings
IGNORED = ('use_fp16', 'sigma_min', 'sigma_max')  # without effect in float32


def network_of(arguments: Mapping[str, Any], layout: str) -> Preset:
    """Returns our form of the network in EDM's `EDMPrecond(**arguments)` or EDM2's `Precond`.

    `arguments` are those in a fixture's `config_json`; `layout` is 'edm' or 'edm2'. Raises UserError
    if an argument is unknown, has a value that our networks do not support, or is missing.
    """
    check_name('layout with arguments', layout, DEFAULT_CLASS)
    official_class = arguments.get('model_type', DEFAULT_CLASS[layout])
    check_name('model_type', official_class, CLASSES)
    network = CLASSES[official_class]
    table, built_in = ARGUMENTS[network], BUILT_IN[network]
    given = {k: v for k, v in arguments.items() if k not in (*OUTSIDE, *IGNORED)}
    settings: dict[str, Any] = {'name': network}
    for key, value in (DEFAULTS[network] | given).items():
        check_name(f'argument of {official_class}', key, [*table, *built_in])
        if key in table:
            settings[table[key]] = tuple(value) if isinstance(value, list) else value
        elif value != built_in[key]:
            raise UserError(
                f'{official_class} with {key} {value!r} is not supported; legal: {built_in[key]!r}'
            )
    if 'img_resolution' not in arguments:
        raise UserError(f'the arguments of {official_class} lack img_resolution')
    size, channels = arguments['img_resolution'], arguments.get('img_channels', 3)
    return Preset(
        settings=settings,
        image_shape=(size, size, channels),
        num_classes=arguments.get('label_dim', 0),
        layout=layout,
    )
