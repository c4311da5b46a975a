"""The picture of a study of LCSC: scores on search noise over what the searches had cost by then.

A method has a line in the panel of a use: the mean over its search seeds of a score divided by that of
the best of the averages that the search started from. For the methods with populations it is the best
so far, on one set of search noise; down the derivative, whose steps are each on noise of their own, it
is the running mean over ten steps. So the two kinds of lines do not compare with each other, nor those
of one distance with those of two: for that there are the tables, on report noise.
"""

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cm_jax.lcsc import generations, job
from cm_jax.lcsc.identity import LCSC
from cm_jax.lcsc.plots import STEPS, best_so_far, descent
from cm_jax.plotting import STYLE
from cm_jax.reports.study_searches import METHODS, Searches, Use

CAPTION = (
    'Mean over search seeds. Populations: best so far, on one set of search noise. Gradient: running '
    f'mean over {STEPS} steps, each on noise of its own. The two kinds do not compare: see the tables.'
)


class Curve(NamedTuple):
    """Scores over the network evaluations that they had cost, as the mean over search seeds."""

    evaluations: list[float]
    values: list[float]


def curve(searches: Searches) -> Curve:
    """Returns the curve of a method; its first point is after the averages, whose best is 1."""
    each, settings = [], searches.settings
    for path in searches.paths:
        rows = generations.read_candidates(path, job.SEARCH)
        first = sum(row['generation'] == 0 for row in rows)
        _, values = descent(rows) if settings.is_descent else best_so_far(rows)
        each.append(values / values[0])
    row = searches.row(LCSC)
    profiles = first * settings.budget.samples * row['protocol']['evaluations']
    profiles *= 1 if settings.budget.units == 'given' else 2
    at = np.linspace(profiles, searches.costs()['search'], len(each[0]))
    return Curve(at.tolist(), np.mean(each, axis=0).tolist())


def draw(curves: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Returns the picture, a panel for each use; `curves` are by the title of the use and method."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(curves), 4.2), layout='constrained')
        for axes, (title, of_use) in zip(np.ravel(figure.subplots(1, len(curves))), curves.items()):
            axes.grid(axis='y', color='#e5e7eb', linewidth=0.8)
            axes.set_title(title, fontsize=10)
            for method, line in of_use.items():
                at, style = np.array(line.evaluations) / 1e6, '--' if 'gradient' in method else '-'
                axes.plot(at, line.values, style, label=METHODS[method])
            axes.set_xlabel('million network evaluations')
        figure.axes[0].set_ylabel("score / the best average's, on search noise")
        figure.axes[0].legend(fontsize=8)
        figure.supxlabel(CAPTION, fontsize=8)
        return figure


def curves(use: Use) -> dict[str, Curve]:
    """Returns the curve of each method of a use."""
    return {method: curve(searches) for method, searches in use.items()}
