"""The report's pictures: curves as inline SVG, grids of samples as PNG. Pure functions.

Drawn on matplotlib's `Figure` itself, so that no window system and no global state is involved.
Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import PIL.Image
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {'teacher': '#555555', 'ect': '#009e73', 'ema': '#0072b2', 'lcsc': '#d55e00'}
MUTED = '#6b7280'
STYLE = {
    'axes.edgecolor': '#9ca3af',
    'axes.labelcolor': '#374151',
    'axes.spines.right': False,
    'axes.spines.top': False,
    'font.size': 10,
    'legend.frameon': False,
    'lines.linewidth': 1.8,
    'svg.fonttype': 'none',  # text stays text, in the page's own typeface
    'xtick.color': '#4b5563',
    'ytick.color': '#4b5563',
}
NO_METADATA = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))


class Panel(NamedTuple):
    """One grid of `comparison`: uint8 images [N,H,W,C] and what stands under it."""

    images: np.ndarray
    title: str
    detail: str
    score: str
    colour: str


def to_svg(figure: Figure, name: str) -> str:
    """A figure as an <svg> element for the middle of an HTML page: no prolog, no namespaces.

    `name` seeds the ids of its parts: the same figure gives the same bytes, and no two share an id.
    """
    file = io.StringIO()
    with matplotlib.rc_context({'svg.hashsalt': name}):
        figure.savefig(file, format='svg', metadata=NO_METADATA, transparent=True)
    svg = file.getvalue()
    head, _, body = svg[svg.index('<svg') :].partition('>')
    box = re.search(r'viewBox="[^"]*"', head).group()
    return f'<svg {box} aria-hidden="true">' + re.sub(r' id="[A-Za-z0-9.]+_\d+"', '', body)


@contextlib.contextmanager
def axes(xlabel: str, ylabel: str) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one panel, in the report's style."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.3), layout='constrained')
        ax = figure.add_subplot()
        ax.grid(axis='y', color='#e5e7eb', linewidth=0.8)
        ax.set_axisbelow(True)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        yield figure, ax


def plain_log(ax: Axes) -> None:
    """A logarithmic y axis with ticks at 1, 2, 5, 10, ... written as plain numbers."""
    ax.set_yscale('log')
    ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f'{y:g}'))
    ax.yaxis.set_minor_formatter(ticker.NullFormatter())
    ax.yaxis.set_minor_locator(ticker.NullLocator())


def mark_stages(ax: Axes, every: int, steps: Sequence[int], named: bool) -> None:
    """Shades every other stage of a curriculum, stage = step // every, and numbers them."""
    first, last = min(steps), max(steps)
    for stage in range(first // every, -(-last // every)):
        left, right = max(stage * every, first), min((stage + 1) * every, last)
        if stage % 2:
            ax.axvspan(left, right, color='#f3f4f6', zorder=0, linewidth=0)
        if named:
            text = f'stage {stage}' if stage == first // every else f'{stage}'
            place = {'transform': ax.get_xaxis_transform(), 'ha': 'center', 'va': 'bottom'}
            ax.text((left + right) / 2, 1.01, text, color=MUTED, fontsize=9, **place)


def training(rows: Sequence[Mapping[str, Any]], model: str, every: int | None) -> str:
    """The loss over training, and the distance where it was logged; `every` marks the stages."""
    with axes('training step', 'loss (log scale)') as (figure, ax):
        steps = [row['step'] for row in rows]
        if every:
            mark_stages(ax, every, [0, *steps], named=True)
        for name, line, width in (('loss', '-', 1.8), ('distance', '--', 1.4)):
            values = [row.get(name) or np.nan for row in rows]
            if np.isfinite(values).any():
                ax.plot(steps, values, line, color=COLOURS[model], linewidth=width, label=name)
        plain_log(ax)
        if len(ax.lines) > 1:
            ax.set_ylabel('log scale')
            ax.legend()
        return to_svg(figure, model)


def search_progress(candidates: Sequence[Mapping[str, Any]], baseline: float, score: str) -> str:
    """Each candidate's score by generation, the best so far, and the best EMA profile's."""
    generations = np.array([row['generation'] for row in candidates])
    scores = np.array([row['score'] for row in candidates], float)  # None becomes NaN
    numbers = np.unique(generations)
    best = [np.nanmin(scores[generations <= number]) for number in numbers]
    with axes('generation of the search', f'{score} on search noise (log scale)') as (figure, ax):
        dots = {'s': 14, 'color': '#9ca3af', 'linewidth': 0, 'label': 'candidate'}
        ax.scatter(generations, scores, **dots)
        ax.axhline(baseline, color=COLOURS['ema'], linestyle='--', label='best EMA profile')
        ax.step(numbers, best, color=COLOURS['lcsc'], where='post', label='best so far')
        plain_log(ax)
        ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        ax.legend()
        return to_svg(figure, 'search')


def coefficients(
    steps: Sequence[int], lcsc: np.ndarray, ema: Sequence[float], name: str, every: int | None
) -> str:
    """The combination found as stems over training steps, with an EMA profile for comparison: [K], or
    [G, K] where groups of weights have coefficients of their own."""
    with axes('training step of the checkpoint', 'coefficient') as (figure, ax):
        if every:
            mark_stages(ax, every, steps, named=True)
        ax.axhline(0, color='#9ca3af', linewidth=0.8)
        for i, row in enumerate(np.atleast_2d(lcsc)):
            ax.vlines(steps, 0, row, color=COLOURS['lcsc'], linewidth=1.4)
            label = None if i else 'LCSC'
            ax.plot(steps, row, 'o', color=COLOURS['lcsc'], markersize=4, label=label)
        ax.plot(steps, ema, color=COLOURS['ema'], linewidth=1.6, label=name)
        ax.legend()
        return to_svg(figure, 'coefficients')


def tile(images: np.ndarray, columns: int, scale: int, gap: int) -> np.ndarray:
    """uint8 images [N,H,W,C] as one RGB picture: each pixel `scale` wide, `gap` white between."""
    n, h, w, c = images.shape
    rows = -(-n // columns)
    cells = np.full((rows * columns, h * scale + gap, w * scale + gap, 3), 255, np.uint8)
    pixels = images.repeat(scale, 1).repeat(scale, 2)
    cells[:n, : h * scale, : w * scale] = pixels if c == 3 else pixels[..., :1]
    grid = cells.reshape(rows, columns, *cells.shape[1:]).swapaxes(1, 2)
    return grid.reshape(rows * cells.shape[1], columns * cells.shape[2], 3)[:-gap, :-gap]


def to_png(picture: np.ndarray) -> bytes:
    """A uint8 picture as the bytes of a PNG file."""
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, 'PNG', optimize=True)
    return file.getvalue()


def comparison(panels: Sequence[Panel], columns: int) -> bytes:
    """The panels side by side with their labels under them, as a PNG about 1,200 pixels wide."""
    dpi, margin, space, text = 100, 24, 28, 92
    scale = max(1, 40 // panels[0].images.shape[1])
    grids = [tile(panel.images, columns, scale, gap=2) for panel in panels]
    height, width = grids[0].shape[:2]
    total = 2 * margin + len(grids) * width + (len(grids) - 1) * space, 2 * margin + height + text
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(total[0] / dpi, total[1] / dpi), dpi=dpi, facecolor='white')
        for i, (panel, grid) in enumerate(zip(panels, grids)):
            left, bottom = margin + i * (width + space), margin + text
            figure.figimage(grid, left, bottom, origin='upper')
            lines = (
                (panel.title, 14, 'bold', '#111827', 26),
                (panel.detail, 11.5, 'normal', '#4b5563', 50),
                (panel.score, 12.5, 'bold', panel.colour, 76),
            )
            for line, size, weight, colour, below in lines:
                place = (left + width / 2) / total[0], (bottom - below) / total[1]
                font = {'fontsize': size, 'fontweight': weight, 'color': colour}
                figure.text(*place, line, ha='center', va='baseline', **font)
        file = io.BytesIO()
        figure.savefig(file, format='png', dpi=dpi, metadata={'Software': None})
        return file.getvalue()
