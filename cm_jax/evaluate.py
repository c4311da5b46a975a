"""Evaluate: `python -m cm_jax.evaluate --workdir=runs/quickstart/ect --sampler=onestep --ema=0.99`.

Scores a run's weights and adds a row for each to its `scores.jsonl`, with the protocol beside the
number. A score that is there already under the same protocol is not computed again. What is not
given is taken from the run's config (or, with --config, from that config's `evaluation`). With
--straightness=N the straightness of a rectified flow's paths, over N Euler steps, is measured instead,
and goes to `straightness.jsonl`.

The FID needs the file of the Inception's weights, pt_inception-2015-12-05-6726825d.pth:

    python -m cm_jax.evaluate --workdir=runs/cifar10/ect --config=configs/cifar10_ect.py \\
        --config.evaluation.extractor=inception --config.evaluation.weights=FILE --metrics=fid,kid,is,pr
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from cm_jax import commands, sharding
from cm_jax.errors import UserError
from cm_jax.logs import append_json_line, read_json_lines
from cm_jax.metrics import named, straightness
from cm_jax.run import RAW, STRAIGHTNESS, Run, open_run
from cm_jax.scores import (
    Scorer,
    build_sampler,
    check_numbers,
    straightness_protocol,
    straightness_row,
)
from cm_jax.wiring import evaluation, open_reference

_CONFIG = config_flags.DEFINE_config_file('config', None, 'takes `evaluation` from this config')
_WORKDIR = flags.DEFINE_string('workdir', None, 'the run folder')
_STEP = flags.DEFINE_multi_integer('step', None, 'trajectory step, repeatable; default the last')
_EMA = flags.DEFINE_multi_string(
    'ema',
    None,
    "average, e.g. 0.999 or posthoc0.07, repeatable; '' is the weights themselves; default: all "
    'that are stored',
)
_SAMPLER = flags.DEFINE_multi_string('sampler', None, 'e.g. heun@18 or tuned, repeatable')
_SAMPLES = flags.DEFINE_integer('samples', None, 'samples a seed')
_SEEDS = flags.DEFINE_list('seeds', None, 'streams of noise, e.g. 1000,1001,1002')
_STRAIGHTNESS = flags.DEFINE_integer(
    'straightness', None, 'measure the straightness of paths of so many Euler steps, e.g. 128'
)
_METRICS = flags.DEFINE_list(
    'metrics',
    [],
    'beside the Fréchet distance, which every score has: for the Inception kid, is (inception '
    'score), pr (precision, recall, density, coverage); for others kd_lenet, is_lenet, pr_lenet',
)


def chosen_weights(run: Run) -> list[tuple[int, str]]:
    """(step, average) of the weights that the flags name."""
    steps = [run.step(step) for step in _STEP.value or [None]]
    return [
        (step, ema)
        for step in steps
        for ema in (_EMA.value if _EMA.value is not None else [RAW, *run.emas(step)])
    ]


def shown(step: int, ema: str) -> str:
    """The weights, for the terminal."""
    return f'step {step}  {f"ema {ema}" if ema else "weights":<10}'


def spread(std: float | None, form: str = '.4f') -> str:
    return '' if std is None else f' +- {std:{form}}'


def measure_straightness(
    run: Run, weights: list[tuple[int, str]], samples: int, seeds: Sequence[int], batch_size: int
) -> None:
    """Adds a row to straightness.jsonl for each of the weights that has none under its protocol."""
    steps, subject, path = _STRAIGHTNESS.value, run.parts.subject, run.workdir / STRAIGHTNESS
    straightness.check(subject.process, steps)
    stored = {str(row['protocol']): row for row in read_json_lines(path)}
    for step, ema in weights:
        protocol = straightness_protocol(subject, steps, samples, seeds, ema=ema, step=step)
        row = stored.get(str(protocol))
        if row is None:
            params = run.params(step, ema)
            row = straightness_row(subject, sharding.make_mesh(), params, protocol, batch_size)
            append_json_line(path, row)
        print(
            f'{shown(step, ema)}  straightness over {steps} Euler steps '
            f'{row["straightness"]:.4f}{spread(row["straightness_std"])}',
            flush=True,
        )


def main(argv: Sequence[str]) -> None:
    del argv
    run = open_run(commands.required_workdir(_WORKDIR))
    config = run.config if _CONFIG.value is None else commands.required_config(_CONFIG)
    ev = evaluation(config)
    specs = _SAMPLER.value or list(ev.samplers)
    samples = ev.samples if _SAMPLES.value is None else _SAMPLES.value
    seeds = commands.integers('seeds', _SEEDS.value) or ev.seeds
    check_numbers(samples, seeds, ev.batch_size)
    chosen = chosen_weights(run)
    if _STRAIGHTNESS.value is not None:
        if _SAMPLER.value:
            raise UserError('--straightness follows Euler steps of its own: leave --sampler out')
        measure_straightness(run, chosen, samples, seeds, ev.batch_size)
        return
    jobs = [(step, ema, run.sampler_spec(s, step, ema)) for step, ema in chosen for s in specs]
    for _, _, spec in jobs:
        build_sampler(spec, run.parts.subject)
    weights = {(step, ema): run.params(step, ema) for step, ema, _ in jobs}
    metrics = _METRICS.value
    extractor, reference = open_reference(run.config, ev._replace(samples=samples), metrics)
    mesh = sharding.make_mesh()
    scorer = Scorer(run.parts.subject, extractor, reference, ev.batch_size, mesh, metrics)
    names = [extractor.score, *named.keys(extractor, metrics)]
    rows = (row for row in run.scores() if row.keys() >= set(names))
    stored = {str(row['protocol']): row for row in rows}
    for step, ema, spec in jobs:
        protocol = scorer.protocol(spec, samples, seeds, ema=ema, step=step)
        row, since = stored.get(str(protocol)), time.monotonic()
        if row is None:
            row = scorer.score(weights[step, ema], spec, samples, seeds, ema=ema, step=step)
            append_json_line(run.workdir / 'scores.jsonl', row)
        seconds = f'{time.monotonic() - since:.1f} s' if str(protocol) not in stored else 'stored'
        print(
            f'{shown(step, ema)}  {spec:<18} '
            f'{row["protocol"]["evaluations"]:>3} evaluations  {row["protocol"]["score"]} '
            f'{"  ".join(numbers(row, names))}  ({seconds})',
            flush=True,
        )


def numbers(row: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    """'12.3456 +- 0.1234', 'kid 0.001235 +- 0.0001': the first is named by the protocol."""
    for name in names:
        label, form = ('', '.4f') if name == names[0] else (f'{name} ', '.4g')
        value = math.nan if row[name] is None else row[name]
        yield f'{label}{value:{form}}{spread(row[f"{name}_std"], form)}'


if __name__ == '__main__':
    commands.run(main)
