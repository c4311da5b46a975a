"""Searches the noise levels with which multistep sampling scores best for a run's weights.

    python -m cm_jax.tune_levels --workdir=runs/digits/ect --levels=2

The score is that of the run's own evaluation, or in the features of --extractor; lower is better. The
levels are searched one after another, each by golden-section search (see core/tuning.py). The result is
printed as a sampler, such as multistep@80,0.613, and stored in the run's `tuned_levels.json` with all
tries and the protocol of its score. `sample` and `evaluate` then use it when they are given
--sampler=tuned.

The noise of the search must be none of config.evaluation.seeds, because the result is to be reported on
those.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cm_jax import cli, locks, sharding
from cm_jax.bounds import Interval, Samples
from cm_jax.core import tuning
from cm_jax.errors import UserError
from cm_jax.evaluation.extractors import override
from cm_jax.evaluation.scores import Scorer
from cm_jax.files import sealed
from cm_jax.run import Run, open_run
from cm_jax.run_folder import TUNED_LEVELS, weights_label, write_json
from cm_jax.settings import Evaluation, Seed
from cm_jax.terminal import Progress, say_next
from cm_jax.wiring import open_reference

_WORKDIR = cli.workdir_flag()
_LEVELS = cli.number_flag(
    'levels',
    2,
    'how many noise levels; the first is always t_max',
    Annotated[int, Interval('[2, 1000]')],
)
_BUDGET = cli.number_flag(
    'budget',
    12,
    'how many values of each other level are scored',
    Annotated[int, Interval('[2, 1000]')],
)
_SAMPLES = cli.number_flag(
    'samples', None, 'samples generated for each score; default: config.evaluation.samples', Samples
)
_SEED = cli.number_flag('seed', 100, 'seed of the noise; not one of config.evaluation.seeds', Seed)
_EXTRACTOR = cli.extractor_flags()
_STEP = cli.step_flag()
_EMA = cli.ema_flag()


def check_seed(evaluation: Evaluation) -> None:
    """Raises UserError if --seed is one of the evaluation's seeds."""
    if _SEED.value in evaluation.seeds:
        raise UserError(
            f'--seed={_SEED.value} is one of config.evaluation.seeds {tuple(evaluation.seeds)}: '
            'levels must not be chosen on the noise that they are reported on'
        )


def sampler_spec(levels: Sequence[float]) -> str:
    """Returns the sampler with these levels as it is written for --sampler: 'multistep@80,0.613'."""
    return 'multistep@' + ','.join(f'{level:.10g}' for level in levels)


def search(run: Run, scorer: Scorer, step: int, ema: str, samples: int) -> dict[str, Any]:
    """Searches the levels and returns the record of the search, as `tuned_levels.json` holds it.

    Each try is printed. Raises UserError if no try has a finite score, or if no room is left for the
    next level.
    """
    params, seeds, process = run.params(step, ema), (_SEED.value,), run.parts.process
    rows: dict[str, dict] = {}

    def score(levels: tuple[float, ...]) -> float:
        spec = sampler_spec(levels)
        rows[spec] = scorer.score(params, spec, samples, seeds, ema=ema, step=step, bar=bar)
        protocol = rows[spec]['protocol']
        bar.print(f'{spec:<32} {protocol["score"]} {rows[spec]["values"][0]:.4f}')
        return rows[spec]['values'][0]

    levels, budget = _LEVELS.value, _BUDGET.value
    with Progress((levels - 1) * budget * samples, 'tuning', leave=False) as bar:
        tries = tuning.greedy_levels(score, process.t_min, process.t_max, levels, budget)
    best = tuning.lowest([attempt for attempt in tries if len(attempt.levels) == _LEVELS.value])
    return {
        'step': step,
        'ema': ema,
        'levels': _LEVELS.value,
        'sampler': sampler_spec(best.levels),
        'score': best.score,
        'budget': _BUDGET.value,
        'tries': [
            {
                'sampler': sampler_spec(attempt.levels),
                'score': attempt.score if math.isfinite(attempt.score) else None,
            }
            for attempt in tries
        ],
        'protocol': rows[sampler_spec(best.levels)]['protocol'],
    }


def is_same_search(record: Mapping[str, Any], protocol: Mapping[str, Any]) -> bool:
    """Returns whether a stored record is of the search that this command was started for.

    That is the case if it searched as many levels with the same budget, and its scores have the
    protocol `protocol` but for the sampler.
    """
    same_flags = record.get('levels') == _LEVELS.value and record.get('budget') == _BUDGET.value
    return same_flags and all(
        record['protocol'][key] == protocol[key] for key in ('id', 'seeds', 'step', 'ema')
    )


def main(argv: Sequence[str]) -> None:
    del argv
    run = open_run(cli.required_workdir(_WORKDIR))
    evaluation = run.settings.evaluation
    given = {
        'extractor': _EXTRACTOR.extractor.value,
        'weights': _EXTRACTOR.weights.value,
        'batch_size': _EXTRACTOR.batch_size.value,
    }
    evaluation = override(evaluation, given, fetch=_EXTRACTOR.download.value)
    samples = evaluation.samples if _SAMPLES.value is None else _SAMPLES.value
    check_seed(evaluation)
    step = run.step(_STEP.value)
    ema = run.settings.sampling.ema if _EMA.value is None else _EMA.value
    run.check_ema(step, ema)
    space = open_reference(run.settings.dataset, evaluation)
    model, mesh = run.parts.generative_model, sharding.make_mesh()
    scorer = Scorer(model, [space], evaluation.batch_size, mesh, rule=evaluation.bytes)
    protocol = scorer.protocol('onestep', samples, (_SEED.value,), ema=ema, step=step)
    records = run.tuned()
    record = next((stored for stored in records[::-1] if is_same_search(stored, protocol)), None)
    if record is None:
        record = search(run, scorer, step, ema, samples)
        with locks.hold(run.workdir, f'{TUNED_LEVELS}.{locks.LOCK}', wait=True):
            records = [sealed(stored) for stored in [*run.tuned(), record]]
            write_json(run.workdir / TUNED_LEVELS, records)
    else:
        print(f'stored in {run.workdir / TUNED_LEVELS}')
    print(
        f'step {step}, {weights_label(ema)}: --sampler={record["sampler"]}  {record["score"]:.4f}'
    )
    weights = f'--step={step} --ema={ema} --sampler=tuned'
    say_next([f'{command} --workdir={run.workdir} {weights}' for command in ('sample', 'evaluate')])


if __name__ == '__main__':
    cli.run(main)
