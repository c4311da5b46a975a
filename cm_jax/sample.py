"""Generates images with the weights of a run, and writes them as a grid.

    python -m cm_jax.sample --workdir=runs/digits/ect --sampler=multistep@80,0.8

The files go into the folder `samples` of the run: the grid as a PNG file, a JSON file that records how
the images were made, and with --npz the images themselves. Where a flag is not given, the section
`sampling` of the run's config decides, or that of --config.
"""

from collections.abc import Sequence

import numpy as np
from absl import flags

from cm_jax import cli
from cm_jax.bounds import Pixels
from cm_jax.files import writing
from cm_jax.plotting import write_grid
from cm_jax.run import open_run
from cm_jax.run_folder import SAMPLES, sampler_file_label, weights_file_label, write_json
from cm_jax.settings import Pictures, Seed, parse_run
from cm_jax.terminal import say_next

_CONFIG = cli.config_flag("a config whose section `sampling` is used in place of the run's own")
_WORKDIR = cli.workdir_flag()
_STEP = cli.step_flag()
_EMA = cli.ema_flag()
_SAMPLER = flags.DEFINE_string(
    'sampler',
    None,
    'the sampler, e.g. onestep, multistep@80,0.8, tuned, heun@18+cfg1.5, heun@32+auto1.7=RUN',
)
_COUNT = cli.number_flag('count', None, 'how many images', Pictures)
_SEED = cli.number_flag('seed', 0, 'seed of the noise', Seed)
_COLUMNS = cli.number_flag('columns', 10, 'how many images stand in a row of the grid', Pixels)
_UNSUPPORTED = cli.unsupported_flag()
_NPZ = flags.DEFINE_bool('npz', False, 'also write the images to an .npz file: uint8 [N,H,W,C]')


def main(argv: Sequence[str]) -> None:
    del argv
    run = open_run(cli.required_workdir(_WORKDIR), _UNSUPPORTED.value)
    sampling, seed = run.settings.sampling, _SEED.value
    if _CONFIG.value is not None:
        sampling = parse_run(cli.required_section(_CONFIG, 'sampling')).sampling
    ema = sampling.ema if _EMA.value is None else _EMA.value
    count = sampling.count if _COUNT.value is None else _COUNT.value
    step = run.step(_STEP.value)
    sampler = sampling.sampler if _SAMPLER.value is None else _SAMPLER.value
    sampler = run.sampler_spec(sampler, step, ema)
    images = run.sample(run.params(step, ema), sampler, count, seed)
    name = f'{sampler_file_label(sampler)}_step{step}_{weights_file_label(ema)}_seed{seed}'
    folder = run.workdir / SAMPLES
    folder.mkdir(exist_ok=True)
    columns = min(count, _COLUMNS.value)
    write_grid(folder / f'{name}.png', images, columns)
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
        with writing(folder / f'{name}.npz') as file:
            np.savez(file, images=images)
    classes = run.parts.generative_model.num_classes
    if classes:
        one_each = ', so that a column has one class' if columns % classes == 0 else ''
        print(f'row by row, the classes are 0 to {classes - 1} in turn{one_each}')
    print(f'{count} samples: {folder / name}.png')
    if _NPZ.value:
        print(f'as numbers, uint8 {list(images.shape)}: {folder / name}.npz')
    weights = f'--step={step} --ema={ema} --sampler={sampler}'
    say_next([f'evaluate --workdir={run.workdir} {weights}'])


if __name__ == '__main__':
    cli.run(main)
