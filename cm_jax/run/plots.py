"""The pictures of a run: its metrics, its weights and samples over the trajectory, its schedules."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cm_jax import objectives
from cm_jax.core import ema as averages
from cm_jax.errors import UserError, listed
from cm_jax.objectives import Pairs
from cm_jax.plotting import COLOURS, edges, mark_stages, panel, panels, plain_log
from cm_jax.run.averages import POSTHOC
from cm_jax.run.sampling import Labels
from cm_jax.run.tables import Table
from cm_jax.run.weights import ALL
from cm_jax.run_folder import RAW, weights_label

if TYPE_CHECKING:
    from cm_jax.run import Run

QUARTERS = ('loss_q1', 'loss_q2', 'loss_q3', 'loss_q4')  # of the noise levels, the lowest first
WIDE = 5.0  # values that differ by more than this factor are drawn on a logarithmic axis
MOST_ROWS = 8  # of a grid of samples, unless the steps are named
LEAST = 1e-3  # a part of an average that is worth a word
DRAWN = 4096  # pairs of noise levels, for a picture of the schedules
TRAINING_STEP = 'training step'


@dataclasses.dataclass(frozen=True)
class Plots:
    """The pictures of a run, each a matplotlib Figure that a notebook shows and `savefig` writes."""

    run: 'Run'

    def metrics(self, *names: str) -> Figure:
        """Draws metrics over training, each in a panel of its own; without names loss and grad_norm.

        Beside the loss stand its means over the four quarters of the noise levels of a batch. The
        stages of ECT's curriculum are marked. Raises UserError on a metric that the run has not logged.
        """
        rows = self.run.metrics()
        if not rows:
            raise UserError(f'{self.run.workdir} has logged no metrics yet')
        names = names or ('loss', 'grad_norm')
        drawn = [(name, rows.column(name)) for name in names]
        steps = rows.column('step')
        with panels(len(drawn), 1, (7.0, 0.6 + 2.4 * len(drawn)), share='x') as (figure, axes):
            for (name, values), own in zip(drawn, axes.flat):
                has = np.isfinite(values)  # a score is not measured at every step
                own.plot(steps[has], values[has], color=COLOURS['ect'], label='whole batch')
                own.set_ylabel(name.replace('_', ' '))
                if name == 'loss' and set(QUARTERS) <= rows[0].keys():
                    _quarters(own, rows)
                _log_if_wide(own)
            if every := self.run.settings.objective.get('double_every'):
                mark_stages(axes[0, 0], every, [0, int(steps[-1])])
            axes[-1, 0].set_xlabel(TRAINING_STEP)
            return figure

    def norms(self, ema: str = RAW) -> Figure:
        """Draws `Run.norms` by block: the growth of the weights, and the updates relative to them.

        The left panel has |theta_k| / |theta_1| of the snapshots k = 1, 2, ..., the right one
        |theta_k - theta_(k-1)| / |theta_k|. Raises UserError unless there are two snapshots.
        """
        table = self.run.norms(ema)
        steps = list(dict.fromkeys(row['step'] for row in table))
        if len(steps) < 2:
            raise UserError(
                f'norms over the trajectory take two snapshots; {self.run.workdir} holds the '
                f'{weights_label(ema)} at these steps: {listed(steps)}'
            )
        blocks = list(dict.fromkeys(row['block'] for row in table))
        grid = (len(steps), len(blocks))
        weights, update = (table.column(key).reshape(grid).T for key in ('weights', 'update'))
        with np.errstate(divide='ignore', invalid='ignore'):  # some blocks start at 0
            growth = weights / weights[:, :1]
            moved = update[:, 1:] / weights[:, 1:]
        growth[~np.isfinite(growth)] = np.nan
        size = (10.5, 1.6 + 0.2 * len(blocks))
        with panels(1, 2, size, share='y') as (figure, ((left, right),)):
            _heat(
                left, steps, growth, 'norm of the weights / that of the first snapshot', 'viridis'
            )
            _heat(right, steps[1:], moved, 'norm of the update / that of the weights', 'magma')
            names = ['all blocks' if block == ALL else block for block in blocks]
            left.set_yticks(range(len(blocks)), names, fontsize=8)
            left.invert_yaxis()
            return figure

    def samples(
        self,
        steps: Sequence[int] | None = None,
        spec: str | None = None,
        count: int = 8,
        seed: int = 0,
        *,
        ema: str = RAW,
        labels: Labels | None = None,
    ) -> Figure:
        """Draws `Run.sample_each`: a row of samples for each snapshot, the same noise in each column.

        Without steps they are at most MOST_ROWS of those that the run has, evenly spread.
        """
        if steps is None:
            kept = self.run.steps_with(ema)
            spread = np.linspace(0, len(kept) - 1, min(len(kept), MOST_ROWS))
            steps = [kept[i] for i in np.rint(spread).astype(int)]
        images = self.run.sample_each(steps, spec, count, seed, ema=ema, labels=labels)
        rows, columns, h, w, c = images.shape
        cells = np.full((rows, columns, h + 1, w + 1, c), 255, np.uint8)
        cells[:, :, :h, :w] = images
        picture = cells.transpose(0, 2, 1, 3, 4).reshape(rows * (h + 1), columns * (w + 1), c)
        picture = picture[:-1, :-1]
        width = max(5.0, 0.7 * columns + 1.2)
        height = (width - 1.2) * picture.shape[0] / picture.shape[1] + 0.9
        sampler = spec or self.run.settings.sampling.sampler
        label = f'samples by {sampler}, seed {seed}: a column has the same noise'
        with panel(label, f'{TRAINING_STEP} of the {weights_label(ema)}', (width, height)) as (
            figure,
            axes,
        ):
            axes.imshow(picture[..., 0] if c == 1 else picture, cmap='gray', vmin=0, vmax=255)
            axes.grid(False)
            axes.set_yticks([(h + 1) * i + (h - 1) / 2 for i in range(rows)], map(str, steps))
            axes.set_xticks([])
            axes.spines[:].set_visible(False)
            return figure

    def averages(self, *names: str, step: int | None = None) -> Figure:
        """Draws the profiles of averages of the weights: how much each training step weighs in them.

        `names` are those of averages that are stored at a step, by default all of them, or post-hoc
        averages such as 'posthoc0.07', each as the sum of the stored ones that stands for it; '' is the
        weights themselves. The marks below are the snapshots. Raises UserError on an average that the
        run cannot make.
        """
        run, step = self.run, self.run.step(step)
        names = names or tuple(run.emas(step))
        if not names or step < 1:
            raise UserError(f'{run.workdir} has no average of the weights at step {step}')
        for name in names:
            run.check_ema(step, name)
        with panel(TRAINING_STEP, 'weight of the step in the average', (7.0, 3.8)) as (
            figure,
            axes,
        ):
            for name in names:
                profile = self._profile(name, step)
                first = 1 - profile.sum()
                part = f' ({first:.1%} is the initial weights)' if first > LEAST else ''
                label = f'{weights_label(name)}{part}'
                axes.plot(np.arange(1, step + 1), profile, label=label)
            kept = [s for s in run.steps() if s <= step]
            axes.plot(kept, [0] * len(kept), '|', color=COLOURS['muted'], ms=9, label='snapshots')
            axes.legend()
            return figure

    def schedules(self, steps: Sequence[int] | None = None) -> Figure:
        """Draws the schedules of a consistency method, of pairs that its loss draws.

        The panels are the lower level r(t) of each pair, its relative gap (t - r) / t, and over
        training the number N(k) of levels of the grid, or the mean relative gap for a method without a
        grid. Without steps there are five, evenly spread. r = 0 is in the second panel as a gap of 1.
        Raises UserError for an objective that compares no pairs.
        """
        name, pairs = self.run.settings.objective['name'], self.run.parts.objective.pairs
        if pairs is None:
            raise UserError(
                f'objective {name!r} compares no pairs of noise levels; those that do: '
                f'{", ".join(objectives.names_with_pairs())}'
            )
        last, draw = self.run.settings.steps or 0, _pairs_at(pairs)
        if steps is None:
            steps = [int(step) for step in np.linspace(0, max(last - 1, 0), 5)]
        shades = matplotlib.colormaps['viridis'](np.linspace(0, 0.9, len(steps)))
        with panels(1, 3, (12.0, 3.8)) as (figure, ((first, second, third),)):
            for step, shade in zip(steps, shades):
                t, r = draw(step)
                first.plot(t[r > 0], r[r > 0], '.', ms=2, color=shade, label=f'step {step:,}')
                second.plot(t, (t - r) / t, '.', ms=2, color=shade)
            first.set(xscale='log', yscale='log', xlabel='noise level t', ylabel='r(t)')
            second.set(xscale='log', xlabel='noise level t', ylabel='relative gap (t - r) / t')
            second.set_yscale('log')
            first.legend(fontsize=8, markerscale=4)
            over = np.unique(np.linspace(0, max(last - 1, 1), 101).astype(int))
            third.set_xlabel(f'{TRAINING_STEP} k')
            if pairs.num_levels is not None:
                levels = jax.vmap(pairs.num_levels)(jnp.asarray(over))
                third.plot(over, levels, color=COLOURS['ect'])
                third.set_ylabel('levels of the grid N(k)')
            else:
                means = [np.mean((t - r) / t) for t, r in map(draw, over)]
                third.plot(over, means, color=COLOURS['ect'])
                third.set_ylabel('mean relative gap of the pairs drawn')
            _log_if_wide(third)
            return figure

    def _profile(self, name: str, step: int) -> np.ndarray:
        """Returns the weight of each of the training steps 1 to `step` in an average: [step].

        What their sum lacks to 1 is the weight of the initial weights.
        """
        if name.startswith(POSTHOC):
            profile = np.zeros(step)
            for term in self.run.posthoc(step, name):
                profile[: term.step] += term.coefficient * self._profile(term.ema, term.step)
            return profile
        if name == RAW:
            return np.append(np.zeros(step - 1), 1.0)
        if name.startswith(averages.POWER):
            sigma_rel = float(name.removeprefix(averages.POWER))
            return averages.power_coefficients(range(1, step + 1), sigma_rel)
        return averages.coefficients(step + 1, float(name))[1:]


def _pairs_at(pairs: Pairs) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """Returns a function that draws pairs of levels (t, r) at a step, in ascending order of t."""
    program = jax.jit(lambda step: pairs.draw(jax.random.key(0), DRAWN, step))

    def draw(step: int) -> tuple[np.ndarray, np.ndarray]:
        t, r = map(np.asarray, program(jnp.asarray(step)))
        order = np.argsort(t)
        return t[order], r[order]

    return draw


def _quarters(axes: Axes, rows: Table) -> None:
    """Draws the loss of each quarter of the noise levels of a batch."""
    shades = matplotlib.colormaps['Blues'](np.linspace(0.35, 0.85, len(QUARTERS)))
    for number, (name, shade) in enumerate(zip(QUARTERS, shades), 1):
        label = f'quarter {number} of t' + {1: ', lowest', 4: ', highest'}.get(number, '')
        axes.plot(rows.column('step'), rows.column(name), color=shade, linewidth=1.0, label=label)
    axes.legend(fontsize=8, loc='center left', bbox_to_anchor=(1.0, 0.5))


def _heat(axes: Axes, steps: Sequence[int], values: np.ndarray, title: str, colours: str) -> None:
    """Draws values [blocks, steps] as colours, logarithmic if they differ by more than WIDE."""
    shown = np.where(values > 0, values, np.nan)
    low, high = np.nanmin(shown), np.nanmax(shown)
    scale = matplotlib.colors.LogNorm if high > WIDE * low else matplotlib.colors.Normalize
    blocks = range(len(values))
    mesh = axes.pcolormesh(edges(steps), edges(blocks), shown, norm=scale(low, high), cmap=colours)
    axes.figure.colorbar(mesh, ax=axes)
    axes.grid(False)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(f'{TRAINING_STEP} of the snapshot')


def _log_if_wide(axes: Axes) -> None:
    """Makes the y axis logarithmic if all lines are positive and differ by more than WIDE."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0 and finite.max() > WIDE * finite.min():
        plain_log(axes)
