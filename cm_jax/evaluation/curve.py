"""The curve over training: scores of several steps, as `curve.json` and `curve.png`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from cm_jax.plotting import panel, save_figure
from cm_jax.run_folder import CURVE, CURVE_PLOT, weights_label, write_json

ALIKE = ('ema', 'sampler')  # a line of the plot is of one average and one sampler
KEPT = ('step', *ALIKE, 'evaluations', 'samples', 'seeds', 'id')


def points(rows: Sequence[Mapping[str, Any]], score: str) -> list[dict[str, Any]]:
    """Returns the points of the curve, with the full name of the score and the id of its protocol."""
    return [
        {
            **{key: row['protocol'][key] for key in KEPT},
            'score': row['protocol']['score'],
            'value': row[score],
            'std': row[f'{score}_std'],
        }
        for row in rows
    ]


def write(workdir: epath.Path, rows: Sequence[Mapping[str, Any]], score: str) -> epath.Path:
    """Writes rows of one protocol and several steps into a run folder. Returns the path of the plot."""
    curve = points(rows, score)
    write_json(workdir / CURVE, curve)
    ylabel = f'{curve[0]["score"]}, protocol {curve[0]["id"]}'
    with panel('training step', ylabel, size=(7, 4.5)) as (figure, axes):
        axes.set_yscale('log')
        for ema, sampler in dict.fromkeys(tuple(point[key] for key in ALIKE) for point in curve):
            line = [point for point in curve if (point['ema'], point['sampler']) == (ema, sampler)]
            line.sort(key=lambda point: point['step'])
            x = [point['step'] for point in line]
            y = [math.nan if point['value'] is None else point['value'] for point in line]
            spread = [point['std'] or 0 for point in line]
            label = f'{weights_label(ema)}, {sampler}'
            axes.errorbar(x, y, yerr=spread, marker='o', capsize=3, label=label)
        axes.legend()
    path = workdir / CURVE_PLOT
    save_figure(path, figure)
    return path
