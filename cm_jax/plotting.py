"""Pictures: grids of images, and matplotlib figures in one style.

Figures are drawn on matplotlib's `Figure` itself, so that no window system and no global state is
involved. Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

import contextlib
from collections.abc import Iterator, Sequence

import matplotlib
import numpy as np
import PIL.Image
from etils import epath
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {
    'teacher': '#555555',
    'ect': '#009e73',
    'ema': '#0072b2',
    'lcsc': '#d55e00',
    'random': '#009e73',
    'muted': '#9ca3af',
}
STYLE = {
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

CELL = 48  # pixels: how wide an image of a grid is drawn at least
DPI = 130


def scale_to(width: int, image_width: int) -> int:
    """Returns how many pixels each pixel of an image becomes for the image to be about `width` wide."""
    return max(1, width // image_width)


def write_grid(path: epath.Path, images: np.ndarray, columns: int) -> None:
    """Writes a PNG of images [N,H,W,C], float in [-1,1] or uint8, `columns` of them a row.

    Small images are enlarged pixel by pixel, to about CELL pixels.
    """
    if images.dtype != np.uint8:
        images = np.clip(np.round(127.5 * images + 127.5), 0, 255).astype(np.uint8)
    n, h, w, c = images.shape
    rows, scale = -(-n // columns), scale_to(CELL, h)
    grid = np.full((rows, columns, h + 1, w + 1, c), 255, np.uint8)
    grid.reshape(-1, h + 1, w + 1, c)[:n, :h, :w] = images
    grid = grid.transpose(0, 2, 1, 3, 4).reshape(rows * (h + 1), columns * (w + 1), c)
    grid = grid[:-1, :-1].repeat(scale, 0).repeat(scale, 1)
    with path.open('wb') as file:
        PIL.Image.fromarray(grid[..., 0] if c == 1 else grid).save(file, 'PNG')


def save_figure(path: epath.Path, figure: Figure) -> None:
    """Writes a figure as a PNG."""
    with path.open('wb') as file:
        figure.savefig(file, format='png', dpi=DPI)


@contextlib.contextmanager
def panel(
    xlabel: str, ylabel: str, size: tuple[float, float] = (6.5, 4.2)
) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one panel in our style, to be drawn on inside a `with` statement; size in inches."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout='constrained')
        axes = figure.add_subplot()
        axes.grid(axis='y', color='#e5e7eb', linewidth=0.8)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        yield figure, axes


def plain_log(axes: Axes) -> None:
    """Makes the y axis logarithmic, with ticks at 1, 2, 5, 10, ... written as plain numbers."""
    axes.set_yscale('log')
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f'{y:g}'))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.yaxis.set_minor_locator(ticker.NullLocator())


def mark_stages(axes: Axes, every: int, steps: Sequence[int]) -> None:
    """Shades every other stage of a curriculum, stage = step // every, and numbers them."""
    first, last = min(steps), max(steps)
    for stage in range(first // every, -(-last // every)):
        left, right = max(stage * every, first), min((stage + 1) * every, last)
        if stage % 2:
            axes.axvspan(left, right, color='#f3f4f6', zorder=0, linewidth=0)
        text = f'stage {stage}' if stage == first // every else f'{stage}'
        place = {'transform': axes.get_xaxis_transform(), 'ha': 'center', 'va': 'bottom'}
        axes.text((left + right) / 2, 1.01, text, color='#6b7280', fontsize=9, **place)
