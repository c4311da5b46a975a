"""Imports the papers' official weights, exports ours in their format, and checks our networks.

    python -m cm_jax.convert import --from=FILE --network=ddpmpp_cifar10 --workdir=runs/edm_cifar10
    python -m cm_jax.convert export --workdir=runs/edm_cifar10 --to=FILE.safetensors
    python -m cm_jax.convert check FIXTURE.npz...

`import` makes a run folder with the single step 0. `sample` and `evaluate` open it like any other,
and `train` can start from it (config.init_from). FILE is a .pkl of EDM or EDM2, a .pt or .pth,
.safetensors or .npz, or a checkpoint of flax; it is read without executing anything in it. FILE may
also be a folder of EDM2's snapshots, NAME-KIMG-SIGMA_REL.pkl: they become the steps of the run folder,
numbered by their thousands of images, of which `--ema=posthoc0.07` makes other averages, as of those
that training has stored (EDM2, arXiv 2312.02696, section 3.2). `export` writes weights under
their official names and in the official layout. `check` runs our network on the weights and inputs
that a fixture holds and compares its outputs with those of the official code, which the fixture
holds too. It prints one line for each fixture and exits with status 1 if an output differs by more
than its tolerance.
"""

import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from cm_jax import checkpoint, cli, locks
from cm_jax.config import base_config, to_plain
from cm_jax.core.ema import POWER
from cm_jax.core.tree import count
from cm_jax.errors import UserError, check_name
from cm_jax.files import expanded, sha256
from cm_jax.models.presets import PRESETS
from cm_jax.run import open_run
from cm_jax.run_folder import (
    DATA_CARD,
    ORIGIN,
    RAW,
    TRAJECTORY,
    item_name,
    read_record,
    weights_label,
    write_config,
    write_record,
)
from cm_jax.terminal import progress, say_next, size
from cm_jax.types import Params
from cm_jax.weights import fixtures, names
from cm_jax.weights.published import EXPORTED, TRAINED_AS, Published, read_network, sections
from cm_jax.weights.snapshots import snapshots
from cm_jax.weights.write import write_safetensors
from cm_jax.wiring import net_params

_FROM = flags.DEFINE_string(
    'from', None, "import: the weights file, or a folder of EDM2's snapshots."
)
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
_HEADS = flags.DEFINE_string(
    'heads', None, 'import: the file of the heads 2 and 3 of a network of Catch-Up Distillation.'
)
_DENOISER = flags.DEFINE_enum(
    'denoiser',
    None,
    ['diffusion', 'consistency'],
    'import: what the network was trained as; by default the network and the file say it.',
)
_STEP = cli.step_flag('export: ')
_TO = flags.DEFINE_string('to', None, 'export: the .safetensors file to write.')

FORMAT = '.safetensors'
KIMG = 1000  # images in a step of the run folder of EDM2's snapshots
MODELS = {
    'diffusion': 'a diffusion model',
    'consistency': 'a consistency model',
    'flow': 'a model of rectified flow',
}


def required(flag: flags.FlagHolder, meaning: str) -> str:
    """Returns the value of a flag. Raises UserError if it was not given."""
    if not flag.value:
        raise UserError(f'--{flag.name}={meaning} is required')
    return flag.value


def run_config(network: Published) -> ConfigDict:
    """Returns the config of a run folder of imported weights."""
    config = base_config()
    config.steps = 0
    config.ema_rates = ()
    config.update(sections(network))
    return config


def read_published(path: epath.Path, network: str) -> Published:
    """Returns the network in a file, as the flags say. Raises UserError as `read_network` does."""
    return read_network(
        path,
        network,
        ema=_EMA.value,
        augment=_AUGMENT.value,
        trained_as=_DENOISER.value,
        heads=epath.Path(expanded(_HEADS.value)) if _HEADS.value else None,
    )


def import_weights(arguments: Sequence[str]) -> None:
    """Imports a weights file, or a folder of EDM2's snapshots, as a run folder.

    A file is checked before anything is written. Raises UserError if a flag is missing or wrong, if a
    file is no weights file or does not fit the network, or if the run folder exists.
    """
    no_arguments(arguments)
    path, network = epath.Path(expanded(required(_FROM, 'FILE'))), required(_NETWORK, 'NAME')
    workdir = cli.required_workdir(_WORKDIR)
    check_name('network', network, PRESETS)
    if workdir.exists():
        raise UserError(f'{workdir} is there already; choose another --workdir')
    if path.is_dir():
        import_snapshots(path, network, workdir)
        return
    if path.exists():
        print(f'reading {path}, {size(path.stat().length)} ...', flush=True)
    found = read_published(path, network)
    origin = {'file': path.name, 'sha256': sha256(path), **origin_of(network, found)}
    if _HEADS.value:
        origin['heads'] = {_HEADS.value: sha256(epath.Path(expanded(_HEADS.value)))}
    steps = [(0, {item_name(RAW): found.params})]
    write_run(workdir, run_config(found), found, steps, origin)
    print(
        f'{count(found.params):,} parameters of {network} from {path.name} are step 0 of {workdir}: '
        f'{MODELS[found.trained_as]}'
    )
    say_next([f'{command} --workdir={workdir}' for command in ('sample', 'evaluate')])


