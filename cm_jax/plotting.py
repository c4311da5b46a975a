"""Writes grids of images, and makes matplotlib figures in one style.

Figures are drawn on matplotlib's `Figure` and not with pyplot, so that no window system and no global
state is involved. The colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence

import matplotlib
import numpy as np
import PIL.Image
from etils import epath
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cm_jax.files import writing

COLOURS = {
    'teacher': '#555555',
    'ect': '#009e73',
    'ema': '#0072b2',
    'lcsc': '#d55e00',
    'random': '#009e73',
    'muted': '#9ca3af',
}
# The style of all figures, for matplotlib.rc_context.
STYLE = matplotlib.RcParams(
    {
        'axes.axisbelow': True,
        'axes.edgecolor': '#9ca3af',
        'axes.labelcolor': '#374151',
        'axes.spines.right': False,
        'axes.spines.top': False,
        'font.size': 10,
        'legend.frameon': False,
        'lines.linewidth': 1.8,
        'xtick.color': '#4b5563',
        'ytick.color': '#4b5563',
    }
)

CELL = 48  # the width in pixels to which `write_grid` enlarges smaller images
DPI = 130  # the resolution of figures, in pixels per inch


class Picture(Figure):
    """A figure that shows itself in a notebook, whether pyplot was imported there or not."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format='png', dpi=DPI)
        return file.getvalue()


def scale_to(width: int, image_width: int) -> int:
    """Returns the whole number, at least 1, by which to enlarge an image to a width of about `width`.

    The result is never wider than that, except where the image itself is. Widths are in pixels.
    """
    return max(1, width // image_width)


def write_grid(path: epath.Path, images: np.ndarray, columns: int) -> None:
    """Writes images [N,H,W,C] as one PNG file, in rows of `columns` images.

    The images are floats in [-1,1], or uint8; C is 1 or 3. Those smaller than CELL pixels are enlarged
    to about that size, each pixel becoming a square.
    """
    if images.dtype != np.uint8:
        images = np.clip(np.round(127.5 * images + 127.5), 0, 255).astype(np.uint8)
    n, h, w, c = images.shape
    rows, scale = -(-n // columns), scale_to(CELL, h)
    grid = np.full((rows, columns, h + 1, w + 1, c), 255, np.uint8)
    grid.reshape(-1, h + 1, w + 1, c)[:n, :h, :w] = images
    grid = grid.transpose(0, 2, 1, 3, 4).reshape(rows * (h + 1), columns * (w + 1), c)
    grid = grid[:-1, :-1].repeat(scale, 0).repeat(scale, 1)
    with writing(path) as file:
        PIL.Image.fromarray(grid[..., 0] if c == 1 else grid).save(file, 'PNG')


def save_figure(path: epath.Path, figure: Figure) -> None:
    """Writes a figure as a PNG file, at DPI pixels per inch."""
    with writing(path) as file:
        figure.savefig(file, format='png', dpi=DPI)


@contextlib.contextmanager
def panel(
    xlabel: str, ylabel: str, size: tuple[float, float] = (6.5, 4.2)
) -> Iterator[tuple[Figure, Axes]]:
    """A context with a new figure of one panel in our style, and its axes; `size` is in inches.

    The figure must be drawn on and saved inside the `with` statement, where the style is in force.
    """
    with panels(1, 1, size) as (figure, ((axes,),)):
        axes.set(xlabel=xlabel, ylabel=ylabel)
        yield figure, axes


@contextlib.contextmanager
def panels(
    rows: int, columns: int, size: tuple[float, float], share: str = 'none'
) -> Iterator[tuple[Figure, np.ndarray]]:
    """As `panel`, with a new figure of several panels and their axes [rows, columns].

    `share` is which axes are common to all panels: 'x', 'y' or 'none'.
    """
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=size, layout='constrained')
        axes = figure.subplots(
            rows, columns, sharex=share == 'x', sharey=share == 'y', squeeze=False
        )
        for each in axes.flat:
            each.grid(axis='y', color='#e5e7eb', linewidth=0.8)
        yield figure, axes


def edges(steps: Sequence[float]) -> np.ndarray:
    """Returns the edges [N + 1] of the cells of ascending steps [N], for a map of colours."""
    at = np.asarray(steps, float)
    return np.concatenate([at[:1] - 0.5, (at[1:] + at[:-1]) / 2, at[-1:] + 0.5])


def plain_log(axes: Axes) -> None:
    """Makes the y axis logarithmic, with ticks at 1, 2, 5, 10, ... written as plain numbers."""
    axes.set_yscale('log')
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f'{y:g}'))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.yaxis.set_minor_locator(ticker.NullLocator())


def mark_stages(axes: Axes, every: int, steps: Sequence[int]) -> None:
    """Shades every other stage of a curriculum in the background, and writes their numbers on top.

    Stage n is from step n * every to (n + 1) * every. The axis spans from the lowest to the highest of
    `steps`.
    """
    first, last = min(steps), max(steps)
    for stage in range(first // every, -(-last // every)):
        left, right = max(stage * every, first), min((stage + 1) * every, last)
        if stage % 2:
            axes.axvspan(left, right, color='#f3f4f6', zorder=0, linewidth=0)
        text = f'stage {stage}' if stage == first // every else f'{stage}'
        axes.text(
            x=(left + right) / 2,
            y=1.01,  # just above the panel
            s=text,
            color='#6b7280',
            fontsize=9,
            transform=axes.get_xaxis_transform(),
            ha='center',
            va='bottom',
        )
