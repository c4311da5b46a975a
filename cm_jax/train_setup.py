"""A training run from its config: built and checked, before any compute."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from etils import epath

from cm_jax import data, optim, sharding
from cm_jax.core import ema, tree
from cm_jax.errors import UserError, call, check_name
from cm_jax.generate import build_sampler
from cm_jax.run import RAW
from cm_jax.train_step import TrainState, init_state, make_train_step
from cm_jax.transfer import initial_weights, open_frozen
from cm_jax.types import Distance, Params
from cm_jax.wiring import evaluation, open_data, wire


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
    if not 0 <= config.seed < 2**31:
        raise UserError(f'config.seed must be from 0 to {2**31 - 1}, got {config.seed}')
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
