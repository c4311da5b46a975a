"""Trains a model by a config, into a run folder.

    python -m cm_jax.train --config=configs/digits_edm.py --workdir=runs/digits/edm

The same command again continues a run that was stopped or killed, and says so if it is done.
"""

import contextlib
import functools
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from etils import epath
from jax.experimental import multihost_utils

from cm_jax import checkpoint, cli, interrupts, locks, run_folder, sharding
from cm_jax.config import to_plain
from cm_jax.errors import UserError
from cm_jax.files import append_json_line
from cm_jax.generate import build_sampler, make_generator
from cm_jax.metrics.features import to_bytes
from cm_jax.plotting import write_grid
from cm_jax.run_folder import DISTANCE, ORIGIN, RAW, RESUME, SAMPLES, SKIPPED, TRAJECTORY, item_name
from cm_jax.settings import parse_run
from cm_jax.training import precision
from cm_jax.training.logs import Log
from cm_jax.training.setup import Setup, check_attention, set_up
from cm_jax.training.step import TrainState
from cm_jax.training.summary import describe, say_done
from cm_jax.training.weights_and_biases import WeightsAndBiases
from cm_jax.types import Distance, Metrics

_CONFIG = cli.config_flag()
_WORKDIR = cli.workdir_flag()
_FRESH = cli.fresh_flag()
_DISTRIBUTED = flags.DEFINE_string(
    'distributed', '', 'one of several processes: auto (TPU pod, Slurm), or HOST:PORT,COUNT,INDEX'
)


