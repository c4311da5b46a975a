"""Completes images of which a part is hidden, by a consistency model that was not trained for it.

    python -m cm_jax.edit --workdir=runs/digits/ect --task=inpaint --mask=left

The images are those of the run's own data set. The task says what is hidden: `inpaint` hides the pixels
that --mask names, `colorize` the colours, and `superres` all but the mean of each patch of
--factor x --factor pixels. If the network has classes, it is told the class of each image.

It writes a picture into the folder `samples` of the run, and beside it a JSON file that records how the
picture was made. The picture has a column for each image. Its rows are the original, what is known of
it, and --results completions, each from noise of its own.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from cm_jax import cli, samplers
from cm_jax.bounds import BatchSize, Pixels
from cm_jax.data import to_float
from cm_jax.editing import tasks, zero_shot
from cm_jax.errors import UserError, check_name
from cm_jax.plotting import write_grid
from cm_jax.run import Run, open_run
from cm_jax.run_folder import SAMPLES, weights_file_label, write_json
from cm_jax.settings import Seed
from cm_jax.terminal import progress
from cm_jax.types import Array, Params
from cm_jax.wiring import open_data

_WORKDIR = cli.workdir_flag()
_TASK = flags.DEFINE_string('task', None, f'what is hidden: {", ".join(tasks.TASKS)}')
_MASK = flags.DEFINE_string(
    'mask', 'center', f'which part of an image inpaint hides: {", ".join(tasks.MASKS)}'
)
_FACTOR = cli.number_flag('factor', 2, 'the side, in pixels, of the patches of superres', Pixels)
_LEVELS = flags.DEFINE_string(
    'levels', None, "noise levels, descending from t_max, e.g. 80,10,1; default: 16 on EDM's grid"
)
_STEP = cli.step_flag()
_EMA = cli.ema_flag()
_SPLIT = flags.DEFINE_string('split', 'test', 'split of the data that the images are taken from')
_COUNT = cli.number_flag('count', 8, 'how many images, evenly spread over the split')
_RESULTS = cli.number_flag('results', 2, 'how many completions of each image', BatchSize)
_SEED = cli.number_flag('seed', 0, 'seed of the noise', Seed)


def parse_levels(text: str | None, run: Run) -> np.ndarray:
    """Returns the noise levels that --levels lists, or 16 levels if it was not given.

    These 16 are the levels of the sampler ddim@16 without its end, t_min. Raises UserError if the
    levels are not numbers that descend from t_max.
    """
    if text is None:
        return np.array(samplers.build('ddim@16', run.parts.process).levels[:-1], np.float32)
    return samplers.parse_levels(text, run.parts.process, '--levels=').astype(np.float32)


def make_task(name: str | None, image_shape: tuple[int, int, int], keys: Array) -> tasks.Task:
    """Returns the task that --task names.

    `keys` [B] are random keys, one for each image; only the mask `random` uses them. Raises UserError
    if no task was given, or if it is unknown or does not suit images of this shape.
    """
    if name is None:
        raise UserError(f'--task=NAME is required; legal: {", ".join(sorted(tasks.TASKS))}')
    check_name('--task', name, tasks.TASKS)
    if name == 'inpaint':
        return tasks.inpainting(tasks.make_mask(_MASK.value, image_shape, keys))
    if name == 'colorize':
        return tasks.colorization(image_shape)
    return tasks.superresolution(image_shape, _FACTOR.value)


def make_program(run: Run, task: tasks.Task, ts: np.ndarray, seed: int) -> Callable[..., Array]:
    """Returns the jitted `program(params, images, label, draw) -> completed images` [B,H,W,C].

    `images` are [B,H,W,C] and `label` is [B] or None. The integer `draw` chooses the noise, that of
    another draw being independent; one compilation serves all draws. `ts` [n] are the noise levels.
    """
    parts = run.parts

    def program(params: Params, images: Array, label: Array | None, draw: Array) -> Array:
        draw_key = jax.random.fold_in(jax.random.key(seed), draw)
        keys = jax.vmap(lambda i: jax.random.fold_in(draw_key, i))(np.arange(len(images)))
        first_keys, later_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(first_keys)
        return zero_shot.edit(
            lambda x, t: parts.objective.denoise(params, x, t, label),
            parts.process,
            task,
            images,
            parts.process.prior_std * noise,
            ts,
            later_keys,
        )

    return jax.jit(program)


def file_name(record: Mapping[str, Any]) -> str:
    """Returns the name of a picture's files, without the ending.

    For example 'edit_inpaint-left_16levels_step800_ema0.99_seed0_1f3a5c'. The last part is the
    beginning of the sha256 of the record, so that pictures of different records get different names.
    """
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
    ts = parse_levels(_LEVELS.value, run)
    shape = run.parts.generative_model.image_shape
    source = open_data(run.settings.dataset, _SPLIT.value)
    if count > source.count:
        raise UserError(f'--count={count}, and split {_SPLIT.value!r} has {source.count} images')
    task = make_task(_TASK.value, shape, jax.random.split(jax.random.key(seed), count))
    step = run.step(_STEP.value)
    ema = run.settings.sampling.ema if _EMA.value is None else _EMA.value
    params = run.params(step, ema)

    indices = np.arange(count) * source.count // count
    originals, labels = source.get(indices)
    images = to_float(originals)
    label = labels if run.parts.generative_model.num_classes else None
    program = make_program(run, task, ts, seed)
    rows = [images, task.show(zero_shot.measured(task, jnp.asarray(images)))]
    for draw in progress(range(results), results, 'completing:', 'results', leave=False):
        rows.append(jax.block_until_ready(program(params, images, label, draw)))

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
    print('rows of the picture: the original, what is known of it, then the results')
    print(f'{count} images, {results} results each: {folder / name}.png')


if __name__ == '__main__':
    cli.run(main)