def import_snapshots(folder: epath.Path, network: str, workdir: epath.Path) -> None:
    """Imports the snapshots in a folder as the steps of a run folder, each with its averages.

    One file at a time is in memory, and one step. Raises UserError if there are none, or if one of
    them is no weights file or does not fit the network, or another kind of model than the first.
    """
    listed = snapshots(folder)
    first = read_published(listed[0].path, network)._replace(params={})  # it is read again below
    config = run_config(first)
    config.batch_size = KIMG  # a step of this run is a thousand images
    config.ema_sigma_rels = tuple(sorted({one.sigma_rel for one in listed}))
    config.trajectory.emas = True
    config.sampling.ema = f'{POWER}{config.ema_sigma_rels[-1]}'
    files = {one.path.name: sha256(one.path) for one in listed}
    origin = {'folder': folder.name, 'files': files, **origin_of(network, first)}

    def averages() -> Iterable[tuple[int, dict[str, Params]]]:
        shown = progress(listed, len(listed), 'importing', 'files')
        for kimg, ones in itertools.groupby(shown, key=lambda one: one.kimg):
            items = {}
            for one in ones:
                found = read_published(one.path, network)
                if (found.settings, found.trained_as) != (first.settings, first.trained_as):
                    raise UserError(f'{one.path} is another kind of model than {listed[0].path}')
                items[item_name(f'{POWER}{one.sigma_rel}')] = found.params
            yield kimg, items

    write_run(workdir, config, first, averages(), origin)
    print(
        f'{len(listed)} averages of {network} from {folder} are the steps {listed[0].kimg} to '
        f'{listed[-1].kimg} of {workdir}, in thousands of images: {MODELS[first.trained_as]}'
    )


def origin_of(network: str, found: Published) -> dict[str, Any]:
    """Returns what the run folder keeps of where its weights come from, besides the file."""
    return {
        'made_by': 'import',
        'format': found.file_format,
        'network': network,
        'layout': found.layout,
        'weights': found.prefix[:-1],
        'denoiser': found.trained_as,
    }


def write_run(
    workdir: epath.Path,
    config: ConfigDict,
    network: Published,
    steps: Iterable[tuple[int, Mapping[str, Params]]],
    origin: Mapping[str, Any],
) -> None:
    """Writes a run folder with the weights of `steps`: for each its number and its items by name.

    The folder is built under another name and renamed to `workdir` once it is complete. If that fails,
    nothing is left. Raises UserError if another process is building it, or has.
    """
    building = workdir.parent / f'{workdir.name}.importing'
    with locks.hold(building):
        if workdir.exists():
            raise UserError(f'{workdir} is there already; choose another --workdir')
        for left in building.iterdir():  # by an import that was killed
            if left.name != locks.LOCK:
                left.rmtree() if left.is_dir() else left.unlink()
        try:
            write_files(building, config, network, steps, origin)
        except BaseException:
            building.rmtree()
            raise
        building.rename(workdir)


def write_files(
    folder: epath.Path,
    config: ConfigDict,
    network: Published,
    steps: Iterable[tuple[int, Mapping[str, Params]]],
    origin: Mapping[str, Any],
) -> None:
    """Writes the files of a run folder; the arguments are those of `write_run`."""
    preset, dataset = network.preset, config.dataset
    card = {'name': dataset.name or dataset.source, 'split': dataset.split}
    card |= {'image_shape': list(preset.image_shape), 'num_classes': preset.num_classes}
    write_config(folder, to_plain(config))
    write_record(folder / DATA_CARD, card)
    write_record(folder / ORIGIN, origin)
    with checkpoint.Stream(folder / TRAJECTORY) as stream:
        for step, items in steps:
            stream.save(step, items, {'step': step})


def export_weights(arguments: Sequence[str]) -> None:
    """Exports the weights of a run folder to a file with the official names and layout.

    The metadata of the file hold all that is needed to use them: the layout, the config, the image
    shape and so on. Raises UserError if a flag is missing or wrong, or if the file exists.
    """
    no_arguments(arguments)
    run = open_run(cli.required_workdir(_WORKDIR, writes=False))
    objective = run.config.objective.name
    if objective not in TRAINED_AS:
        raise UserError(
            f'{run.workdir}: weights of the objective {objective!r} have no file format here; legal: '
            f'{", ".join(TRAINED_AS)}'
        )
    to = epath.Path(expanded(required(_TO, f'FILE{FORMAT}')))
    if to.suffix != FORMAT:
        raise UserError(f'--to={to}: export writes only {FORMAT} files')
    if to.exists() or not to.parent.exists():
        problem = 'is there already' if to.exists() else 'is in a folder that does not exist'
        raise UserError(f'--to={to} {problem}')
    step, ema = run.step(_STEP.value), _EMA.value or RAW
    params = net_params(run.settings, run.params(step, ema))
    has_origin = (run.workdir / ORIGIN).exists()
    origin = read_record(run.workdir, ORIGIN, dict) if has_origin else {}
    config, shape = run.config, tuple(run.card['image_shape'])
    layout = origin.get('layout') or names.own_layout(config.model.to_dict())
    classes = run.parts.generative_model.num_classes
    state = names.to_state(params, config.model.to_dict(), shape, classes, layout)
    metadata = {
        'made_by': EXPORTED,
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
        differences = fixtures.check(expanded(path))
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
