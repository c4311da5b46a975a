"""The pictures of a search: its progress, its coefficients, the plane through three snapshots."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from matplotlib.figure import Figure

from cm_jax.lcsc import space as spaces
from cm_jax.lcsc.identity import EMA_STAR
from cm_jax.plotting import COLOURS, edges, mark_stages, panel, plain_log
from cm_jax.run_folder import LANDSCAPE, read_record

WIDE = 5.0  # scores that differ by more than this factor are drawn on a logarithmic axis
MANY = 6  # lines of a plot, whose legend is then below it
STEPS = 10  # of the running mean of a descent
MOST_LINES = 4  # of a picture of coefficients
REACH = (-0.5, 1.5)  # of the plane's two coordinates: beyond the triangle on all sides


class Plane(NamedTuple):
    """theta_0 + x (theta_1 - theta_0) + y (theta_2 - theta_0) through three of K snapshots."""

    corners: tuple[int, int, int]  # indices of the snapshots
    x: np.ndarray  # [n]
    y: np.ndarray  # [n]

    def coefficients(self, k: int, groups: int) -> np.ndarray:
        """The candidates of the grid, row by row of y: [n n, G K]."""
        start, one, two = np.eye(k)[list(self.corners)]
        y, x = (axis.reshape(-1, 1) for axis in np.meshgrid(self.y, self.x, indexing='ij'))
        return np.tile(start + x * (one - start) + y * (two - start), (1, groups))


def plane(k: int, n: int) -> Plane:
    """An n x n grid through the first, the middle and the last of k >= 3 snapshots."""
    return Plane((0, (k - 1) // 2, k - 1), np.linspace(*REACH, n), np.linspace(*REACH, n))


def read_landscape(workdir: epath.Path, grid: Plane) -> np.ndarray:
    """Returns the scores of a grid that the folder of a search keeps, a row for each y.

    Raises UserError if the file is damaged. In that of an earlier version the list is all there is.
    """

    def parse(plain: Any) -> np.ndarray:
        scores = plain if isinstance(plain, list) else plain['scores']
        return np.array(scores, float).reshape(len(grid.y), len(grid.x))

    return read_record(workdir, LANDSCAPE, parse)


def best_so_far(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns, for rows of search.jsonl, two arrays with an entry for each generation.

    They are the number of candidates that were scored up to there, and the lowest score among them.
    """
    generations = np.array([row['generation'] for row in rows])
    scores = np.array([row['score'] for row in rows], float)  # None becomes NaN
    counts = np.cumsum(np.unique(generations, return_counts=True)[1])
    lowest = np.fmin.accumulate(scores)
    return counts, lowest[counts - 1]


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Returns the means of each value and up to `width` - 1 before it, without those not finite."""
    starts = np.maximum(np.arange(len(values)) - width + 1, 0)
    windows = [values[start : i + 1] for i, start in enumerate(starts)]
    finite = [window[np.isfinite(window)] for window in windows]
    return np.array([window.mean() if len(window) else np.nan for window in finite])


def descent(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `best_so_far` does, for a descent, whose steps are each on noise of their own.

    The first value is the lowest of the averages that it began with, which share one set of noise;
    the others are the running mean over ten steps, since the lowest of scores on different noise is
    mostly luck.
    """
    scores = np.array([row['score'] for row in rows], float)
    first = sum(row['generation'] == 0 for row in rows)
    best = np.fmin.reduce(scores[:first])
    values = np.concatenate([[best], running_mean(scores[first:], STEPS)])
    return np.arange(first, len(rows) + 1), values


def progress(
    searched: Sequence[Mapping[str, Any]],
    random: Sequence[Mapping[str, Any]],
    score: str,
    is_descent: bool,
) -> Figure:
    """Draws each candidate's score, the best so far, and what a random search and EMA profiles reach.

    The rows are those of `generations.read_candidates`; `random` is empty without such a control. A
    descent has a running mean in place of the best so far.
    """
    scores = np.array([row['score'] for row in searched], float)
    is_ema = [row['profile'] is not None and row['profile'].kind == EMA_STAR for row in searched]
    finite_emas = [value for value in scores[is_ema] if np.isfinite(value)]
    with panel('candidates scored', f'{score} on search noise') as (figure, axes):
        numbers, grey = np.arange(1, len(scores) + 1), COLOURS['muted']
        axes.plot(numbers, scores, '.', color=grey, ms=4, label='candidate')
        if finite_emas:
            lowest = min(finite_emas)
            axes.axhline(lowest, color=COLOURS['ema'], ls='--', label='best EMA profile')
        if random:
            label = 'random search, best so far'
            axes.step(*best_so_far(random), color=COLOURS['random'], where='post', label=label)
        if is_descent:
            axes.plot(
                *descent(searched), color=COLOURS['lcsc'], label=f'LCSC, mean of {STEPS} steps'
            )
        else:
            label = 'LCSC, best so far'
            axes.step(*best_so_far(searched), color=COLOURS['lcsc'], where='post', label=label)
        low, high = np.nanmin(scores), np.nanquantile(scores, 0.95)
        if low > 0:
            if high > WIDE * low:
                plain_log(axes)
            axes.set_ylim(0.95 * low, 1.05 * high)
        axes.legend()
        return figure


