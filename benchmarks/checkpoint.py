"""Measures what checksums cost when a training state is saved and loaded.

    python benchmarks/checkpoint.py [--rounds=5] [--quick]

The state is that of DDPM++ as configs/cifar10_ect.py trains it: weights, the moments of the optimiser
and an average, as random numbers, since zeros would be compressed away. Each round saves it, loads it
onto the device, and computes and compares the checksums alone, which both have in them. The share of
checksums is that of the fastest rounds by the clock; the machine should do nothing else. With the whole
state it must be below 3 %, or the program exits with 1. `--quick` takes the network of the digits, to
see that the program works.
"""

import argparse
import functools
import pathlib
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import cm_jax  # noqa: F401  isort: skip  # before JAX: it sets a CPU flag
import jax
import jax.numpy as jnp
import numpy as np

from cm_jax import checkpoint
from cm_jax.checkpoint import checksums
from cm_jax.core import ema
from cm_jax.settings import parse_run
from cm_jax.training import optim
from cm_jax.training.step import TrainState, init_state
from cm_jax.wiring import wire
from configs import cifar10_ect, digits_ect

LIMIT = 0.03  # the share of checksums in a save and in a load


def random_state(is_small: bool) -> TrainState:
    """Returns a training state whose float32 numbers are random, on the device."""
    config = (digits_ect if is_small else cifar10_ect).get_config()
    settings = parse_run(config.to_dict())
    parts = wire(settings, (8, 8, 1) if is_small else (32, 32, 3), 10 if is_small else 0)
    averages = ema.averages(settings.ema_rates, settings.ema_sigma_rels)
    optimizer = optim.build(settings.optimizer)

    def initial(key: jax.Array) -> TrainState:
        return init_state(parts.model.init(key), parts.objective, optimizer, averages)

    rng = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if leaf.dtype != np.float32:
            return jnp.zeros(leaf.shape, leaf.dtype)
        return jax.device_put(rng.standard_normal(leaf.shape, np.float32))

    return jax.tree.map(draw, jax.eval_shape(initial, jax.random.key(0)))


class Seconds(NamedTuple):
    """How long a task takes: by the clock, and of all processors together."""

    clock: float
    processors: float


def seconds(call: Callable[[], object]) -> Seconds:
    """Returns how long a call takes."""
    clock, processors = time.perf_counter(), time.process_time()
    jax.block_until_ready(call())
    return Seconds(time.perf_counter() - clock, time.process_time() - processors)


def measure(state: TrainState, rounds: int) -> dict[str, Seconds]:
    """Returns the fewest seconds of each task, of `rounds` rounds after one to warm up."""
    sums, host = checksums.of_tree(state), jax.tree.leaves(jax.tree.map(np.asarray, state))
    times: dict[str, list[Seconds]] = {}
    with tempfile.TemporaryDirectory() as folder, checkpoint.Stream(folder, keep=1) as stream:

        def save(step: int) -> None:
            stream.save(step, {'state': state}, {})
            stream.wait()

        tasks: dict[str, Callable[[int], object]] = {
            'save': save,
            'load': lambda step: stream.restore(step, {'state': state})[0],
            'checksums of a save': lambda step: checksums.of_tree(state),
            'checksums of a load': lambda step: checksums.differing(state, sums),
            'zlib.crc32, for comparison': lambda step: [zlib.crc32(np.ravel(x)) for x in host],
        }
        for step in range(rounds + 1):
            for name, task in tasks.items():
                times.setdefault(name, []).append(seconds(functools.partial(task, step)))
    return {name: Seconds(*map(min, zip(*of_rounds[1:]))) for name, of_rounds in times.items()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--quick', action='store_true')
    arguments = parser.parse_args(argv)
    state, device = random_state(arguments.quick), jax.devices()[0]
    leaves = jax.tree.leaves(state)
    size = sum(leaf.nbytes for leaf in leaves)
    print(f'{device.platform}: {device.device_kind}, JAX {jax.__version__}')
    print(f'{len(leaves):,} arrays, {size / 1e9:.3g} GB, {checksums.THREADS} threads')
    fewest = measure(state, arguments.rounds)
    for name, took in fewest.items():
        print(
            f'{name:<28} {took.clock:7.3f} s, {took.processors:7.3f} s of all processors together'
        )
    shares = {
        task: fewest[f'checksums of a {task}'].clock / fewest[task].clock
        for task in ('save', 'load')
    }
    print(', '.join(f'checksums are {share:.1%} of a {task}' for task, share in shares.items()))
    return int(max(shares.values()) > LIMIT and not arguments.quick)


if __name__ == '__main__':
    sys.exit(main())
