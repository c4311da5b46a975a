"""What LCSC's search costs, as ratios within one run on this machine: `python benchmarks/lcsc.py`.

    combining   a candidate's weights from K = 50 snapshots, 16 candidates at once: in memory and
                streamed; and the way it is done elsewhere, each checkpoint loaded from disk and
                added up, the files just written and so in the system's cache; 1M and 10M parameters
    generation  the parts of a generation on the network of configs/digits_ect.py (random weights),
                K = 35, 16 candidates of 2,000 one-step samples: combine, sample, features, distance
    inside      candidates of one device one after another, or vmapped

Prints tables, with the floors that it holds itself to, and exits with 1 where one is missed. Files
go to a temporary folder. Options: --sizes=1000000,10000000 --rounds=5 --quick (tiny: a test that it
works, no floors).
"""

import argparse
import logging
import pathlib
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import cm_jax  # noqa: F401  isort: skip  # before JAX: it sets a CPU flag
import jax
import jax.numpy as jnp
import numpy as np

from cm_jax import checkpoint, data, samplers, sharding
from cm_jax.core import tree
from cm_jax.evaluation import scores
from cm_jax.lcsc import combine, storage
from cm_jax.lcsc.fitness import make_fitness
from cm_jax.lcsc.space import ONE
from cm_jax.metrics import features, frechet, moments
from cm_jax.models import lenet
from cm_jax.settings import parse_run
from cm_jax.wiring import wire
from configs.digits_ect import get_config

K = 50
ITEM = 'params'
LEAST_SPEEDUP, MOST_OVERHEAD = 20, 0.15


