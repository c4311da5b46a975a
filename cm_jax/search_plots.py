"""The pictures of a search: its progress, the coefficients found, the plane through three snapshots.

Drawn on matplotlib's `Figure` itself, so that no window system and no global state is involved.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure

LCSC, EMA, RANDOM, MUTED = '#d55e00', '#0072b2', '#009e73', '#9ca3af'  # Okabe and Ito's
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


def save(figure: Figure, path: epath.Path) -> None:
    """Writes a figure as a PNG."""
    with path.open('wb') as file:
        figure.savefig(file, format='png', dpi=130)


def panel(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A figure of one panel."""
    figure = Figure(figsize=(6.5, 4.2), layout='constrained')
    axes = figure.add_subplot()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.spines[['top', 'right']].set_visible(False)
    return figure, axes


def best_so_far(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Of the rows of search.jsonl: candidates scored up to each generation, and the lowest score."""
    generations = np.array([row['generation'] for row in rows])
    scores = np.array([row['score'] for row in rows], float)  # None becomes NaN
    counts = np.cumsum(np.unique(generations, return_counts=True)[1])
    lowest = np.fmin.accumulate(scores)
    return counts, lowest[counts - 1]


def progress(
    searched: Sequence[Mapping[str, Any]],
    random: Sequence[Mapping[str, Any]],
    baseline: float,
    score: str,
) -> Figure:
    """Each candidate's score, the best so far, the random search's and the best EMA profile's."""
    figure, axes = panel('candidates scored', f'{score} on search noise')
    scores = np.array([row['score'] for row in searched], float)
    axes.plot(np.arange(1, len(scores) + 1), scores, '.', color=MUTED, ms=4, label='candidate')
    axes.axhline(baseline, color=EMA, linestyle='--', label='best EMA profile')
    for rows, colour, name in ((random, RANDOM, 'random search'), (searched, LCSC, 'LCSC')):
        if rows:
            axes.step(*best_so_far(rows), color=colour, where='post', label=f'{name}, best so far')
    low = np.nanmin(scores)
    if low > 0:
        axes.set_yscale('log')
        axes.yaxis.set_major_formatter('{x:g}')
        axes.yaxis.set_minor_formatter('{x:g}')
        axes.set_ylim(0.95 * low, 1.05 * np.nanquantile(scores, 0.95))
    axes.legend(frameon=False)
    return figure


def coefficients(
    steps: Sequence[int], found: np.ndarray, groups: Sequence[str], ema: np.ndarray, name: str
) -> Figure:
    """The coefficients [G, K] over training, with those of an EMA profile [K]."""
    figure, axes = panel('training step of the snapshot', 'coefficient')
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.plot(steps, ema, color=EMA, linewidth=1.6, label=name)
    if len(found) == 1:
        axes.vlines(steps, 0, found[0], color=LCSC, linewidth=1.4)
        axes.plot(steps, found[0], 'o', color=LCSC, markersize=4, label='LCSC')
    for pattern, row in zip(groups, found if len(found) > 1 else ()):
        axes.plot(steps, row, 'o-', markersize=3, linewidth=0.9, label=f'LCSC, {pattern or "rest"}')
    axes.legend(frameon=False, fontsize=8)
    return figure


def landscape(grid: Plane, scores: np.ndarray, steps: Sequence[int], score: str) -> Figure:
    """Scores [n, n] over the plane, row by row of y, with its three snapshots and their triangle.

    Logarithmic where all are positive. Scores that are not finite stay white.
    """
    _, one, two = (steps[index] for index in grid.corners)
    figure, axes = panel(f'x, towards step {one}', f'y, towards step {two}')
    finite = np.where(np.isfinite(scores), scores, np.nan)
    any_finite = bool(np.isfinite(finite).any())
    logarithmic = any_finite and np.nanmin(finite) > 0
    shown, label = (np.log10(finite), f'log10 {score}') if logarithmic else (finite, score)
    mesh = axes.pcolormesh(grid.x, grid.y, shown, shading='nearest', cmap='viridis')
    figure.colorbar(mesh, ax=axes, label=f'{label} on search noise')
    corners = np.array([[0, 0], [1, 0], [0, 1], [0, 0]])
    axes.plot(*corners.T, color='white', linewidth=0.8)
    for (x, y), index in zip(corners, grid.corners):
        axes.plot(x, y, 'o', color='white', markersize=5)
        axes.annotate(f'step {steps[index]}', (x, y), (4, 4), textcoords='offset points', color='w')
    if any_finite:
        row, column = np.unravel_index(np.nanargmin(finite), finite.shape)
        axes.plot(grid.x[column], grid.y[row], '*', color=LCSC, markersize=13, label='lowest')
        axes.legend(loc='upper right', fontsize=8)
    return figure
