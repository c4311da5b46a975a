"""Measures the cost of LCSC's search, as ratios within one run: `python benchmarks/lcsc.py`.

    combining   The weights of 16 candidates at once from K = 50 snapshots, which lie in memory or are
                streamed. It is compared with the way it is done elsewhere: each checkpoint is loaded
                from disk and added up. Those files were just written, so they are in the system's
                cache. For networks of 1M and of 10M parameters.
    generation  The parts of a generation (combine, sample, features, distance) with the network of
                configs/digits_ect.py, random weights, K = 35 and 16 candidates of 2,000 one-step
                samples each; and the candidates of a device vmapped instead of one after another.
    step        A step of the method 'gradient' of 1,000 samples with the same network, in batches of
                1,000, 250 and 50, compared with the score of a candidate on as many samples in batches
                of 500: seconds, and by how much the resident memory rises. At 1, 2 and 9 evaluations,
                for K = 10, 50 and 200.

Prints tables and the limits that the ratios have to meet, and exits with status 1 if one is missed.
Files go to a temporary folder. Options: --sizes=1000000,10000000 --rounds=5 --quick (a tiny run that
tests only that the benchmark works and has no limits).
"""

import argparse
import ctypes
import functools
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
from cm_jax.lcsc import combine, criterion, derivative, storage
from cm_jax.lcsc.fitness import make_fitness, make_values
from cm_jax.lcsc.space import ONE
from cm_jax.metrics import features, frechet, moments
from cm_jax.models import lenet
from cm_jax.settings import parse_run
from cm_jax.wiring import wire
from configs.digits_ect import get_config

K = 50
ITEM = 'params'
LEAST_SPEEDUP = 20  # of combining in memory, over loading each checkpoint and adding it up
MOST_STEP = 4.0  # seconds of a step, in those of a candidate of as many samples
MOST_MEMORY = 2.0  # and its memory, of the batches that need the least
MOST_OVERHEAD = 0.15  # the share of a generation that is neither sampler nor extractor


