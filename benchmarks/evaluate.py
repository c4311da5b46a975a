"""What evaluation costs: `python benchmarks/evaluate.py [--points=50000]`; prints a table.

    inception   images/s of the FID Inception with its resize, beside the matrix products that the
                device does in the same minute
    distance    seconds of the Fréchet distance in 2048 dimensions, beside scipy's sqrtm
    memory      peak memory of precision and recall of `--points` against as many, 2048 features each

Weights and features are random: neither cost depends on them. Times do not carry from one machine to
another; the ratios do, roughly.
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
from cm_jax.metrics.precision_recall import precision_recall
from cm_jax.models import inception

DIM = 2048


def seconds(call: Callable[[], object], repeats: int) -> float:
    """The median time of a call, which is made once before."""
    call()
    found = []
    for _ in range(repeats):
        since = time.perf_counter()
        call()
        found.append(time.perf_counter() - since)
    return statistics.median(found)


def measure_inception(batch: int, repeats: int) -> list[str]:
    """Images/s from 32 and 64 pixels, and the share of the speed of a matrix product."""
    side = 4096
    a = jax.random.normal(jax.random.key(0), (side, side))
    product = jax.jit(lambda a: jnp.matmul(a, a, precision='highest'))
    ceiling = 2 * side**3 / seconds(lambda: product(a).block_until_ready(), repeats)
    shapes = inception.shapes()
    draw = jax.jit(lambda: jax.tree.map(lambda s: 0.01 * jnp.ones(s.shape, s.dtype), shapes))
    params, lines = draw(), [f'matrix product, float32: {ceiling / 1e9:,.0f} GFLOP/s']
    for size in (32, 64):
        x = jnp.zeros((batch, size, size, 3))
        program = jax.jit(inception.features).lower(params, x).compile()
        took = seconds(lambda p=program, x=x: p(params, x).block_until_ready(), repeats)
        flops = program.cost_analysis()['flops'] / batch
        share = flops * batch / took / ceiling
        lines.append(
            f'Inception from {size}x{size}, batch {batch}: {batch / took:,.1f} images/s '
            f'({flops / 1e9:.1f} GFLOP each: {share:.0%} of the matrix product)'
        )
    return lines


def measure_distance(samples: int, repeats: int) -> list[str]:
    """Of two sets of correlated features."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(DIM, DIM)) / DIM**0.5 * rng.uniform(0.2, 1.5, DIM)[None]
    a, b = (moments.of(rng.normal(m, 1, (samples, DIM)) @ mix) for m in (0, 0.01))
    found = frechet(a, b)
    ours = seconds(lambda: frechet(a, b), repeats)
    since = time.perf_counter()
    cov_a, cov_b = moments.covariance(a), moments.covariance(b)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    theirs = time.perf_counter() - since
    distance = np.sum((a.mean - b.mean) ** 2) + np.trace(cov_a + cov_b - 2 * root)
    return [
        f'Fréchet distance, {DIM} dimensions, {samples:,} samples each: {ours:.2f} s '
        f'(condition {found.condition:.1e}, rank {found.rank})',
        f"with scipy's sqrtm: {theirs:.2f} s, {theirs / ours:.1f} times as long; relative difference "
        f'{abs(found.distance / distance - 1):.1e}',
    ]


def measure_memory(points: int) -> list[str]:
    """To be called in a process of its own: memory has a high-water mark and no other."""
    real, samples = (
        np.random.default_rng(seed).standard_normal((points, DIM), np.float32) for seed in (0, 1)
    )
    before, since = peak(), time.perf_counter()
    found = precision_recall(real, samples)
    stats = jax.devices()[0].memory_stats() or {}
    device = stats.get('peak_bytes_in_use')
    return [
        f'precision and recall of {points:,} x {DIM}: {peak() - before:,.0f} MB beside the features '
        f'({(real.nbytes + samples.nbytes) / 2**20:,.0f} MB); the matrix of distances alone has '
        f'{points**2 * 4 / 2**20:,.0f} MB'
        + (f'; {device / 2**20:,.0f} MB of the device' if device else ''),
        f'time: {time.perf_counter() - since:.0f} s (precision {found.precision:.3f}, recall '
        f'{found.recall:.3f})',
    ]


def peak() -> float:
    """The most memory this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--points', type=int, default=50_000)
    parser.add_argument('--samples', type=int, default=5_000)
    parser.add_argument('--batch', type=int, help='images; default 16 on CPU, else 256')
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--memory', action='store_true', help=argparse.SUPPRESS)  # the own process
    given = parser.parse_args()
    if given.memory:
        print('\n'.join(measure_memory(given.points)), flush=True)
        return
    device = jax.devices()[0]
    print(f'{jax.device_count()} x {device.device_kind}, JAX {jax.__version__}', flush=True)
    batch = given.batch or (16 if device.platform == 'cpu' else 256)
    print('\n'.join(measure_inception(batch, given.repeats)), flush=True)
    print('\n'.join(measure_distance(given.samples, given.repeats)), flush=True)
    command = [sys.executable, __file__, '--memory', f'--points={given.points}']
    sys.exit(subprocess.run(command).returncode)


if __name__ == '__main__':
    main()
