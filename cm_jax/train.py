"""Train: `python -m cm_jax.train --config=configs/digits_edm.py --workdir=runs/teacher`.

The same command again continues a run that was stopped or killed, and says so if it is done.
"""

import json
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import config_flags

from cm_jax import checkpoint, commands, data, optim, sharding
from cm_jax import config as configs
from cm_jax.core import ema, tree
from cm_jax.errors import UserError, call, check_name
from cm_jax.logs import Log, append_json_line, write_grid, write_text
from cm_jax.metrics.features import round_uint8
from cm_jax.run import (
    RAW,
    RESUME,
    TRAJECTORY,
    evaluation,
    initial_weights,
    item_name,
    open_data,
    open_frozen,
    store_card,
    wire,
)
from cm_jax.scores import build_sampler, make_generator
from cm_jax.train_step import TrainState, init_state, make_train_step
from cm_jax.types import Distance, Params

_CONFIG = config_flags.DEFINE_config_file('config', None, 'config file, e.g. configs/digits_ect.py')
_WORKDIR = flags.DEFINE_string('workdir', None, 'the run folder')
_FRESH = flags.DEFINE_bool('fresh', False, 'set the folder of another run aside and start afresh')
_DISTRIBUTED = flags.DEFINE_string(
    'distributed', '', 'one of several processes: auto (TPU pod, Slurm), or HOST:PORT,COUNT,INDEX'
)


class Loop(NamedTuple):
    """A config's `train` section."""

    accumulate: int
    weights: str
    log_every: int
    resume_every: int
    resume_keep: int
    stop_after_skipped: int


class Trajectory(NamedTuple):
    """A config's `trajectory` section: snapshots at start, start + every, ... and the last step."""

    start: int
    every: int
    emas: bool

    def due(self, step: int, last: int) -> bool:
        return step == last or (step >= self.start and (step - self.start) % self.every == 0)


class Sampling(NamedTuple):
    """A config's `sampling` section."""

    sampler: str
    ema: str
    count: int
    every: int


class Setup(NamedTuple):
    """A training run, built and checked, before any compute."""

    config: Any
    workdir: epath.Path
    loop: Loop
    trajectory: Trajectory
    sampling: Sampling
    mesh: Any
    batches: data.Batches
    subject: Any
    state: Callable[[], TrainState]  # the state before the first step, born sharded
    template: Any  # its shapes and shardings
    step: Callable  # jitted
    lpips: Distance | None
    teacher: Params  # frozen weights that the objective learns from, or ()


def setup(config: Any, workdir: epath.Path) -> Setup:
    """Builds everything that the config describes. Raises UserError on whatever is wrong in it."""
    if config.steps is None or config.steps < 1:
        raise UserError(f'config.steps must be at least 1, got {config.steps}')
    loop = call('train', Loop, config.train)
    trajectory = call('trajectory', Trajectory, config.trajectory)
    sampling = call('sampling', Sampling, config.sampling)
    for name in ('log_every', 'resume_every', 'resume_keep', 'stop_after_skipped'):
        if getattr(loop, name) < 1:
            raise UserError(f'config.train.{name} must be at least 1, got {getattr(loop, name)}')
    if trajectory.every < 1 or sampling.every < 1 or sampling.count < 1:
        raise UserError('config.trajectory.every, sampling.every and sampling.count must be >= 1')
    averages = ema.averages(config.ema_rates, config.ema_sigma_rels)
    if sampling.ema != RAW:
        check_name('average config.sampling.ema', sampling.ema, averages)
    mesh = sharding.make_mesh()
    sharding.check_batch(config.batch_size, loop.accumulate, mesh)
    source = open_data(config)
    batches = data.Batches(
        source, config.batch_size, config.seed, jax.process_index(), jax.process_count()
    )
    frozen = open_frozen(config, source.image_shape)
    parts = wire(config, source.image_shape, source.num_classes, frozen)
    for spec in (sampling.sampler, *evaluation(config).samplers):
        build_sampler(spec, parts.subject)
    optimizer = optim.build(config.optimizer)
    init_key, train_key = jax.random.split(jax.random.key(config.seed))
    weights = initial_weights(
        config, jax.eval_shape(parts.model.init, init_key), source.image_shape
    )

    def initial(*weights: Params) -> TrainState:
        params = weights[0] if weights else parts.model.init(init_key)
        return init_state(parts.model.project(params), parts.objective, optimizer, averages)

    given = () if weights is None else (weights,)
    shapes = jax.eval_shape(initial, *given)
    shardings = sharding.for_weights(shapes, mesh, loop.weights)
    template = jax.tree.map(
        lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes, shardings
    )
    places = sharding.for_weights(frozen.weights, mesh, loop.weights)
    step = jax.jit(
        make_train_step(
            parts.objective, optimizer, averages, train_key, loop.accumulate, parts.model.project
        ),
        in_shardings=(shardings, sharding.by_example(mesh), places),
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0,
    )

    def state() -> TrainState:
        return jax.jit(initial, out_shardings=shardings)(*given)

    teacher = jax.device_put(frozen.weights, places)
    built = (mesh, batches, parts.subject, state, template, step, frozen.lpips, teacher)
    return Setup(config, workdir, loop, trajectory, sampling, *built)


