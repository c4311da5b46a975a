"""A comparison of training methods over training seeds, from the scores in their run folders.

A study is a folder of run folders, WORKDIR/<method>/seed<k>. A row of the study is a method with a
sampler: the mean of its scores over the training seeds, and their standard deviation.
"""

import collections
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.figure import Figure

from cm_jax.errors import UserError
from cm_jax.metrics.protocol import COMPARABLE
from cm_jax.plotting import panel, plain_log
from cm_jax.run import Run, open_run

SEED = re.compile(r'seed\d+')


def runs_of(workdir: epath.Path) -> dict[str, list[Run]]:
    """Returns the runs of a study by method, each method's runs in the order of their names.

    Raises UserError if the folder holds no runs.
    """
    runs = collections.defaultdict(list)
    for path in sorted(workdir.glob('*/seed*')):
        if SEED.fullmatch(path.name):  # not 'seed0.old1', which --fresh has set aside
            runs[path.parent.name].append(open_run(path))
    if not runs:
        raise UserError(f'{workdir} holds no <method>/seed<k> run folders')
    return dict(runs)


def scores_by_sampler(run: Run) -> dict[str, Mapping[str, Any]]:
    """Returns the scores of a run's last step by sampler, as rows of its scores.jsonl.

    They are those of the weights that config.sampling.ema names. Raises UserError, with the command
    that makes them, if there are none.
    """
    ema = run.settings.sampling.ema
    rows: dict[str, Mapping[str, Any]] = {
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
    """Returns the rows of a method, one for each sampler that every seed was scored with.

    They ascend in the number of network evaluations. `runs` are the method's runs, one a seed.
    """
    by_seed = [scores_by_sampler(run) for run in runs]
    rows = []
    for sampler, first_seed in by_seed[0].items():
        if not all(sampler in scores for scores in by_seed):
            continue
        protocol = first_seed['protocol']
        score_key = protocol['score'].rpartition('_')[0]  # 'fid_50000' is stored as 'fid'
        values = [scores[sampler][score_key] for scores in by_seed]
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
                'images_of_this_run': runs[0].settings.images_seen(),
                'protocol': {key: protocol[key] for key in COMPARABLE},
            }
        )
    return sorted(rows, key=lambda row: row['evaluations'])


def check_comparable(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError, naming what differs, unless all scores were measured in the same way."""
    for row in rows:
        for key in COMPARABLE:
            if row['protocol'][key] != rows[0]['protocol'][key]:
                raise UserError(
                    f'{row["method"]} and {rows[0]["method"]} were not scored alike: {key} is '
                    f'{row["protocol"][key]!r} and {rows[0]["protocol"][key]!r}'
                )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
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


def plot(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Returns a plot of the scores over the number of network evaluations, both axes logarithmic.

    Each method is a line, and the bars are the standard deviations.
    """
    with panel('network evaluations', rows[0]['score'], size=(7, 4.5)) as (figure, axes):
        axes.set_xscale('log')
        for method in dict.fromkeys(row['method'] for row in rows):
            line = [row for row in rows if row['method'] == method]
            axes.errorbar(
                x=[row['evaluations'] for row in line],
                y=[row['mean'] for row in line],
                yerr=[row['std'] or 0 for row in line],
                marker='o',
                capsize=3,
                label=method,
            )
        ticks = sorted({row['evaluations'] for row in rows})
        axes.set_xticks(ticks, labels=[str(tick) for tick in ticks], minor=False)
        plain_log(axes)
        axes.minorticks_off()
        axes.legend()
        return figure
