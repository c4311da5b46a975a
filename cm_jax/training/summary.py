"""What the terminal shows of a training run: its resolved settings before it, what to do after it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from cm_jax import objectives
from cm_jax.core import curriculum, tree
from cm_jax.models import with_defaults
from cm_jax.run_folder import EVENTS, METRICS, RESUME, SAMPLES, TRAJECTORY, weights_label
from cm_jax.settings import RunSettings, WeightsOf
from cm_jax.terminal import say_next, size, table
from cm_jax.training.setup import Setup

Settings = Mapping[str, Any]  # of the objective, with its defaults


def describe(run: Setup, first_step: int) -> str:
    """Returns what a run is about to do, from step `first_step` on, as a table for the terminal."""
    settings, last = run.settings, run.last_step
    rows = {
        'method': settings.objective['name'],
        'data': _data(run),
        'network': _network(run),
        'devices': _devices(run),
        'batch': _batch(run),
        'steps': f'{last:,}, which see {last * settings.batch_size:,} images',
        'noise levels': f't from {settings.process["t_min"]:g} to {settings.process["t_max"]:g} '
        f'({settings.process["name"]})',
        'schedule': schedule(settings.objective, last),
        'optimiser': _optimiser(settings.optimizer),
        'starts from': _weights_of(settings.init_from),
        'teacher': _weights_of(settings.teacher),
        'averages': ', '.join(run.state_template.emas) or 'none',
        'memory': _memory(run),
        'scores': _scores(run),
        'written': _written(run),
        'state': f'continues at step {first_step:,}' if first_step else '',
    }
    return table({name: value for name, value in rows.items() if value})


def say_done(run: Setup, config_file: epath.Path) -> None:
    """Prints where a complete run has its results, and the commands that use them.

    The search is among them if there is a config of one beside `config_file`, of the same method or
    data set.
    """
    workdir, last = run.workdir, run.last_step
    print(f'{workdir} is done: {last:,} of {last:,} steps')
    print(f'  weights in {TRAJECTORY}/, losses in {METRICS}')
    print(f'  picture: {workdir / SAMPLES}/{last:08d}.png', flush=True)
    extractor = '' if run.settings.evaluation.extractor else ' --extractor=inception --weights=FILE'
    commands = [
        f'evaluate --workdir={workdir}{extractor}',
        f'sample --workdir={workdir} --count=100',
    ]
    method, data = config_file.stem, config_file.stem.rpartition('_')[0]
    searches = [config_file.parent / f'{name}_lcsc.py' for name in (method, data)]
    found = [path for path in searches if path.exists()]
    if found and run.settings.trajectory.count(last) > 2:
        commands.append(
            f'search --config={found[0]} --workdir={workdir}_lcsc --config.basis.workdir={workdir}'
        )
    say_next(commands)


def tree_bytes(params: Any, share: bool = False) -> int:
    """Returns the bytes of all arrays of a tree; with `share`, of those parts that one device holds."""
    leaves = jax.tree.leaves(params)
    shapes = [leaf.sharding.shard_shape(leaf.shape) if share else leaf.shape for leaf in leaves]
    return sum(math.prod(shape) * leaf.dtype.itemsize for shape, leaf in zip(shapes, leaves))


def schedule(objective: Mapping[str, Any], steps: int) -> str:
    """Returns the first and the last stage of an objective's schedule over so many steps, or ''.

    An objective whose schedule does not change with the step has none.
    """
    written = SCHEDULES.get(objective['name'])
    return written(objectives.with_defaults(objective), steps - 1) if written else ''


def _ends(what: str, first: Any, last: Any) -> str:
    return f'{what} from {int(first):,} to {int(last):,}'


def _ct(o: Settings, last: int) -> str:
    grid, steps = (o['total_steps'], o['s0'], o['s1']), jnp.array([0, last])
    levels = curriculum.ct_num_scales(steps, *grid)
    rates = curriculum.ct_target_ema(steps, *grid, o['mu0'])
    return f'{_ends("N(k)", *levels)} levels; target EMA from {rates[0]:.4g} to {rates[1]:.4g}'


def _ict(o: Settings, last: int) -> str:
    steps = jnp.array([0, last])
    levels = curriculum.ict_num_scales(steps, o['total_steps'], o['s0'], o['s1'])
    return f'{_ends("N(k)", *levels)} levels'


def _ect(o: Settings, last: int) -> str:
    stages = int(curriculum.ect_stage(jnp.array(last), o['double_every'])) + 1

    def ratio(n: float, stage: int) -> float:
        return max(0.0, 1 - n * o['q'] ** -(stage + 1))

    small, large = 1 + o['k'] / 2, 1.0  # 1 + k sigmoid(-b t) as t goes to 0, and to infinity
    ends = [f'{ratio(n, 0):.3g} to {ratio(n, stages - 1):.3g}' for n in (small, large)]
    return (
        f'{stages} stages of {o["double_every"]:,} steps; r/t from {ends[0]} for small t, from '
        f'{ends[1]} for large t'
    )


def _pd(o: Settings, last: int) -> str:
    steps = [
        curriculum.pd_num_steps(jnp.array(step), o['halve_every'], o['start_steps'])
        for step in (0, last)
    ]
    return _ends('sampling steps of the student', *steps)


def _cd(o: Settings, last: int) -> str:
    del last
    return f'N = {o["levels"]} levels; {o["solver"]} steps of the teacher'


def _catch_up(o: Settings, last: int) -> str:
    del last
    return f'order {o["order"]}; {o["steps"]} steps of the walk, {o["step_size"]}'


def _one_step(o: Settings, last: int) -> str:
    del last
    each = o['total_steps'] // len(o['estimates'])
    return f'{len(o["estimates"])} phases of about {each:,} steps, estimates {o["estimates"]}'


SCHEDULES: dict[str, Callable[[Settings, int], str]] = {
    'ct': _ct,
    'ict': _ict,
    'ect': _ect,
    'pd': _pd,
    'cd': _cd,
    'catch_up': _catch_up,
    'one_step': _one_step,
}


def _data(run: Setup) -> str:
    source, dataset = run.batches.source, run.settings.dataset
    shape = 'x'.join(map(str, source.image_shape))
    classes = f'{source.num_classes} classes' if source.num_classes else 'no labels'
    if source.num_classes and not run.settings.class_conditional:
        classes += ', of which the network is not told'
    text = f'{source.name}, {source.split}: {source.count:,} images {shape}, {classes}'
    crop = dataset.get('crop', '')
    if crop and not source.crop:
        text += f'\nthe data do not say by which rule they were cropped; the config is for {crop!r}'
    return text


def _network(run: Setup) -> str:
    model = with_defaults(run.settings.model)
    return (
        f'{model["name"]}, {tree.count(run.state_template.params):,} parameters in float32; computes '
        f"in {model['dtype']}, precision '{model['precision']}'"
    )


def _devices(run: Setup) -> str:
    processes = jax.process_count()
    of_processes = f' of {processes} processes' if processes > 1 else ''
    weights = run.settings.train.weights
    placed = f', weights {weights}' if run.mesh.size > 1 else ''
    return f'{run.mesh.size} x {run.mesh.devices.flat[0].device_kind}{of_processes}{placed}'


def _batch(run: Setup) -> str:
    batch, accumulate = run.settings.batch_size, run.settings.train.accumulate
    device = batch // run.mesh.size
    micro = f'in {accumulate} micro-batches of {device // accumulate}' if accumulate > 1 else ''
    return f'{batch} images globally, {device} a device {micro}'.rstrip()


def _optimiser(settings: Mapping[str, Any]) -> str:
    text = f'{settings["name"]}, learning rate {settings["learning_rate"]:g}'
    if settings.get('warmup_steps'):
        text += f' after {settings["warmup_steps"]:,} steps of warm-up'
    if settings.get('decay', 'constant') != 'constant':
        text += f', decay {settings["decay"]}'
    return text


def _weights_of(other: WeightsOf) -> str:
    if not other.workdir:
        return ''
    step = 'last step' if other.step is None else f'step {other.step}'
    return f'{other.workdir}, {step}, {weights_label(other.ema)}'


def _memory(run: Setup) -> str:
    """Returns what a device holds from step to step; activations and the batch come on top."""
    state = run.state_template
    held = {
        'weights': state.params,
        'optimiser': state.opt_state,
        'averages': state.emas,
        'target': state.refs,
        'teacher and LPIPS': run.teacher,
    }
    sizes = {name: tree_bytes(part, share=True) for name, part in held.items()}
    parts = ', '.join(f'{name} {size(count)}' for name, count in sizes.items() if count)
    return f'{size(sum(sizes.values()))} a device: {parts}; activations come on top'


def _scores(run: Setup) -> str:
    loop, sampling = run.settings.train, run.settings.sampling
    if run.scoring is None:
        return ''
    return (
        f'{run.scoring.name} every {loop.evaluate_every:,} steps: {loop.evaluate_samples:,} samples '
        f'by {sampling.sampler}, {weights_label(sampling.ema)}'
    )


def _written(run: Setup) -> str:
    """Returns a line for each thing that is written into the run folder."""
    settings: RunSettings = run.settings
    loop, sampling, trajectory = settings.train, settings.sampling, settings.trajectory
    params, emas = (
        tree_bytes(part) for part in (run.state_template.params, run.state_template.emas)
    )
    count = trajectory.count(run.last_step)
    each = params + emas if trajectory.emas else params
    total = count * each + (0 if trajectory.emas else emas)  # the last one has the averages
    state = tree_bytes(run.state_template)
    return '\n'.join(
        [
            f'in {run.workdir}:',
            f'{TRAJECTORY}/  {count} snapshots of {size(each)}, {size(total)} together',
            f'{RESUME}/  the last {loop.resume_keep} states of {size(state)}, every '
            f'{loop.resume_every:,} steps',
            f'{SAMPLES}/  a grid of {sampling.count} by {sampling.sampler}, '
            f'{weights_label(sampling.ema)}, every {sampling.every:,} steps',
            f'{METRICS}, {EVENTS}/  losses and speed, every {loop.log_every:,} steps',
        ]
    )
