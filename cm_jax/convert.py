"""Imports the papers' official weights, exports ours in their format, and checks our networks.

    python -m cm_jax.convert import --from=FILE --network=ddpmpp_cifar10 --workdir=runs/edm_cifar10
    python -m cm_jax.convert export --workdir=runs/edm_cifar10 --to=FILE.safetensors
    python -m cm_jax.convert check FIXTURE.npz...

`import` makes a run folder with the single step 0. `sample` and `evaluate` open it like any other,
and `train` can start from it (config.init_from). FILE is a .pkl of EDM or EDM2, a .pt or .pth,
.safetensors or .npz; it is read without executing anything in it. `export` writes weights under
their official names and in the official layout. `check` runs our network on the weights and inputs
that a fixture holds and compares its outputs with those of the official code, which the fixture
holds too. It prints one line for each fixture and exits with status 1 if an output differs by more
than its tolerance.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict

from cm_jax import checkpoint, cli
from cm_jax.config import base_config, to_plain
from cm_jax.core.tree import count
from cm_jax.errors import UserError, check_name
from cm_jax.files import sha256
from cm_jax.models.presets import PRESETS, Preset
from cm_jax.run import open_run
from cm_jax.run_folder import (
    DATA_CARD,
    ORIGIN,
    RAW,
    TRAJECTORY,
    item_name,
    weights_label,
    write_config,
    write_json,
)
from cm_jax.types import Params
from cm_jax.weights import fixtures, inception, names
from cm_jax.weights.read import read_tensors
from cm_jax.weights.write import write_safetensors
from cm_jax.wiring import net_params

_FROM = flags.DEFINE_string('from', None, 'import: the weights file.')
_NETWORK = flags.DEFINE_string('network', None, 'import: the network, e.g. ddpmpp_cifar10.')
_WORKDIR = cli.workdir_flag('the run folder: new for import')
_EMA = flags.DEFINE_string(
    'ema',
    None,
    'import: which of the weights in the file, e.g. ema; '
    "export: which average of the weights, where '' means the weights themselves.",
)
_AUGMENT = flags.DEFINE_bool(
    'augment', True, 'import: keep the weights for augmentation labels, if the file has them.'
)
_DENOISER = flags.DEFINE_enum(
    'denoiser',
    None,
    ['diffusion', 'consistency'],
    'import: what the network was trained as; by default the network and the file say it.',
)
_STEP = cli.step_flag('export: ')
_TO = flags.DEFINE_string('to', None, 'export: the .safetensors file to write.')

SIGMA_DATA = 0.5  # of all networks in PRESETS; config.base_config has their t_min and t_max
MARKERS = {  # layout -> a tensor that every network of that layout has
    'edm': 'model.map_layer0.weight',
    'edm2': 'unet.emb_noise.weight',
    'openai': 'time_embed.0.weight',
}
AUGMENT = 'model.map_augment.weight'
# The denoiser of 'diffusion' is EDM's; that of 'consistency' has D(x, t_min) = x.
OBJECTIVES = {
    'diffusion': {'name': 'edm', 'sigma_data': SIGMA_DATA},
    'consistency': {'name': 'ect', 'sigma_data': SIGMA_DATA, 'double_every': 10_000},
}
SAMPLERS = {'diffusion': 'heun@18', 'consistency': 'onestep'}
FORMAT = '.safetensors'
DATA = {  # image height -> the config of the data that the networks of that size were trained on
    32: {'source': 'tfds', 'name': 'cifar10', 'data_dir': ''},
    64: {'source': 'folder', 'path': ''},
    256: {'source': 'folder', 'path': ''},
}


def required(flag: flags.FlagHolder, meaning: str) -> str:
    """Returns the value of a flag. Raises UserError if it was not given."""
    if not flag.value:
        raise UserError(f'--{flag.name}={meaning} is required')
    return flag.value


def select(tensors: Mapping[str, np.ndarray], layout: str, ema: str | None, path: Any) -> str:
    """Returns the prefix that the names of one network's tensors have in a weights file.

    A file may hold several copies of the weights, such as 'ema.' and 'net.' before every name; `ema`
    chooses one by its prefix without the last character. A file with a single copy needs no choice;
    its prefix may be ''. `path` is the file, for messages. Raises UserError, naming what the file
    holds, if it has no weights of this layout, none called `ema`, or several and `ema` is None.
    """
    marker = MARKERS[layout]
    prefixes = [name.removesuffix(marker) for name in tensors if name.endswith(marker)]
    prefixes = sorted(prefix for prefix in prefixes if not prefix or prefix[-1] in './')
    if not prefixes:
        first_names = ', '.join(sorted(tensors)[:3])
        raise UserError(
            f'{path} has no {marker}: the first of its {len(tensors)} tensors are {first_names}'
        )
    labels = {prefix[:-1]: prefix for prefix in prefixes}
    if ema is not None:
        check_name(f'weights in {path}', ema, labels)
        return labels[ema]
    if len(prefixes) > 1:
        raise UserError(
            f'{path} holds several weights; choose one with --ema=NAME: {", ".join(labels)}'
        )
    return prefixes[0]


def denoiser(network: str, metadata: Mapping[str, Any], prefix: str) -> str:
    """Returns what the network was trained as, 'diffusion' or 'consistency'.

    Consistency models are the networks of OpenAI, which are called cm_*, and those of ECT, whose
    files name the class ECMPrecond.
    """
    is_ect = metadata.get(f'{prefix}class_name') == 'ECMPrecond'
    return 'consistency' if is_ect or network.startswith('cm_') else 'diffusion'


def run_config(preset: Preset, kind: str) -> ConfigDict:
    """Returns the config of a run folder of imported weights; `kind` is a key of OBJECTIVES."""
    config = base_config()
    config.steps = 0
    config.ema_rates = ()
    config.class_conditional = bool(preset.num_classes)
    config.model = ConfigDict(dict(preset.settings))
    config.objective = ConfigDict(OBJECTIVES[kind])
    config.dataset.update(DATA[preset.image_shape[0]])
    config.sampling.sampler = SAMPLERS[kind]
    config.evaluation.update(
        {'extractor': inception.NAME, 'samplers': (SAMPLERS[kind],), 'samples': 50_000}
    )
    return config


def import_weights(arguments: Sequence[str]) -> None:
    """Imports a weights file as a run folder; everything is checked before anything is written.

    Raises UserError if a flag is missing or wrong, if the file is no weights file or does not fit
    the network, or if the run folder exists.
    """
    no_arguments(arguments)
    path, network = epath.Path(required(_FROM, 'FILE')), required(_NETWORK, 'NAME')
    workdir = cli.required_workdir(_WORKDIR)
    check_name('network', network, PRESETS)
    if workdir.exists():
        raise UserError(f'{workdir} is there already; choose another --workdir')
    tensors, metadata = read_tensors(path)
    if metadata.get('process', 've') != 've':
        raise UserError(
            f"{path} was trained on process {metadata['process']!r}; import takes only 've'"
        )
    preset = PRESETS[network]
    prefix = select(tensors, preset.layout, _EMA.value, path)
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    if not _AUGMENT.value:
        state.pop(AUGMENT, None)
    if AUGMENT not in state and 'augment_dim' in preset.settings:
        preset = preset._replace(settings={**preset.settings, 'augment_dim': 0})
    try:
        params = names.to_params(
            state,
            settings=preset.settings,
            image_shape=preset.image_shape,
            num_classes=preset.num_classes,
            layout=preset.layout,
        )
    except UserError as error:
        raise UserError(f'{path}, network {network}: {error}') from error
    sigma_data = metadata.get(f'{prefix}init_kwargs.sigma_data', SIGMA_DATA)
    if float(sigma_data) != SIGMA_DATA:
        raise UserError(f'{path} has sigma_data {sigma_data}; {network} has {SIGMA_DATA}')
    kind = _DENOISER.value or denoiser(network, metadata, prefix)
    origin = {
        'made_by': 'import',
        'file': path.name,
        'sha256': sha256(path),
        'format': metadata['format'],
        'network': network,
        'layout': preset.layout,
        'weights': prefix[:-1],
        'denoiser': kind,
    }
    write_run(workdir, run_config(preset, kind), preset, params, origin)
    print(f'{count(params):,} parameters of {network} from {path.name} are step 0 of {workdir}')


def write_run(
    workdir: epath.Path,
    config: ConfigDict,
    preset: Preset,
    params: Params,
    origin: Mapping[str, Any],
) -> None:
    """Writes a run folder with `params` as its step 0.

    The folder is built under another name and renamed to `workdir` once it is complete.
    """
    building = workdir.parent / f'{workdir.name}.importing'
    if building.exists():
        shutil.rmtree(building)
    card = {
        'name': config.dataset.get('name', config.dataset.source),
        'split': config.dataset.split,
        'image_shape': list(preset.image_shape),
        'num_classes': preset.num_classes,
    }
    write_config(building, to_plain(config))
    write_json(building / DATA_CARD, card)
    write_json(building / ORIGIN, origin)
    with checkpoint.Stream(building / TRAJECTORY) as stream:
        stream.save(0, {item_name(RAW): params}, {'step': 0})
    building.rename(workdir)


def export_weights(arguments: Sequence[str]) -> None:
    """Exports the weights of a run folder to a file with the official names and layout.

    The metadata of the file hold all that is needed to use them: the layout, the config, the image
    shape and so on. Raises UserError if a flag is missing or wrong, or if the file exists.
    """
    no_arguments(arguments)
    run = open_run(cli.required_workdir(_WORKDIR))
    to = epath.Path(required(_TO, f'FILE{FORMAT}'))
    if to.suffix != FORMAT:
        raise UserError(f'--to={to}: export writes only {FORMAT} files')
    if to.exists() or not to.parent.exists():
        problem = 'is there already' if to.exists() else 'is in a folder that does not exist'
        raise UserError(f'--to={to} {problem}')
    step, ema = run.step(_STEP.value), _EMA.value or RAW
    params = net_params(run.settings, run.params(step, ema))
    origin_file = run.workdir / ORIGIN
    origin = json.loads(origin_file.read_text()) if origin_file.exists() else {}
    config, shape = run.config, tuple(run.card['image_shape'])
    layout = origin.get('layout') or ('edm2' if config.model.name == 'edm2_unet' else 'edm')
    classes = run.parts.generative_model.num_classes
    state = names.to_state(params, config.model.to_dict(), shape, classes, layout)
    metadata = {
        'made_by': 'cm_jax.convert export',
        'layout': layout,
        'step': str(step),
        'ema': ema,
        'process': config.process.name,
        'image_shape': json.dumps(shape),
        'num_classes': str(classes),
        'config': json.dumps(to_plain(config)),
    }
    if 'sigma_data' in config.objective:
        metadata['sigma_data'] = str(config.objective.sigma_data)
    write_safetensors(to, state, metadata)
    print(f'{len(state)} tensors, step {step}, {weights_label(ema)}: {to}')


def check_fixtures(paths: Sequence[str]) -> None:
    """Compares our networks with the official outputs in fixtures, and prints a line for each.

    Ends the process with status 1 if an output differs by more than its tolerance. Raises UserError
    if no fixture is given.
    """
    if not paths:
        raise UserError('check takes fixtures: python -m cm_jax.convert check FIXTURE.npz...')
    failed = False
    for path in paths:
        differences = fixtures.check(path)
        over = [part.name for part in differences if part.error > part.tolerance]
        failed = failed or bool(over)
        worst = max(part.error for part in differences)
        parts = ', '.join(f'{part.name} {part.error:.1e}' for part in differences)
        verdict = f'OVER TOLERANCE in {", ".join(over)}' if over else 'ok'
        print(f'{path}: maximum relative error {worst:.1e}, {verdict} ({parts})', flush=True)
    if failed:
        sys.exit(1)


def no_arguments(arguments: Sequence[str]) -> None:
    """Raises UserError if the command got an argument that is not an option."""
    if arguments:
        raise UserError(f'unknown argument {arguments[0]!r}; options begin with --')


COMMANDS = {'import': import_weights, 'export': export_weights, 'check': check_fixtures}


def main(argv: Sequence[str]) -> None:
    if len(argv) < 2:
        raise UserError(
            f'convert takes one of {", ".join(COMMANDS)} as its first argument; see --help'
        )
    check_name('convert command', argv[1], COMMANDS)
    COMMANDS[argv[1]](argv[2:])


if __name__ == '__main__':
    cli.run(main, arguments=True)