class Stopper:
    """Notes SIGTERM or SIGINT, so that the loop can save and end between two steps.

    A second signal ends the process at once. With several processes JAX's own watch is asked, so that
    all of them stop after the same step.
    """

    def __init__(self):
        self.signal = 0
        if jax.process_count() == 1:
            interrupts.defer(self._note)

    def is_asked_to_stop(self, step: int) -> bool:
        """Returns whether the run is to be saved and ended after `step`."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return bool(self.signal)

    def _note(self, number: int) -> None:
        self.signal = number


class MetricsWriter:
    """Takes the metrics of each step, one step late, and logs their means every `log_every` steps.

    The device never waits for the host: the metrics of a step are fetched after the next step was
    started. A step that was scored is logged too. Raises UserError from `add` or `flush` when too many
    steps in a row were not finite.
    """

    def __init__(self, setup: Setup, log: Log):
        self._setup, self._log = setup, log
        self._pending: tuple[int, Metrics, dict[str, float]] | None = None
        self._since_last_log: list[dict[str, Any]] = []

    def add(self, step: int, metrics: Metrics, scores: dict[str, float]) -> None:
        """Takes the metrics and scores of `step`, and processes those of the step before."""
        self.flush()
        self._pending = step, metrics, scores

    def flush(self) -> None:
        """Processes the metrics that are still pending."""
        if self._pending is not None:
            self._process(*self._pending)
            self._pending = None

    def _process(self, step: int, metrics: Metrics, scores: dict[str, float]) -> None:
        loop, values = self._setup.settings.train, jax.device_get(metrics)
        check_skips(step, values, loop.stop_after_skipped, self._setup.workdir)
        self._since_last_log.append(values)
        if scores or step % loop.log_every == 0 or step == self._setup.last_step:
            rows = self._since_last_log
            means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
            self._log.write(step, means | scores)
            rows.clear()


def check_skips(step: int, metrics: dict[str, Any], limit: int, workdir: epath.Path) -> None:
    """Logs a skipped step; ends the run after `limit` in a row, with the reason."""
    if not metrics['skipped_in_row']:
        return
    reason = {name: float(metrics[name]) for name in ('loss', 'grad_norm', 't_bad')}
    if sharding.is_primary():
        append_json_line(workdir / SKIPPED, {'step': step} | reason)
    if metrics['skipped_in_row'] >= limit:
        raise UserError(
            f'{limit} steps in a row were not finite, the last is step {step} (loss '
            f'{reason["loss"]}, gradient norm {reason["grad_norm"]}, at noise level t = '
            f'{reason["t_bad"]:.4g}; all of them in {workdir}/{SKIPPED}). Weights stay at the '
            'last finite step. Try a lower optimizer.learning_rate, optimizer.clip or float32'
        )


def save_snapshot(setup: Setup, stream: checkpoint.Stream, state: TrainState, step: int) -> None:
    """Saves the weights of `step` in the trajectory, if they belong there and are not saved yet."""
    trajectory = setup.settings.trajectory
    if not trajectory.due(step, setup.last_step) or step in stream.steps():
        return
    with_averages = trajectory.emas or step == setup.last_step
    averages = state.emas if with_averages else {}
    items = {item_name(name): params for name, params in averages.items()}
    stream.save(step, {item_name(RAW): state.params} | items, {'step': step})


def make_picture_writer(setup: Setup) -> Callable[[TrainState, int], None]:
    """Returns `write(state, step)`, which writes the grid of samples of a step."""
    sampling = setup.settings.sampling
    sampler = build_sampler(sampling.sampler, setup.generative_model)
    finish = functools.partial(to_bytes, rule=setup.settings.evaluation.bytes)
    generate = make_generator(setup.generative_model, sampler, setup.mesh, sampling.count, finish)
    columns = 10 if setup.generative_model.num_classes == 10 else 8

    def write(state: TrainState, step: int) -> None:
        images = generate(state.weights(sampling.ema), setup.settings.seed, 0)
        if sharding.is_primary():
            folder = setup.workdir / SAMPLES
            folder.mkdir(exist_ok=True)
            write_grid(folder / f'{step:08d}.png', images, columns)

    return write


def train(
    setup: Setup,
    log: Log,
    resume: checkpoint.Stream,
    trajectory: checkpoint.Stream,
    state: TrainState,
    first_step: int,
) -> int:
    """Runs the loop from step `first_step`. Returns the signal that ended it early, or 0."""
    settings, last_step = setup.settings, setup.last_step
    write_picture, metrics_writer = make_picture_writer(setup), MetricsWriter(setup, log)
    score = setup.scoring.start() if setup.scoring else None
    stopper: Stopper | None = None
    # Fake devices on one CPU deadlock when many steps are queued.
    wait_for_each_step = jax.default_backend() == 'cpu' and setup.mesh.size > 1
    save_snapshot(setup, trajectory, state, first_step)
    if sharding.is_primary():
        print('  compiling the training step ...', flush=True)
    for step in range(first_step + 1, last_step + 1):
        batch = sharding.to_devices(next(setup.batches), setup.mesh)
        state, metrics = setup.train_step(state, batch, setup.teacher)
        stopper = stopper or Stopper()  # before, there is nothing to save
        if wait_for_each_step or step == first_step + 1:  # the bar's clock starts behind the first
            jax.block_until_ready(state)
        metrics_writer.add(step, metrics, score(state, step) if score else {})
        log.tick(step)
        save_snapshot(setup, trajectory, state, step)
        if step % settings.sampling.every == 0 or step == last_step:
            write_picture(state, step)
        is_stopping = stopper.is_asked_to_stop(step)
        if step % settings.train.resume_every == 0 or step == last_step or is_stopping:
            metrics_writer.flush()
            log.flush()
            trajectory.wait()  # a resume step vouches for the snapshots before it
            resume.save(step, {'state': state}, {'data': setup.batches.state()})
        if is_stopping:
            break
    return stopper.signal if stopper else 0


def store_distance(workdir: epath.Path, lpips: Distance | None) -> None:
    """Records which LPIPS a run learns with. Raises UserError if it began with another."""
    if lpips is None:
        return
    path, identity = workdir / DISTANCE, {'distance': lpips.name} | dict(lpips.checksums)
    if path.exists() and run_folder.read_record(workdir, DISTANCE) != identity:
        raise UserError(f'{path} says that this run began with other weights of {lpips.name}')
    run_folder.write_record(path, identity)


@contextlib.contextmanager
def claim(setup: Setup, config: dict[str, Any], fresh: bool) -> Iterator[None]:
    """Makes the folder this run's, and no other command's while the body of the `with` runs.

    These are the first writes of a run, by the first process while the others wait. Raises UserError if
    the folder is another's, unless `fresh`, if another command is writing there, and as
    `check_attention` does.
    """
    workdir = setup.workdir
    with contextlib.ExitStack() as held:
        if sharding.is_primary():
            if (workdir / ORIGIN).exists() and not fresh:
                raise UserError(
                    f'{workdir} holds weights that were not trained there; choose another'
                )
            if fresh or run_folder.is_new(workdir, config):
                check_attention(setup.settings, setup.batches.source.image_shape)
            held.enter_context(run_folder.claim(workdir, config, fresh=fresh))
            run_folder.store_card(workdir, setup.batches.source)
            store_distance(workdir, setup.lpips)
        sharding.wait_for_all('run folder')
        run_folder.is_new(workdir, config)
        yield


def restore(
    setup: Setup, resume: checkpoint.Stream, trajectory: checkpoint.Stream
) -> tuple[int, TrainState]:
    """Returns the newest whole step of a run and its state; the data goes on from there too.

    The snapshots after it are deleted, as they come again. They are set aside if the run had come
    further, to a step that is damaged and set aside too: all of them may be whole.
    """
    newest = resume.restore_newest({'state': setup.state_template})
    if newest is None:
        trajectory.delete_after(0)
        return 0, setup.initial_state()
    if newest.damaged:
        for later in [step for step in trajectory.steps() if step > newest.step]:
            trajectory.set_aside(later, 'old')
    for step, error in newest.damaged.items():
        aside = resume.set_aside(step, 'damaged')
        if sharding.is_primary():
            print(f'  warning: {error}; it is now {aside}', flush=True)
    trajectory.delete_after(newest.step)
    setup.batches.restore(newest.meta['data'])
    return newest.step, newest.trees['state']


def warn_of_missing(setup: Setup, step: int) -> None:
    """Says which snapshots a run that has come to `step` has lost, if any."""
    settings = setup.settings
    lost = run_folder.lost_snapshots(setup.workdir, settings.trajectory, step, setup.last_step)
    if lost and sharding.is_primary():
        print(f'  warning: {lost}', flush=True)


def open_log(setup: Setup, first_step: int, config: dict[str, Any]) -> Log:
    """Opens the log of a run from `first_step` on. Raises UserError as WeightsAndBiases does."""
    settings, is_primary, tracker = setup.settings, sharding.is_primary(), None
    if settings.train.wandb and is_primary:
        tracker = WeightsAndBiases(settings.train.wandb, setup.workdir, config)
    total, batch_size = setup.last_step, settings.batch_size
    return Log(setup.workdir, first_step, total, batch_size, is_primary, tracker)


def end(setup: Setup, stopped: int) -> None:
    """Says how a run has ended; one that the signal `stopped` has ended ends the process."""
    if stopped:
        print(interrupts.line(stopped), file=sys.stderr)
        sys.exit(128 + stopped)
    if sharding.is_primary():
        say_done(setup, cli.config_file(_CONFIG))
    warn_of_missing(setup, setup.last_step)


def main(argv: Sequence[str]) -> None:
    del argv
    config = cli.required_config(_CONFIG)
    workdir = cli.required_workdir(_WORKDIR)
    cli.join_processes(_DISTRIBUTED.value)
    settings = parse_run(config.to_dict())
    if sharding.is_primary():
        locks.check_free(workdir)
    setup = set_up(settings, workdir)
    with (
        claim(setup, to_plain(config), _FRESH.value),
        checkpoint.Stream(workdir / RESUME, keep=settings.train.resume_keep) as resume,
        checkpoint.Stream(workdir / TRAJECTORY) as trajectory,
    ):
        first_step, state = restore(setup, resume, trajectory)
        if first_step >= setup.last_step:
            end(setup, 0)
            return
        if sharding.is_primary():
            print(describe(setup, first_step), flush=True)
        warned = precision.warning(setup, state.params, first_step)  # by all processes together
        if warned and sharding.is_primary():
            print(f'  warning: {warned}', flush=True)
        with open_log(setup, first_step, to_plain(config)) as log:
            stopped = train(setup, log, resume, trajectory, state, first_step)
    end(setup, stopped)


if __name__ == '__main__':
    cli.run(main)