def describe(s: Setup, first: int) -> str:
    """What a run is about to do, for the terminal."""
    config, per_device = s.config, s.config.batch_size // s.mesh.size
    micro = per_device // s.loop.accumulate
    kind = s.mesh.devices.flat[0].device_kind
    params = tree.count(s.template.params)
    snapshots = sum(s.trajectory.due(step, config.steps) for step in range(config.steps + 1))
    lines = [
        f'{config.objective.name} on {s.batches.source.name} '
        f'({s.batches.source.count:,} images {"x".join(map(str, s.subject.image_shape))})',
        f'network {config.model.name}, {params:,} parameters; {s.mesh.size} x {kind}',
        f'batch {config.batch_size} = {s.mesh.size} devices x {s.loop.accumulate} x {micro}; '
        f'{config.steps:,} steps = {config.steps * config.batch_size:,} images',
        f'trajectory: {snapshots} snapshots of {4e-6 * params:.1f} MB',
    ]
    if first:
        lines.append(f'continues at step {first:,}')
    return '\n'.join(f'  {line}' for line in lines)


def weights_items(state: TrainState, emas: bool) -> dict[str, Params]:
    """The items of a trajectory step."""
    averages = {item_name(name): params for name, params in state.emas.items()} if emas else {}
    return {item_name(RAW): state.params} | averages


