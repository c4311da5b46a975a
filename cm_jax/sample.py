"""Sample: `python -m cm_jax.sample --workdir=runs/digits/ect --sampler=multistep@80,0.8`.

Writes a grid of samples as PNG, and with --npz the samples themselves, into the run's `samples/`.
What is not given is taken from the run's config (or, with --config, from that config's `sampling`).
"""

from collections.abc import Sequence

import numpy as np
from absl import flags

from cm_jax import cli
from cm_jax.errors import UserError
from cm_jax.plotting import write_grid
from cm_jax.run import open_run
from cm_jax.run_folder import SAMPLES, weights_file_label, write_json
from cm_jax.settings import parse_run

_CONFIG = cli.config_flag('takes `sampling` from this config')
_WORKDIR = cli.workdir_flag()
_STEP = cli.step_flag()
_EMA = cli.ema_flag()
_SAMPLER = flags.DEFINE_string(
    'sampler', None, 'e.g. onestep, multistep@80,0.8, tuned, heun@18+cfg1.5'
)
_COUNT = flags.DEFINE_integer('count', None, 'number of samples')
_SEED = flags.DEFINE_integer('seed', 0, 'stream of noise')
_COLUMNS = flags.DEFINE_integer('columns', 10, 'pictures a row of the grid')
_NPZ = flags.DEFINE_bool('npz', False, 'write the samples as uint8 [N,H,W,C] too')


def main(argv: Sequence[str]) -> None:
    del argv
    run = open_run(cli.required_workdir(_WORKDIR))
    settings = run.settings
    if _CONFIG.value is not None:
        settings = parse_run(cli.required_config(_CONFIG).to_dict())
    sampling, seed = settings.sampling, _SEED.value
    ema = sampling.ema if _EMA.value is None else _EMA.value
    count = sampling.count if _COUNT.value is None else _COUNT.value
    if count < 1 or _COLUMNS.value < 1 or seed < 0:
        raise UserError('sample needs --count >= 1, --columns >= 1 and --seed >= 0')
    step = run.step(_STEP.value)
    sampler = sampling.sampler if _SAMPLER.value is None else _SAMPLER.value
    sampler = run.sampler_spec(sampler, step, ema)
    images = run.sample(run.params(step, ema), sampler, count, seed)
    name = f'{sampler}_step{step}_{weights_file_label(ema)}_seed{seed}'.replace(',', '-')
    folder = run.workdir / SAMPLES
    folder.mkdir(exist_ok=True)
    write_grid(folder / f'{name}.png', images, _COLUMNS.value)
    record = {
        'sampler': sampler,
        'ema': ema,
        'count': count,
        'step': step,
        'seed': seed,
        'workdir': str(run.workdir),
    }
    write_json(folder / f'{name}.json', record)
    if _NPZ.value:
        with (folder / f'{name}.npz').open('wb') as file:
            np.savez(file, images=images)
    print(f'{count} samples: {folder / name}.png')


if __name__ == '__main__':
    cli.run(main)
