"""Measures the cost of evaluation: `python benchmarks/evaluate.py [--points=50000]`; prints lines.

    inception   images/s of the FID Inception with its resize, compared with the speed of matrix
                products that is measured on the same device just before
    distance    seconds of the Fréchet distance in 2048 dimensions, compared with scipy's sqrtm
    memory      peak memory of precision and recall, for `--points` real images and as many samples
                with 2048 features each

Weights and features are made up, because the cost does not depend on them. The times hold only for
the machine that they are measured on; the ratios are roughly the same on others.
"""

import argparse
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import cm_jax  # noqa: F401  isort: skip  # before JAX: it sets a CPU flag
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from cm_jax.metrics import moments
from cm_jax.metrics.frechet import frechet
from cm_jax.metrics.precision_recall import RealFeatures, precision_recall
from cm_jax.models import inception

DIM = 2048


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Returns the median seconds of `repeats` calls, after one call to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure_inception(batch: int, repeats: int) -> list[str]:
    """Returns lines that state images/s for images of 32 and 64 pixels a side.

    They also state the speed of a matrix product, and which share of it the network reaches.
    """
    side = 4096
    matrix = jax.random.normal(jax.random.key(0), (side, side))
    square = jax.jit(lambda matrix: jnp.matmul(matrix, matrix, precision='highest'))
    ceiling = 2 * side**3 / seconds(lambda: square(matrix).block_until_ready(), repeats)
    shapes = inception.shapes()
    make_params = jax.jit(
        lambda: jax.tree.map(lambda leaf: 0.01 * jnp.ones(leaf.shape, leaf.dtype), shapes)
    )
    params, lines = make_params(), [f'matrix product, float32: {ceiling / 1e9:,.0f} GFLOP/s']
    for size in (32, 64):
        x = jnp.zeros((batch, size, size, 3))
        program = jax.jit(inception.features).lower(params, x).compile()
        took = seconds(lambda program=program, x=x: program(params, x).block_until_ready(), repeats)
        flops = program.cost_analysis()['flops'] / batch
        share = flops * batch / took / ceiling
        lines.append(
            f'Inception from {size}x{size}, batch {batch}: {batch / took:,.1f} images/s '
            f'({flops / 1e9:.1f} GFLOP each: {share:.0%} of the matrix product)'
        )
    return lines


def measure_distance(samples: int, repeats: int) -> list[str]:
    """Returns lines that state the time of the Fréchet distance of two sets of correlated features."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(DIM, DIM)) / DIM**0.5 * rng.uniform(0.2, 1.5, DIM)[None]
    a, b = (moments.of(rng.normal(mean, 1, (samples, DIM)) @ mix) for mean in (0, 0.01))
    measured = frechet(a, b)
    ours = seconds(lambda: frechet(a, b), repeats)
    start = time.perf_counter()
    cov_a, cov_b = moments.covariance(a), moments.covariance(b)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    theirs = time.perf_counter() - start
    distance = np.sum((a.mean - b.mean) ** 2) + np.trace(cov_a + cov_b - 2 * root)
    return [
        f'Fréchet distance, {DIM} dimensions, {samples:,} samples each: {ours:.2f} s '
        f'(condition {measured.condition:.1e}, rank {measured.rank})',
        f"with scipy's sqrtm: {theirs:.2f} s, {theirs / ours:.1f} times as long; relative difference "
        f'{abs(measured.distance / distance - 1):.1e}',
    ]


def measure_memory(points: int) -> list[str]:
    """Returns lines that state the memory and time of precision and recall.

    It has to run in a process of its own, because the system tells only the most memory that a
    process has had since it started.
    """
    real, samples = (
        np.random.default_rng(seed).standard_normal((points, DIM), np.float32) for seed in (0, 1)
    )
    before, start = peak(), time.perf_counter()
    result = precision_recall(RealFeatures(real), samples)
    stats = jax.devices()[0].memory_stats() or {}
    device = stats.get('peak_bytes_in_use')
    return [
        f'precision and recall of {points:,} x {DIM}: {peak() - before:,.0f} MB beside the features '
        f'({(real.nbytes + samples.nbytes) / 2**20:,.0f} MB); the matrix of distances alone has '
        f'{points**2 * 4 / 2**20:,.0f} MB'
        + (f'; {device / 2**20:,.0f} MB of the device' if device else ''),
        f'time: {time.perf_counter() - start:.0f} s (precision {result.precision:.3f}, recall '
        f'{result.recall:.3f})',
    ]


def peak() -> float:
    """Returns the most memory that this process has had since it started, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    add = parser.add_argument
    add('--points', type=int, default=50_000, help='images in each set of precision and recall')
    add('--samples', type=int, default=5_000, help='samples in each set of the Fréchet distance')
    add('--batch', type=int, help='images in a batch of the Inception; 16 on CPU, else 256')
    add('--repeats', type=int, default=3, help='how often each time is measured')
    add('--memory', action='store_true', help=argparse.SUPPRESS)  # set in the process of its own
    options = parser.parse_args()
    if options.memory:
        print('\n'.join(measure_memory(options.points)), flush=True)
        return
    device = jax.devices()[0]
    print(f'{jax.device_count()} x {device.device_kind}, JAX {jax.__version__}', flush=True)
    batch = options.batch or (16 if device.platform == 'cpu' else 256)
    print('\n'.join(measure_inception(batch, options.repeats)), flush=True)
    print('\n'.join(measure_distance(options.samples, options.repeats)), flush=True)
    command = [sys.executable, __file__, '--memory', f'--points={options.points}']
    sys.exit(subprocess.run(command).returncode)


if __name__ == '__main__':
    main()
