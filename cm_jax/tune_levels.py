"""Tune: `python -m cm_jax.tune_levels --workdir=runs/digits/ect --levels=2`.

Searches the noise levels of multistep sampling that give a run's weights the lowest score of its own
evaluation: level after level, by golden-section search (see core/tuning.py). Adds every try and the
winner, with the winner's protocol beside it, to the run's `tuned_levels.json`, and prints the sampler;
`sample` and `evaluate` take it by --sampler=tuned. The noise of the search is none of
config.evaluation.seeds, which the winner is to be reported on.
"""

import math
from collections.abc import Sequence
from typing import Any

from absl import flags

from cm_jax import cli, sharding
from cm_jax.core import tuning
from cm_jax.errors import UserError
from cm_jax.evaluation.scores import Scorer
from cm_jax.run import Run, open_run
from cm_jax.run_folder import TUNED_LEVELS, weights_label, write_json
from cm_jax.settings import Evaluation, check_numbers
from cm_jax.wiring import open_reference

_WORKDIR = cli.workdir_flag()
_LEVELS = flags.DEFINE_integer('levels', 2, 'noise levels, t_max the first of them')
_BUDGET = flags.DEFINE_integer('budget', 12, 'scores for each level that is searched')
_SAMPLES = flags.DEFINE_integer('samples', None, "samples a score; default the run's own")
_SEED = flags.DEFINE_integer('seed', 100, 'stream of noise, none of config.evaluation.seeds')
_STEP = cli.step_flag()
_EMA = cli.ema_flag()


def check(ev: Evaluation, samples: int) -> None:
    """Raises UserError on flags that cannot be carried out."""
    if _LEVELS.value < 2 or _BUDGET.value < 2:
        raise UserError(
            f'tune_levels needs --levels >= 2 (the first is t_max) and --budget >= 2, got '
            f'{_LEVELS.value} and {_BUDGET.value}'
        )
    check_numbers(samples, (_SEED.value,), ev.batch_size)
    if _SEED.value in ev.seeds:
        raise UserError(
            f'--seed={_SEED.value} is one of config.evaluation.seeds {tuple(ev.seeds)}: levels that '
            'were searched on that noise would be reported on it'
        )


def spelled(levels: Sequence[float]) -> str:
    """The sampler with these levels: 'multistep@80,0.613'."""
    return 'multistep@' + ','.join(f'{level:.10g}' for level in levels)


def search(run: Run, scorer: Scorer, step: int, ema: str, samples: int) -> dict[str, Any]:
    """Searches and returns the record of it."""
    params, seeds, process = run.params(step, ema), (_SEED.value,), run.parts.process
    rows: dict[str, dict] = {}

    def score(levels: tuple[float, ...]) -> float:
        spec = spelled(levels)
        rows[spec] = scorer.score(params, spec, samples, seeds, ema=ema, step=step)
        protocol = rows[spec]['protocol']
        print(f'{spec:<32} {protocol["score"]} {rows[spec]["values"][0]:.4f}', flush=True)
        return rows[spec]['values'][0]

    tries = tuning.greedy_levels(score, process.t_min, process.t_max, _LEVELS.value, _BUDGET.value)
    best = tuning.lowest([one for one in tries if len(one.levels) == _LEVELS.value])
    named = [(spelled(one.levels), one.score) for one in tries]
    return {
        'step': step,
        'ema': ema,
        'levels': _LEVELS.value,
        'sampler': spelled(best.levels),
        'score': best.score,
        'budget': _BUDGET.value,
        'tries': [
            {'sampler': spec, 'score': value if math.isfinite(value) else None}
            for spec, value in named
        ],
        'protocol': rows[spelled(best.levels)]['protocol'],
    }


def same_search(record: dict, protocol: dict) -> bool:
    """Whether a record is of the search that the flags and the protocol of a try ask for."""
    asked = {'levels': _LEVELS.value, 'budget': _BUDGET.value}
    alike = ('id', 'seeds', 'step', 'ema')
    return asked.items() <= record.items() and all(
        record['protocol'][key] == protocol[key] for key in alike
    )


def main(argv: Sequence[str]) -> None:
    del argv
    run = open_run(cli.required_workdir(_WORKDIR))
    ev = run.settings.evaluation
    samples = ev.samples if _SAMPLES.value is None else _SAMPLES.value
    check(ev, samples)
    step = run.step(_STEP.value)
    ema = run.settings.sampling.ema if _EMA.value is None else _EMA.value
    run.check_ema(step, ema)
    extractor, reference = open_reference(run.settings.dataset, ev)
    scorer = Scorer(
        run.parts.generative_model, extractor, reference, ev.batch_size, sharding.make_mesh()
    )
    protocol = scorer.protocol('onestep', samples, (_SEED.value,), ema=ema, step=step)
    records = run.tuned()
    record = next((one for one in reversed(records) if same_search(one, protocol)), None)
    if record is None:
        record = search(run, scorer, step, ema, samples)
        write_json(run.workdir / TUNED_LEVELS, [*records, record])
    else:
        print(f'stored in {run.workdir / TUNED_LEVELS}')
    print(
        f'step {step}, {weights_label(ema)}: --sampler={record["sampler"]}  {record["score"]:.4f}'
    )


if __name__ == '__main__':
    cli.run(main)
