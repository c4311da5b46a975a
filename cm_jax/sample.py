"""Sample: `python -m cm_jax.sample --workdir=runs/quickstart/ect --sampler=multistep@80,0.8`.

Writes a grid of samples as PNG, and with --npz the samples themselves, into the run's `samples/`.
What is not given is taken from the run's config (or, with --config, from that config's `sampling`).
"""

import json
from collections.abc import Sequence

import numpy as np
from absl import flags
from ml_collections import config_flags

from cm_jax import commands
from cm_jax.errors import UserError
from cm_jax.logs import write_grid, write_text
from cm_jax.run import open_run

_CONFIG = config_flags.DEFINE_config_file('config', None, 'takes `sampling` from this config')
_WORKDIR = flags.DEFINE_string('workdir', None, 'the run folder')
_STEP = flags.DEFINE_integer('step', None, 'step of the trajectory; the last if not given')
_EMA = flags.DEFINE_string(
    'ema', None, "which average, e.g. 0.999 or posthoc0.07; '' is the weights themselves"
)
_SAMPLER = flags.DEFINE_string(
    'sampler', None, 'e.g. onestep, multistep@80,0.8, tuned, heun@18+cfg1.5'
)
_COUNT = flags.DEFINE_integer('count', None, 'number of samples')
_SEED = flags.DEFINE_integer('seed', 0, 'stream of noise')
_COLUMNS = flags.DEFINE_integer('columns', 10, 'pictures a row of the grid')
_NPZ = flags.DEFINE_bool('npz', False, 'write the samples as uint8 [N,H,W,C] too')


def main(argv: Sequence[str]) -> None:
    del argv
    run = open_run(commands.required_workdir(_WORKDIR))
    config = run.config if _CONFIG.value is None else commands.required_config(_CONFIG)
    given = {'sampler': _SAMPLER.value, 'ema': _EMA.value, 'count': _COUNT.value}
    chosen = {k: config.sampling[k] if v is None else v for k, v in given.items()}
    if chosen['count'] < 1 or _COLUMNS.value < 1 or _SEED.value < 0:
        raise UserError('sample needs --count >= 1, --columns >= 1 and --seed >= 0')
    step = run.step(_STEP.value)
    chosen['sampler'] = run.sampler_spec(chosen['sampler'], step, chosen['ema'])
    params = run.params(step, chosen['ema'])
    images = run.sample(params, chosen['sampler'], chosen['count'], _SEED.value)
    weights = f'ema{chosen["ema"]}' if chosen['ema'] else 'weights'
    name = f'{chosen["sampler"]}_step{step}_{weights}_seed{_SEED.value}'.replace(',', '-')
    folder = run.workdir / 'samples'
    folder.mkdir(exist_ok=True)
    write_grid(folder / f'{name}.png', images, _COLUMNS.value, max(1, 48 // images.shape[1]))
    record = chosen | {'step': step, 'seed': _SEED.value, 'workdir': str(run.workdir)}
    write_text(folder / f'{name}.json', json.dumps(record, indent=1) + '\n')
    if _NPZ.value:
        with (folder / f'{name}.npz').open('wb') as file:
            np.savez(file, images=images)
    print(f'{chosen["count"]} samples: {folder / name}.png')


if __name__ == '__main__':
    commands.run(main)