def median_times(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each task, in turn, `rounds` times, after once to warm up."""
    times = {name: [] for name in tasks}
    for round_ in range(rounds + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            jax.block_until_ready(task())
            if round_:
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def table(title: str, rows: list[tuple]) -> None:
    """Prints rows of cells, the first the head."""
    print(f'\n{title}')
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print('  ' + '  '.join(str(cell).ljust(width) for cell, width in zip(row, widths)))


# Combining


def random_snapshot(size: int, seed: int) -> dict:
    """About `size` float32 numbers in 12 leaves, as the kernels of a network."""
    rng, side = np.random.default_rng(seed), int(np.sqrt(size / 12))
    leaf = lambda: rng.standard_normal((side, side), dtype=np.float32)  # noqa: E731
    return {f'layer{i}': {'kernel': leaf()} for i in range(12)}


def write_snapshots(folder: pathlib.Path, size: int, count: int) -> None:
    """The same snapshots twice: a trajectory of ours, and an npz file each."""
    with checkpoint.Stream(folder / 'trajectory') as stream:
        for k in range(count):
            snapshot = random_snapshot(size, k)
            stream.save(k, {ITEM: snapshot}, {'step': k})
            flat = {'/'.join(path): leaf for path, leaf in tree.flatten(snapshot).items()}
            np.savez(folder / f'{k}.npz', **flat)


def load_npz(folder: pathlib.Path, k: int) -> dict:
    with np.load(folder / f'{k}.npz') as file:
        return tree.unflatten({tuple(name.split('/')): file[name] for name in file})


def time_combining(size: int, count: int, rounds: int, population: int) -> float:
    """Prints seconds a candidate; the speed-up over the faster way of loading each checkpoint."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix='cm_jax_lcsc_'))
    try:
        write_snapshots(folder, size, count)
        ours = lambda k: checkpoint.load(folder / 'trajectory', k, ITEM)  # noqa: E731
        npz = lambda k: load_npz(folder, k)  # noqa: E731
        c = np.random.default_rng(0).uniform(-6, 6, (population, count)).astype(np.float32)
        c[:, 0] += 1 - c.sum(1)
        exact = combine.combine(ours, range(count), c[0])
        mesh = jax.sharding.Mesh(jax.devices()[:1], (sharding.AXIS,))
        ways = {
            where: storage.make_combine(storage.store(ours, range(count), where=where), ONE, mesh)
            for where in storage.WHERE
        }
        once = median_times(
            {
                'load npz, add up': lambda: tree.weighted_sum(c[0], map(npz, range(count))),
                'load trajectory, add up': lambda: tree.weighted_sum(c[0], map(ours, range(count))),
            },
            rounds,
        )
        all_at_once = median_times({w: lambda f=f: f(c[None]) for w, f in ways.items()}, rounds)
        for combined in ways.values():
            found = jax.tree.map(lambda leaf: leaf[0, 0], combined(c[None]))
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    finally:
        shutil.rmtree(folder)
    times = once | {f"storage '{w}'": s / population for w, s in all_at_once.items()}
    memory, best = times["storage 'device'"], min(once.values())
    rows = [('way', 'ms a candidate', 'times as long as in memory')]
    rows += [(n, f'{1e3 * s:.1f}', f'{s / memory:.1f}') for n, s in times.items()]
    table(f'Combining {count} snapshots of {tree.count(exact):,} parameters', rows)
    return best / memory


# A generation


class Compilations(logging.Handler):
    """Counts what JAX says that it compiles."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.getMessage().startswith('Compiling')


class Case:
    """A generation's parts on the digits network with random weights, K snapshots near each other."""

    def __init__(self, snapshots: int, population: int, samples: int, batch_size: int):
        config = get_config()
        self.parts = wire(parse_run(config.to_dict()), (8, 8, 1), 10)
        self.generative_model, self.samples, self.batch_size = (
            self.parts.generative_model,
            samples,
            batch_size,
        )
        self.extractor = lenet.extractor(config.evaluation.extractor)
        self.reference = scores.reference(data.open_source('digits', 'train'), self.extractor, 500)
        self.sampler = samplers.build('onestep', self.generative_model.process)
        first = jax.tree.map(np.asarray, self.parts.model.init(jax.random.key(0)))
        rng = np.random.default_rng(0)
        near = lambda x: np.float32(x + 0.01 * rng.standard_normal(x.shape))  # noqa: E731
        self.snapshots = [jax.tree.map(near, first) for _ in range(snapshots)]
        c = rng.normal(1 / snapshots, 0.1, (population, snapshots))
        self.population = c + (1 - c.sum(1, keepdims=True)) / snapshots
        self.mesh = jax.sharding.Mesh(jax.devices()[:1], (sharding.AXIS,))

    def generate(self, params, seed, first):
        """A batch of samples."""
        indices = first + jnp.arange(self.batch_size)
        return samplers.generate(self.sampler, self.generative_model, params, seed, indices)

    def stored(self, **settings) -> storage.Stored:
        return storage.store(lambda k: self.snapshots[k], range(len(self.snapshots)), **settings)

    def fitness(self, where: str = 'device', dtype: str = 'float32'):
        return make_fitness(
            self.generative_model,
            self.sampler,
            self.extractor,
            self.reference,
            self.stored(where=where, dtype=dtype),
            samples=self.samples,
            batch_size=self.batch_size,
            mesh=self.mesh,
        )

    def pieces(self) -> dict[str, Callable[[], object]]:
        """What a generation takes, each part alone in a program of its own."""
        firsts = jnp.arange(0, self.samples, self.batch_size)
        shift = jnp.asarray(self.reference.moments.mean, jnp.float32)
        combined = storage.make_combine(self.stored(), ONE, self.mesh)
        rows = np.float32(self.population)[None]
        sample = jax.jit(lambda p: jax.lax.map(lambda first: self.generate(p, 0, first), firsts))
        extract = jax.jit(
            lambda w, x: jax.lax.map(lambda x0: features.of_samples(self.extractor, w, x0), x)
        )
        sums = jax.jit(lambda x: moments.centred_sums(x.reshape(self.samples, -1), shift))
        params = jax.tree.map(lambda leaf: leaf[0, 0], combined(rows))
        weights = jax.device_put(self.extractor.params)
        images = sample(params)
        found, to_reference = extract(weights, images), frechet.distance_to(self.reference.moments)

        def distance() -> float:
            measured = moments.from_centred_sums(self.samples, *sums(found), shift)
            return to_reference(measured)

        each = range(len(self.population))
        return {
            'combine': lambda: combined(rows),
            'sample': lambda: [sample(params) for _ in each],
            'features': lambda: [extract(weights, images) for _ in each],
            'distance': lambda: [distance() for _ in each],
        }

    def vmapped(self, at_once: int) -> Callable[[], object]:
        """`at_once` candidates through sampler and extractor together."""
        combined = storage.make_combine(self.stored(), ONE, self.mesh)
        rows = np.float32(self.population[None, :at_once])
        weights = jax.device_put(self.extractor.params)
        firsts = jnp.arange(0, self.samples, self.batch_size)

        def one(params, weights):
            of = lambda first: features.of_samples(  # noqa: E731
                self.extractor, weights, self.generate(params, 0, first)
            )
            return jax.lax.map(of, firsts)

        program = jax.jit(jax.vmap(one, (0, None)))
        first = lambda: jax.tree.map(lambda leaf: leaf[0], combined(rows))  # noqa: E731
        return lambda: program(first(), weights)


def time_generation(case: Case, rounds: int) -> tuple[float, int]:
    """Prints the split; the share that is not sampler or extractor, and late compilations."""
    fitness, count = case.fitness(), len(case.population)
    fitness(case.population[: count // 2], 0)  # the first generation, of another size
    watch, logger = Compilations(), logging.getLogger('jax')
    logger.addHandler(watch)
    with jax.log_compiles():
        for seed in range(2):
            fitness(case.population, seed)
    logger.removeHandler(watch)
    at_once, host, bfloat16 = min(4, count), case.fitness('host'), case.fitness(dtype='bfloat16')
    times = median_times(
        case.pieces()
        | {
            'generation': lambda: fitness(case.population, 0),
            'host': lambda: host(case.population, 0),
            'bfloat16': lambda: bfloat16(case.population, 0),
            'vmap': case.vmapped(at_once),
        },
        rounds,
    )
    whole = times['generation'] / count
    rows = [('part', 'ms a candidate', 'of a generation', 'images/s')]
    for name in ('combine', 'sample', 'features', 'distance'):
        seconds = times[name] / count
        rows.append((f'{name}, alone', f'{1e3 * seconds:.1f}', f'{seconds / whole:.1%}', ''))
    rows[2] = (*rows[2][:3], f'{case.samples * count / times["sample"]:.0f}')
    for name, seconds in (
        ('generation', whole),
        ("generation, storage 'host'", times['host'] / count),
        ('generation, bfloat16', times['bfloat16'] / count),
        (f'vmap of {at_once}, no distance', times['vmap'] / at_once),
    ):
        speed = f'{case.samples / seconds:.0f}'
        rows.append((name, f'{1e3 * seconds:.1f}', f'{seconds / whole:.1%}', speed))
    size = tree.count(case.snapshots[0])
    table(
        f'A generation of {count}, {case.samples} one-step samples each, K = '
        f'{len(case.snapshots)} snapshots of {size:,} parameters',
        rows,
    )
    return 1 - (times['sample'] + times['features']) / times['generation'], watch.count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', default='1000000,10000000', help='parameters, combining')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--quick', action='store_true', help='tiny, and no floors')
    given = parser.parse_args()
    sizes = [2000] if given.quick else [int(size) for size in given.sizes.split(',')]
    print(f'{platform.processor() or platform.machine()}, {jax.devices()}, JAX {jax.__version__}')
    failed = []
    for size in sizes:
        count, population = (4, 2) if given.quick else (K, 16)
        speedup = time_combining(size, count, given.rounds, population)
        print(f'  in memory {speedup:.1f} times as fast as loading each; floor {LEAST_SPEEDUP}')
        failed += ['combining'] if speedup < LEAST_SPEEDUP else []
    case = Case(4, 3, 40, 20) if given.quick else Case(35, 16, 2000, 500)
    overhead, compiled = time_generation(case, given.rounds)
    print(f'  neither sampler nor extractor: {overhead:.1%}; at most {MOST_OVERHEAD:.0%}')
    print(f'  compilations after the first generation: {compiled}')
    failed += ['overhead'] if overhead > MOST_OVERHEAD else []
    failed += ['compilations'] if compiled else []
    if failed and not given.quick:
        print(f'\nmissed: {", ".join(failed)}')
    return int(bool(failed) and not given.quick)


if __name__ == '__main__':
    sys.exit(main())