def median_times(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Returns the median seconds of each task.

    Each round runs all tasks in turn; `rounds` rounds are measured, after one to warm up.
    """
    times = {name: [] for name in tasks}
    for round_ in range(rounds + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            jax.block_until_ready(task())
            if round_:
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def table(title: str, rows: list[tuple]) -> None:
    """Prints a table; the first of the rows is its head."""
    print(f'\n{title}')
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print('  ' + '  '.join(str(cell).ljust(width) for cell, width in zip(row, widths)))


# Combining


def random_snapshot(size: int, seed: int) -> dict:
    """Returns about `size` random float32 numbers in 12 square kernels, as a nested dict."""
    rng, side = np.random.default_rng(seed), int(np.sqrt(size / 12))
    kernels = (rng.standard_normal((side, side), dtype=np.float32) for _ in range(12))
    return {f'layer{i}': {'kernel': kernel} for i, kernel in enumerate(kernels)}


def write_snapshots(folder: pathlib.Path, size: int, count: int) -> None:
    """Writes the same snapshots twice: as a trajectory, and as one npz file each."""
    with checkpoint.Stream(folder / 'trajectory') as stream:
        for k in range(count):
            snapshot = random_snapshot(size, k)
            stream.save(k, {ITEM: snapshot}, {'step': k})
            flat = {'/'.join(path): leaf for path, leaf in tree.flatten(snapshot).items()}
            np.savez(folder / f'{k}.npz', **flat)


def load_npz(folder: pathlib.Path, k: int) -> dict:
    """Returns snapshot `k` from its npz file."""
    with np.load(folder / f'{k}.npz') as file:
        return tree.unflatten({tuple(name.split('/')): file[name] for name in file})


def time_combining(size: int, count: int, rounds: int, population: int) -> float:
    """Prints the time of a candidate for each way of combining snapshots.

    Returns how many times as fast combining in memory is as loading each checkpoint and adding it
    up, from the trajectory or from npz files, whichever is faster. Raises AssertionError if the ways
    disagree about the weights.
    """
    folder = pathlib.Path(tempfile.mkdtemp(prefix='cm_jax_lcsc_'))
    try:
        write_snapshots(folder, size, count)
        from_trajectory = functools.partial(checkpoint.load, folder / 'trajectory', item=ITEM)
        from_npz = functools.partial(load_npz, folder)
        steps = range(count)
        coefficients = np.random.default_rng(0).uniform(-6, 6, (population, count))
        coefficients = coefficients.astype(np.float32)
        coefficients[:, 0] += 1 - coefficients.sum(1)
        first, all_candidates = coefficients[0], coefficients[None]
        exact = combine.combine(from_trajectory, steps, first)
        mesh = jax.sharding.Mesh(jax.devices()[:1], (sharding.AXIS,))
        ways = {
            f'storage {where!r}': functools.partial(
                storage.make_combine(
                    storage.place(storage.store(from_trajectory, steps, where=where), mesh),
                    ONE,
                    sharding.by_example(mesh),
                ),
                all_candidates,
            )
            for where in storage.WHERE
        }
        one_candidate = median_times(
            {
                'load npz, add up': lambda: tree.weighted_sum(first, map(from_npz, steps)),
                'load trajectory, add up': lambda: tree.weighted_sum(
                    first, map(from_trajectory, steps)
                ),
            },
            rounds,
        )
        whole_population = median_times(ways, rounds)
        for combine_all in ways.values():
            combined = jax.tree.map(lambda leaf: leaf[0, 0], combine_all())
            for a, b in zip(jax.tree.leaves(combined), jax.tree.leaves(exact), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    finally:
        shutil.rmtree(folder)
    times = one_candidate | {way: time / population for way, time in whole_population.items()}
    in_memory = times["storage 'device'"]
    rows = [('way', 'ms a candidate', 'times as long as in memory')]
    rows += [(way, f'{1e3 * time:.1f}', f'{time / in_memory:.1f}') for way, time in times.items()]
    table(f'Combining {count} snapshots of {tree.count(exact):,} parameters', rows)
    return min(one_candidate.values()) / in_memory


# A generation


class Compilations(logging.Handler):
    """Counts the compilations that JAX logs."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.getMessage().startswith('Compiling')


class Case:
    """All that a generation of a search needs: the digits network, its snapshots and a population.

    The weights are random: the snapshots are one random initialisation with small random changes.
    """

    def __init__(self, snapshots: int, population: int, samples: int, batch_size: int):
        config = get_config()
        self.parts = wire(parse_run(config.to_dict()), (8, 8, 1), 10)
        self.generative_model = self.parts.generative_model
        self.samples, self.batch_size = samples, batch_size
        self.extractor = lenet.extractor(config.evaluation.extractor)
        self.reference = scores.reference(data.open_source('digits', 'train'), self.extractor, 500)
        self.sampler = samplers.build('onestep', self.generative_model.process)
        space = scores.FeatureSpace(self.extractor, self.reference)
        self.criterion = criterion.build([space], {self.extractor.score: 1.0}, samples)
        first = jax.tree.map(np.asarray, self.parts.model.init(jax.random.key(0)))
        rng = np.random.default_rng(0)

        def perturbed(leaf: np.ndarray) -> np.ndarray:
            return np.float32(leaf + 0.01 * rng.standard_normal(leaf.shape))

        self.snapshots = [jax.tree.map(perturbed, first) for _ in range(snapshots)]
        drawn = rng.normal(1 / snapshots, 0.1, (population, snapshots))
        self.population = drawn + (1 - drawn.sum(1, keepdims=True)) / snapshots
        self.mesh = jax.sharding.Mesh(jax.devices()[:1], (sharding.AXIS,))

    def generate(self, params, seed, first):
        """Returns a batch of samples, those with the indices from `first` on."""
        indices = first + jnp.arange(self.batch_size)
        return samplers.generate(self.sampler, self.generative_model, params, seed, indices)

    def placed(self, **settings) -> storage.Placed:
        """Returns the snapshots in the storage that `settings` describe."""
        count = range(len(self.snapshots))
        stored = storage.store(lambda k: self.snapshots[k], count, **settings)
        return storage.place(stored, self.mesh)

    def combined(self):
        """Returns what makes the weights of candidates."""
        return storage.make_combine(self.placed(), ONE, sharding.by_example(self.mesh))

    def fitness(self, where: str = 'device', dtype: str = 'float32'):
        """Returns the fitness function of the search, with the snapshots stored as asked for."""
        values = make_values(
            self.generative_model,
            self.sampler,
            self.criterion,
            self.placed(where=where, dtype=dtype),
            samples=self.samples,
            batch_size=self.batch_size,
        )
        return make_fitness(self.criterion, values)

    def pieces(self) -> dict[str, Callable[[], object]]:
        """Returns the parts of a generation, each as a call of programs that do nothing else."""
        firsts = jnp.arange(0, self.samples, self.batch_size)
        shift = jnp.asarray(self.reference.moments.mean, jnp.float32)
        combined = self.combined()
        rows = np.float32(self.population)[None]

        @jax.jit
        def sample(params):
            return jax.lax.map(lambda first: self.generate(params, 0, first), firsts)

        @jax.jit
        def extract(weights, images):
            return jax.lax.map(
                lambda batch: features.of_samples(self.extractor, weights, batch), images
            )

        @jax.jit
        def sums(batches):
            return moments.centred_sums(batches.reshape(self.samples, -1), shift)

        params = jax.tree.map(lambda leaf: leaf[0, 0], combined(rows))
        weights = jax.device_put(self.extractor.params)
        images = sample(params)
        extracted = extract(weights, images)
        to_reference = frechet.distances_to(self.reference.moments).distance

        def distance() -> float:
            measured = moments.from_centred_sums(self.samples, *sums(extracted), shift)
            return to_reference(measured)

        candidates = range(len(self.population))
        return {
            'combine': lambda: combined(rows),
            'sample': lambda: [sample(params) for _ in candidates],
            'features': lambda: [extract(weights, images) for _ in candidates],
            'distance': lambda: [distance() for _ in candidates],
        }

    def vmapped(self, at_once: int) -> Callable[[], object]:
        """Returns a call that combines, samples and extracts features of `at_once` candidates.

        The candidates go through the sampler and the extractor together, by jax.vmap.
        """
        combined = self.combined()
        rows = np.float32(self.population[None, :at_once])
        weights = jax.device_put(self.extractor.params)
        firsts = jnp.arange(0, self.samples, self.batch_size)

        def features_of_candidate(params, weights):
            def features_of_batch(first):
                images = self.generate(params, 0, first)
                return features.of_samples(self.extractor, weights, images)

            return jax.lax.map(features_of_batch, firsts)

        program = jax.jit(jax.vmap(features_of_candidate, (0, None)))
        return lambda: program(jax.tree.map(lambda leaf: leaf[0], combined(rows)), weights)


def time_generation(case: Case, rounds: int) -> tuple[float, int]:
    """Prints how the time of a generation is divided among its parts.

    Returns the share of a generation that is spent in neither the sampler nor the extractor, and the
    number of compilations after the first generation.
    """
    fitness, count = case.fitness(), len(case.population)
    fitness(case.population[: count // 2], 0)  # like the first generation, which has another size
    compilations, logger = Compilations(), logging.getLogger('jax')
    logger.addHandler(compilations)
    with jax.log_compiles():
        for seed in range(2):
            fitness(case.population, seed)
    logger.removeHandler(compilations)
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
    return 1 - (times['sample'] + times['features']) / times['generation'], compilations.count


# A step of the method 'gradient'


def peak_memory(task: Callable[[], object]) -> int:
    """Returns the bytes by which the resident memory of this process rises at most during a call."""
    ctypes.CDLL('libc.so.6').malloc_trim(0)  # memory that is free already would hide a part of it
    pathlib.Path('/proc/self/clear_refs').write_text('5')  # the peak is counted from here
    before = _status('VmRSS')
    jax.block_until_ready(task())
    return _status('VmHWM') - before


def _status(name: str) -> int:
    """Returns a number of bytes from the status of this process."""
    lines = pathlib.Path('/proc/self/status').read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f'{name}:')]
    return 1024 * int(line.split()[1])


def time_step(case: Case, spec: str, batch_size: int) -> dict[str, float]:
    """Returns the seconds and the peak memory of a candidate's score and of its derivative."""
    case.sampler = samplers.build(spec, case.generative_model.process)
    placed = case.placed()
    values = make_values(
        case.generative_model,
        case.sampler,
        case.criterion,
        placed,
        samples=case.samples,
        batch_size=case.batch_size,
        at_once=1,
    )
    differentiate = derivative.make_derivative(
        case.generative_model,
        case.sampler,
        case.criterion,
        placed,
        samples=case.samples,
        batch_size=batch_size,
    )
    tasks = {
        'candidate': lambda: values(case.population[:1], 0),
        'step': lambda: differentiate(case.population[0], 0, 0),
    }
    seconds = median_times(tasks, 5)
    memory = {name: peak_memory(task) for name, task in tasks.items()}
    return {
        'candidate': seconds['candidate'],
        'time': seconds['step'] / seconds['candidate'],
        'memory': memory['step'] / memory['candidate'],
        'candidate_memory': memory['candidate'],
    }


def time_steps(counts: list[int], specs: list[str], samples: int, batch_size: int) -> list[str]:
    """Prints what a step of the method 'gradient' costs in candidates of as many samples.

    Returns what is missed: of each sampler and K, the fastest batches have to keep the limit of time,
    and those of the least memory that of memory.
    """
    head = (
        'K',
        'sampler',
        'batch',
        'ms a candidate',
        'step / candidate',
        'its memory, MB',
        'ratio',
    )
    rows, missed = [head], []
    for k in counts:
        case = Case(k, 1, samples, batch_size)
        for spec in specs:
            ratios = []
            for batch in (samples, batch_size // 2, batch_size // 10):
                found = time_step(case, spec, batch)
                ratios.append((found['time'], found['memory']))
                rows.append(
                    (
                        k,
                        spec,
                        batch,
                        f'{1e3 * found["candidate"]:.0f}',
                        f'{found["time"]:.2f}',
                        f'{found["candidate_memory"] / 2**20:.0f}',
                        f'{found["memory"]:.2f}',
                    )
                )
            least = [min(of_batches) for of_batches in zip(*ratios)]
            missed += [
                f'{what} of a step, K = {k}, {spec}'
                for what, ratio, most in zip(('time', 'memory'), least, (MOST_STEP, MOST_MEMORY))
                if ratio > most
            ]
    table(f"A step of the method 'gradient' of {samples} samples", rows)
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--sizes', default='1000000,10000000', help='parameters of the networks for combining'
    )
    parser.add_argument('--rounds', type=int, default=5, help='how often each time is measured')
    parser.add_argument('--quick', action='store_true', help='a tiny run without limits')
    options = parser.parse_args()
    sizes = [2000] if options.quick else [int(size) for size in options.sizes.split(',')]
    print(f'{platform.processor() or platform.machine()}, {jax.devices()}, JAX {jax.__version__}')
    missed = []
    for size in sizes:
        count, population = (4, 2) if options.quick else (K, 16)
        speedup = time_combining(size, count, options.rounds, population)
        print(f'  in memory {speedup:.1f} times as fast as loading each; at least {LEAST_SPEEDUP}')
        missed += ['combining'] if speedup < LEAST_SPEEDUP else []
    case = Case(4, 3, 40, 20) if options.quick else Case(35, 16, 2000, 500)
    overhead, compiled = time_generation(case, options.rounds)
    print(f'  neither sampler nor extractor: {overhead:.1%}; at most {MOST_OVERHEAD:.0%}')
    print(f'  compilations after the first generation: {compiled}')
    missed += ['overhead'] if overhead > MOST_OVERHEAD else []
    missed += ['compilations'] if compiled else []
    if options.quick:
        missed += time_steps([4], ['onestep'], 40, 20)
    else:
        missed += time_steps([10, 50, 200], ['onestep', 'multistep@80,0.8', 'dpm3@9'], 1000, 500)
    if missed and not options.quick:
        print(f'\nmissed: {", ".join(missed)}')
    return int(bool(missed) and not options.quick)


if __name__ == '__main__':
    sys.exit(main())