class Stopper:
    """Notes SIGTERM and SIGINT, so that the loop can save and end between two steps.

    With several processes JAX's own watch is asked, so that all of them stop after the same step.
    """

    def __init__(self):
        self.signal = 0
        if jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._note)

    def asked(self, step: int) -> bool:
        """Whether to save and end after `step`."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return bool(self.signal)

    def _note(self, number: int, frame: Any) -> None:
        if self.signal:  # asked twice: do not wait for the step
            sys.exit(128 + number)
        self.signal = number


def check_skips(step: int, metrics: dict, limit: int, workdir: epath.Path) -> None:
    """Logs a skipped step; ends the run after `limit` in a row, with the reason."""
    if not metrics['skipped_in_row']:
        return
    reason = {name: float(metrics[name]) for name in ('loss', 'grad_norm', 't_bad')}
    if sharding.is_primary():
        append_json_line(workdir / 'skipped.jsonl', {'step': step} | reason)
    if metrics['skipped_in_row'] >= limit:
        raise UserError(
            f'{limit} steps in a row were not finite, the last is step {step} (loss '
            f'{reason["loss"]}, gradient norm {reason["grad_norm"]}, at noise level t = '
            f'{reason["t_bad"]:.4g}; all of them in {workdir}/skipped.jsonl). Weights stay at the '
            'last finite step. Try a lower optimizer.learning_rate, optimizer.clip or float32'
        )


def picture(s: Setup, generate: Callable, state: TrainState, step: int) -> None:
    """Writes the grid of samples of `step`."""
    params = state.emas[s.sampling.ema] if s.sampling.ema else state.params
    images = generate(params, s.config.seed, 0)
    if not sharding.is_primary():
        return
    folder = s.workdir / 'samples'
    folder.mkdir(exist_ok=True)
    columns = 10 if s.subject.num_classes == 10 else 8
    scale = max(1, 48 // images.shape[1])
    write_grid(folder / f'{step:08d}.png', images, columns, scale)


def train(
    s: Setup,
    log: Log,
    resume: checkpoint.Stream,
    trajectory: checkpoint.Stream,
    state: TrainState,
    first: int,
) -> int:
    """The loop, from step `first`. Returns the signal that ended it early, or 0."""
    last, loop = s.config.steps, s.loop
    sampler = build_sampler(s.sampling.sampler, s.subject)
    generate = make_generator(s.subject, sampler, s.mesh, s.sampling.count, round_uint8)
    stopper = Stopper()
    rows, late = [], None
    block = jax.default_backend() == 'cpu' and s.mesh.size > 1  # fake devices dislike a queue

    def save_weights(step: int) -> None:
        if s.trajectory.due(step, last) and step not in trajectory.steps():
            items = weights_items(state, s.trajectory.emas or step == last)
            trajectory.save(step, items, {'step': step})

    def note(step: int, metrics: dict) -> None:
        metrics = jax.device_get(metrics)
        check_skips(step, metrics, loop.stop_after_skipped, s.workdir)
        rows.append(metrics)
        if step % loop.log_every == 0 or step == last:
            log.write(step, {k: float(np.mean([row[k] for row in rows])) for k in rows[0]})
            rows.clear()

    save_weights(first)
    for step in range(first + 1, last + 1):
        batch = sharding.to_devices(next(s.batches), s.mesh)
        state, metrics = s.step(state, batch, s.teacher)
        if block:
            jax.block_until_ready(state)
        if late:  # the metrics of the step before, so that the device never waits for the host
            note(*late)
        late = (step, metrics)
        log.tick(step)
        save_weights(step)
        if step % s.sampling.every == 0 or step == last:
            picture(s, generate, state, step)
        stop = stopper.asked(step)
        if step % loop.resume_every == 0 or step == last or stop:
            note(*late)
            late = None
            trajectory.wait()  # a resume step vouches for the snapshots before it
            resume.save(step, {'state': state}, {'data': s.batches.state()})
        if stop:
            break
    return stopper.signal


def store_distance(workdir: epath.Path, lpips: Distance | None) -> None:
    """Records which LPIPS a run learns with. Raises UserError if it began with another."""
    path = workdir / 'distance.json'
    if lpips is None:
        return
    found = {'distance': lpips.name} | dict(lpips.checksums)
    if path.exists() and json.loads(path.read_text()) != found:
        raise UserError(f'{path} says that this run began with other weights of {lpips.name}')
    write_text(path, json.dumps(found, indent=1) + '\n')


def start(config: Any, workdir: epath.Path, fresh: bool) -> Setup:
    """Checks the config and claims the folder: the first writes of a run."""
    s = setup(config, workdir)
    plain = configs.to_plain(config)
    if (workdir / configs.ORIGIN).exists() and not fresh:
        raise UserError(f'{workdir} holds weights that were not trained there; choose another')
    if fresh and sharding.is_primary() and (aside := configs.set_aside(workdir)):
        print(f'  the old {workdir} is now {aside}')
    is_new = configs.claim_workdir(workdir, plain)
    if sharding.is_primary():
        if is_new:
            configs.write_config(workdir, plain)
        store_card(workdir, s.batches.source)
        store_distance(workdir, s.lpips)
    sharding.wait_for_all('run folder')
    return s


def restore(s: Setup, resume: checkpoint.Stream) -> tuple[int, TrainState]:
    """The newest step of a run and its state; the data goes on from there too."""
    steps = resume.steps()
    if not steps:
        return 0, s.state()
    trees, meta = resume.restore(steps[-1], {'state': s.template})
    s.batches.restore(meta['data'])
    return steps[-1], trees['state']


def main(argv: Sequence[str]) -> None:
    del argv
    config = commands.required_config(_CONFIG)
    workdir = commands.required_workdir(_WORKDIR)
    commands.join_processes(_DISTRIBUTED.value)
    s = start(config, workdir, _FRESH.value)
    with (
        checkpoint.Stream(workdir / RESUME, keep=s.loop.resume_keep) as resume,
        checkpoint.Stream(workdir / TRAJECTORY) as trajectory,
    ):
        first, state = restore(s, resume)
        if first >= config.steps:
            print(f'{workdir} is done: {first:,} of {config.steps:,} steps')
            return
        trajectory.delete_after(first)  # of a killed run: they come again
        if sharding.is_primary():
            print(describe(s, first), flush=True)
        with Log(workdir, first, config.steps, config.batch_size, sharding.is_primary()) as log:
            stopped = train(s, log, resume, trajectory, state, first)
    if stopped:
        print(f'stopped by signal {stopped}; the same command continues the run', file=sys.stderr)
        sys.exit(128 + stopped)


if __name__ == '__main__':
    commands.run(main)
