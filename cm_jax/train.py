"""Train: `python -m cm_jax.train --config=configs/digits_edm.py --workdir=runs/teacher`.

The same command again continues a run that was stopped or killed, and says so if it is done.
"""

import json
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import config_flags

from cm_jax import checkpoint, commands, sharding
from cm_jax import config as configs
from cm_jax.errors import UserError
from cm_jax.generate import build_sampler, make_generator
from cm_jax.logs import Log, append_json_line, write_grid, write_text
from cm_jax.metrics.features import to_bytes
from cm_jax.run import RAW, RESUME, TRAJECTORY, item_name, store_card
from cm_jax.train_setup import Setup, describe, setup
from cm_jax.train_step import TrainState
from cm_jax.types import Distance, Params

_CONFIG = config_flags.DEFINE_config_file('config', None, 'config file, e.g. configs/digits_ect.py')
_WORKDIR = flags.DEFINE_string('workdir', None, 'the run folder')
_FRESH = flags.DEFINE_bool('fresh', False, 'set the folder of another run aside and start afresh')
_DISTRIBUTED = flags.DEFINE_string(
    'distributed', '', 'one of several processes: auto (TPU pod, Slurm), or HOST:PORT,COUNT,INDEX'
)


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
    generate = make_generator(s.subject, sampler, s.mesh, s.sampling.count, to_bytes)
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
    """Checks the config and claims the folder: the first writes of a run. The first process does,
    while the others wait."""
    s = setup(config, workdir)
    if sharding.is_primary():
        claim(s, workdir, fresh)
    sharding.wait_for_all('run folder')
    configs.claim_workdir(workdir, configs.to_plain(config))
    return s


def claim(s: Setup, workdir: epath.Path, fresh: bool) -> None:
    """Makes `workdir` this run's. Raises UserError if it is another's, unless `fresh`."""
    plain = configs.to_plain(s.config)
    if (workdir / configs.ORIGIN).exists() and not fresh:
        raise UserError(f'{workdir} holds weights that were not trained there; choose another')
    if fresh and (aside := configs.set_aside(workdir)):
        print(f'  the old {workdir} is now {aside}')
    if configs.claim_workdir(workdir, plain):
        configs.write_config(workdir, plain)
    store_card(workdir, s.batches.source)
    store_distance(workdir, s.lpips)


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