def coefficients(
    steps: Sequence[int],
    combination: np.ndarray,
    groups: Sequence[str],
    profile: np.ndarray,
    profile_label: str,
    stage: int | None = None,
    runs: Sequence[str] = (),
) -> Figure:
    """Draws coefficients [G, K] over training, with those of an EMA profile [K] for comparison.

    `groups` are the patterns of the G groups of weights; `stage` is the length in steps of a stage of
    the run's curriculum, whose stages are then marked. `runs` names the run of each snapshot; if they
    are several, each run has a line of its own. More than MOST_LINES groups of one run are rows of a
    map of colours.
    """
    if len(combination) > MOST_LINES and len(set(runs)) < 2:
        labels = [profile_label, *spaces.names(groups)]
        return _map(steps, np.vstack([profile, combination]), labels, stage)
    names = np.array(runs or [''] * len(steps))
    own = {run: np.flatnonzero(names == run) for run in dict.fromkeys(names)}
    at, profile = np.array(steps), np.array(profile)
    with panel('training step of the snapshot', 'coefficient') as (figure, axes):
        if stage:
            mark_stages(axes, stage, steps)
        axes.axhline(0, color=COLOURS['muted'], linewidth=0.8)
        for run, i in own.items():
            label = profile_label if run == names[0] else None
            axes.plot(at[i], profile[i], color=COLOURS['ema'], linewidth=1.6, label=label)
        if len(combination) == len(own) == 1:
            axes.vlines(steps, 0, combination[0], color=COLOURS['lcsc'], linewidth=1.4)
            axes.plot(steps, combination[0], 'o', color=COLOURS['lcsc'], markersize=4, label='LCSC')
        else:
            named = zip(spaces.names(groups), combination)
            for (name, row), run in itertools.product(named, own):
                group = [name] if len(combination) > 1 else []
                label = ', '.join(['LCSC', *group, *([run] if len(own) > 1 else [])])
                i = own[run]
                axes.plot(at[i], row[i], 'o-', markersize=3, linewidth=0.9, label=label)
        lines = len(axes.get_lines())
        if lines > MANY:
            figure.set_size_inches(6.5, 4.2 + 0.08 * lines)  # room for the legend
            figure.legend(loc='outside lower center', ncols=2, fontsize=7)
        else:
            axes.legend(fontsize=8)
        return figure


def _map(
    steps: Sequence[int], rows: np.ndarray, labels: Sequence[str], stage: int | None
) -> Figure:
    """Draws coefficients [N, K] as colours, a row for each label: red is positive, blue negative."""
    size, reach = (7.0, 1.2 + 0.24 * len(rows)), np.abs(rows).max()
    with panel('training step of the snapshot', 'group of weights', size) as (figure, axes):
        if stage:
            mark_stages(axes, stage, steps)
        mesh = axes.pcolormesh(
            edges(steps), edges(range(len(rows))), rows, cmap='RdBu_r', vmin=-reach, vmax=reach
        )
        figure.colorbar(mesh, ax=axes, label='coefficient')
        axes.grid(False)
        axes.set_yticks(range(len(rows)), labels, fontsize=8)
        axes.invert_yaxis()
        return figure


def landscape(grid: Plane, scores: np.ndarray, steps: Sequence[int], score: str) -> Figure:
    """Draws scores [n, n] over the plane, row by row of y, with its three snapshots and their triangle.

    The colours are logarithmic where all scores are positive. Scores that are not finite stay white.
    """
    _, one, two = (steps[index] for index in grid.corners)
    finite = np.where(np.isfinite(scores), scores, np.nan)
    any_finite = bool(np.isfinite(finite).any())
    logarithmic = any_finite and np.nanmin(finite) > 0
    shown, label = (np.log10(finite), f'log10 {score}') if logarithmic else (finite, score)
    with panel(f'x, towards step {one}', f'y, towards step {two}') as (figure, axes):
        axes.grid(False)
        mesh = axes.pcolormesh(grid.x, grid.y, shown, shading='nearest', cmap='viridis')
        figure.colorbar(mesh, ax=axes, label=f'{label} on search noise')
        corners = np.array([[0, 0], [1, 0], [0, 1], [0, 0]])
        axes.plot(*corners.T, color='white', linewidth=0.8)
        for (x, y), index in zip(corners, grid.corners):
            axes.plot(x, y, 'o', color='white', markersize=5)
            axes.annotate(
                f'step {steps[index]}', (x, y), (4, 4), textcoords='offset points', color='w'
            )
        if any_finite:
            row, column = np.unravel_index(np.nanargmin(finite), finite.shape)
            axes.plot(
                grid.x[column],
                grid.y[row],
                '*',
                color=COLOURS['lcsc'],
                markersize=13,
                label='lowest',
            )
            axes.legend(loc='upper right', fontsize=8, frameon=True)
        return figure
