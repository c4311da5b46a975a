"""The curve over training: scores of several steps, as `curve.json` and `curve.png`."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from matplotlib.figure import Figure

from cm_jax.logs import write_text

NAME = 'curve'
ALIKE = ('ema', 'sampler')  # a line of the plot is of one average and one sampler
KEPT = ('step', *ALIKE, 'evaluations', 'samples', 'seeds', 'id')


def points(rows: Sequence[Mapping[str, Any]], score: str) -> list[dict[str, Any]]:
    """The points of the curve, with the full name of the score and the id of its protocol."""
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
    """Writes the rows of one protocol, of several steps, into a run folder; the path of the plot."""
    found = points(rows, score)
    write_text(workdir / f'{NAME}.json', json.dumps(found, indent=1) + '\n')
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axes = figure.add_subplot(yscale='log')
    axes.set(xlabel='training step', ylabel=f'{found[0]["score"]}, protocol {found[0]["id"]}')
    for ema, sampler in dict.fromkeys(tuple(point[key] for key in ALIKE) for point in found):
        line = [point for point in found if (point['ema'], point['sampler']) == (ema, sampler)]
        line.sort(key=lambda point: point['step'])
        x = [point['step'] for point in line]
        y = [math.nan if point['value'] is None else point['value'] for point in line]
        spread = [point['std'] or 0 for point in line]
        name = f'ema {ema}' if ema else 'weights'
        axes.errorbar(x, y, yerr=spread, marker='o', capsize=3, label=f'{name}, {sampler}')
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    path = workdir / f'{NAME}.png'
    with path.open('wb') as file:
        figure.savefig(file, format='png', dpi=130)
    return path
