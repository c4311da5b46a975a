"""Edit: `python -m cm_jax.edit --workdir=runs/digits/ect --task=inpaint --mask=left`.

Images of the run's own data, of which a part is hidden, are completed by a consistency model that was
not trained for it: inpaint (--mask), colorize, superres (--factor). Writes a picture into the run's
`samples/`, with a column for each image and rows for the original, what is known of it, and the
results from --results draws of noise; and beside it a record of what was done. A network with classes
is told the class of each image.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from cm_jax import cli, samplers
from cm_jax.data import to_float
from cm_jax.editing import tasks, zero_shot
from cm_jax.errors import UserError, check_name
from cm_jax.plotting import write_grid
from cm_jax.run import Run, open_run
from cm_jax.run_folder import SAMPLES, weights_file_label, write_json
from cm_jax.types import Array, Params
from cm_jax.wiring import open_data

_WORKDIR = cli.workdir_flag()
_TASK = flags.DEFINE_string('task', None, f'one of {", ".join(tasks.TASKS)}')
_MASK = flags.DEFINE_string('mask', 'center', f'what inpaint lacks: {", ".join(tasks.MASKS)}')
_FACTOR = flags.DEFINE_integer('factor', 2, 'of superres: patches of factor x factor are known')
_LEVELS = flags.DEFINE_string(
    'levels', None, 'noise levels, descending from t_max, e.g. 80,10,1; default 16 on the EDM grid'
)
_STEP = cli.step_flag()
_EMA = cli.ema_flag()
_SPLIT = flags.DEFINE_string('split', 'test', 'split of the data that the images are taken from')
_COUNT = flags.DEFINE_integer('count', 8, 'number of images, evenly spread over the split')
_RESULTS = flags.DEFINE_integer('results', 2, 'draws of noise, a row of results each')
_SEED = flags.DEFINE_integer('seed', 0, 'stream of noise')


def parse_levels(text: str | None, run: Run) -> np.ndarray:
    """The levels of --levels; without it those of ddim@16, which has t_min as its end left out."""
    if text is None:
        return np.array(samplers.build('ddim@16', run.parts.process).levels[:-1], np.float32)
    return samplers.parse_levels(text, run.parts.process, '--levels=').astype(np.float32)


def make_task(name: str, image_shape: tuple[int, int, int], keys: Array) -> tasks.Task:
    """The task of --task. Raises UserError if it is unknown or does not suit the images."""
    check_name('--task', name, tasks.TASKS)
    if name == 'inpaint':
        return tasks.inpainting(tasks.make_mask(_MASK.value, image_shape, keys))
    if name == 'colorize':
        return tasks.colorization(image_shape)
    return tasks.superresolution(image_shape, _FACTOR.value)


def make_program(run: Run, task: tasks.Task, ts: np.ndarray, seed: int) -> Callable[..., Array]:
    """`program(params, images, label, draw)` -> edited images; one compilation for all draws."""
    parts = run.parts

    def program(params: Params, images: Array, label: Array | None, draw: Array) -> Array:
        stream = jax.random.fold_in(jax.random.key(seed), draw)
        keys = jax.vmap(lambda i: jax.random.fold_in(stream, i))(np.arange(len(images)))
        start, fresh = jax.vmap(jax.random.split, out_axes=1)(keys)
        noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(start)
        return zero_shot.edit(
            lambda x, t: parts.objective.denoise(params, x, t, label),
            parts.process,
            task,
            images,
            parts.process.prior_std * noise,
            ts,
            fresh,
        )

    return jax.jit(program)


def file_name(record: Mapping[str, Any]) -> str:
    """'edit_inpaint-left_16levels_step800_ema0.99_seed0_1f3a': the last part is the record's digest,
    so that no picture takes the place of another."""
    detail = ''.join(f'-{record[part]}' for part in ('mask', 'factor') if record[part] is not None)
    weights = weights_file_label(record['ema'])
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:6]
    return (
        f'edit_{record["task"]}{detail}_{len(record["levels"])}levels_step{record["step"]}_{weights}'
        f'_seed{record["seed"]}_{digest}'
    )


def main(argv: Sequence[str]) -> None:
    del argv
    run = open_run(cli.required_workdir(_WORKDIR))
    count, results, seed = _COUNT.value, _RESULTS.value, _SEED.value
    if count < 1 or results < 1 or seed < 0:
        raise UserError('edit needs --count >= 1, --results >= 1 and --seed >= 0')
    ts = parse_levels(_LEVELS.value, run)
    shape = run.parts.generative_model.image_shape
    task = make_task(_TASK.value, shape, jax.random.split(jax.random.key(seed), count))
    source = open_data(run.settings.dataset, _SPLIT.value)
    if count > source.count:
        raise UserError(f'--count={count}, and split {_SPLIT.value!r} has {source.count} images')
    step = run.step(_STEP.value)
    ema = run.settings.sampling.ema if _EMA.value is None else _EMA.value
    params = run.params(step, ema)

    indices = np.arange(count) * source.count // count
    originals, labels = source.get(indices)
    images = to_float(originals)
    label = labels if run.parts.generative_model.num_classes else None
    program = make_program(run, task, ts, seed)
    rows = [images, task.show(zero_shot.measured(task, images))]
    rows += [program(params, images, label, draw) for draw in range(results)]

    record = {
        'task': _TASK.value,
        'mask': _MASK.value if _TASK.value == 'inpaint' else None,
        'factor': _FACTOR.value if _TASK.value == 'superres' else None,
        'levels': ts.tolist(),
        'split': _SPLIT.value,
        'indices': indices.tolist(),
        'results': results,
        'ema': ema,
        'step': step,
        'seed': seed,
        'workdir': str(run.workdir),
    }
    name = file_name(record)
    folder = run.workdir / SAMPLES
    folder.mkdir(exist_ok=True)
    write_grid(folder / f'{name}.png', np.concatenate(jax.device_get(rows)), count)
    write_json(folder / f'{name}.json', record)
    print(f'{count} images, {results} results each: {folder / name}.png')


if __name__ == '__main__':
    cli.run(main)
