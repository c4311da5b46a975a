"""The rows of a study: methods over training seeds, from the scores of their run folders."""

import collections
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from cm_jax.errors import UserError
from cm_jax.metrics.protocol import COMPARABLE
from cm_jax.plotting import panel, plain_log, save_figure
from cm_jax.run import Run, open_run

SEED = re.compile(r'seed\d+')


def runs_of(workdir: epath.Path) -> dict[str, list[Run]]:
    """{method: its runs by seed}. Raises UserError where there are none."""
    found = collections.defaultdict(list)
    for path in sorted(workdir.glob('*/seed*')):
        if SEED.fullmatch(path.name):  # a folder that was set aside is none
            found[path.parent.name].append(open_run(path))
    if not found:
        raise UserError(f'{workdir} holds no <method>/seed<k> run folders')
    return dict(found)


def scored(run: Run) -> dict[str, Mapping[str, Any]]:
    """{sampler: the score of the run's last step, of the average that it samples with}."""
    ema = run.settings.sampling.ema
    rows = {
        row['protocol']['sampler']: row
        for row in run.scores()
        if row['protocol']['step'] == run.step() and row['protocol']['ema'] == ema
    }
    if not rows:
        raise UserError(
            f'{run.workdir} has no scores of its last step: python -m cm_jax.evaluate '
            f'--workdir={run.workdir} --ema={ema}'
        )
    return rows


def rows_of(method: str, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The rows of a method, one for each sampler that every seed was scored with."""
    by_seed = [scored(run) for run in runs]
    images = runs[0].settings.steps * runs[0].settings.batch_size
    rows = []
    for sampler in [s for s in by_seed[0] if all(s in scores for scores in by_seed)]:
        protocol = by_seed[0][sampler]['protocol']
        name = protocol['score'].rsplit('_', 1)[0]
        values = [scores[sampler][name] for scores in by_seed]
        rows.append(
            {
                'method': method,
                'sampler': sampler,
                'evaluations': protocol['evaluations'],
                'score': protocol['score'],
                'mean': float(np.mean(values)),
                'std': float(np.std(values, ddof=1)) if len(values) > 1 else None,
                'values': values,
                'ema': protocol['ema'],
                'training_seeds': [run.settings.seed for run in runs],
                'noise_seeds': protocol['seeds'],
                'images_of_this_run': images,
                'protocol': {key: protocol[key] for key in COMPARABLE},
            }
        )
    return sorted(rows, key=lambda row: row['evaluations'])


def check_comparable(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError unless every score was measured in one way."""
    for row in rows:
        for key in COMPARABLE:
            if row['protocol'][key] != rows[0]['protocol'][key]:
                raise UserError(
                    f'{row["method"]} and {rows[0]["method"]} were not scored alike: {key} is '
                    f'{row["protocol"][key]!r} and {rows[0]["protocol"][key]!r}'
                )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table."""
    seeds = max(len(row['values']) for row in rows)
    lines = [
        f'| method | sampler | evaluations | `{rows[0]["score"]}`, mean ± std over {seeds} seeds |',
        '|---|---|---|---|',
    ]
    for row in rows:
        spread = '' if row['std'] is None else f' ± {row["std"]:.2f}'
        lines.append(
            f'| {row["method"]} | `{row["sampler"]}` | {row["evaluations"]} '
            f'| {row["mean"]:.2f}{spread} |'
        )
    return '\n'.join(lines) + '\n'


def plot(rows: Sequence[Mapping[str, Any]], path: epath.Path) -> None:
    """Draws score over evaluations, both logarithmic, with the standard deviation as bars."""
    with panel('network evaluations', rows[0]['score'], size=(7, 4.5)) as (figure, axes):
        axes.set_xscale('log')
        for method in dict.fromkeys(row['method'] for row in rows):
            mine = [row for row in rows if row['method'] == method]
            x, y = ([row[key] for row in mine] for key in ('evaluations', 'mean'))
            spread = [row['std'] or 0 for row in mine]
            axes.errorbar(x, y, yerr=spread, marker='o', capsize=3, label=method)
        ticks = sorted({row['evaluations'] for row in rows})
        axes.set_xticks(ticks, labels=map(str, ticks), minor=False)
        plain_log(axes)
        axes.minorticks_off()
        axes.legend()
        save_figure(path, figure)
