"""evaluate --straightness=N: how straight a rectified flow's paths are, into straightness.jsonl."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from cm_jax import samplers
from cm_jax.files import append_json_line, read_json_lines
from cm_jax.generate import labels_policy
from cm_jax.metrics.straightness import check, straightness
from cm_jax.run_folder import STRAIGHTNESS
from cm_jax.samplers import GenerativeModel
from cm_jax.settings import Evaluation
from cm_jax.sharding import by_example, make_mesh, replicated, to_host
from cm_jax.terminal import Progress
from cm_jax.types import Array, Params


def straightness_protocol(
    model: GenerativeModel,
    steps: int,
    samples: int,
    seeds: Sequence[int],
    *,
    ema: str,
    step: int,
) -> dict:
    """Returns what `straightness_row` stores beside the number."""
    return {
        'metric': 'straightness',
        'euler_steps': steps,
        'samples': samples,
        'seeds': [int(seed) for seed in seeds],
        'ema': ema,
        'step': step,
        'labels': labels_policy(model),
    }


def straightness_row(
    model: GenerativeModel,
    mesh: Mesh,
    params: Params,
    protocol: dict,
    batch_size: int,
) -> dict:
    """Returns a row for the samples that a protocol names.

    It holds their mean straightness (see metrics.straightness), its standard deviation over seeds, each
    seed's value, and the protocol.
    """
    steps, samples, seeds = (protocol[key] for key in ('euler_steps', 'samples', 'seeds'))
    padded = -(-batch_size // mesh.size) * mesh.size

    def program(params: Params, seed: Array, first: Array) -> Array:
        indices = jax.numpy.arange(padded)
        indices = jax.lax.with_sharding_constraint(first + indices, by_example(mesh))
        x_T, label, _ = samplers.start(model, seed, indices)
        denoise = lambda x, t: model.denoise(params, x, t, label)  # noqa: E731
        return straightness(denoise, model.process, x_T, steps)

    jitted = jax.jit(program, out_shardings=by_example(mesh))
    params = jax.device_put(params, replicated(mesh))
    values = []
    with Progress(
        len(seeds) * samples, f'straightness, step {protocol["step"]}', leave=False
    ) as bar:
        for seed in seeds:
            batches = []
            for first in range(0, samples, batch_size):
                batches.append(to_host(jitted(params, seed, first))[: samples - first][:batch_size])
                bar.update(len(batches[-1]))
            values.append(float(np.mean(np.concatenate(batches), dtype=np.float64)))
    return {
        'straightness': float(np.mean(values)),
        'straightness_std': float(np.std(values, ddof=1)) if len(values) > 1 else None,
        'values': values,
        'protocol': protocol,
    }


def measure(
    model: GenerativeModel,
    load: Callable[[int, str], Params],
    weights: Sequence[tuple[int, str]],
    workdir: epath.Path,
    euler_steps: int,
    evaluation: Evaluation,
) -> list[dict]:
    """Returns the row of each of the weights (step, average), which `load` reads.

    Weights that have no row under their protocol in the straightness.jsonl of `workdir` are measured,
    and their rows added to it. Raises UserError where straightness is not defined.
    """
    path = workdir / STRAIGHTNESS
    check(model.process, euler_steps)
    stored = {str(row['protocol']): row for row in read_json_lines(path, 'protocol')}
    rows = []
    for step, ema in weights:
        protocol = straightness_protocol(
            model, euler_steps, evaluation.samples, evaluation.seeds, ema=ema, step=step
        )
        row = stored.get(str(protocol))
        if row is None:
            params = load(step, ema)
            row = straightness_row(model, make_mesh(), params, protocol, evaluation.batch_size)
            row = append_json_line(path, row)
        rows.append(row)
    return rows
