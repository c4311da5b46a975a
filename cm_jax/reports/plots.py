"""The pictures of a report: curves as SVG text, grids of samples as PNG bytes. Nothing is written."""

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import PIL.Image
from matplotlib.figure import Figure

from cm_jax.lcsc.plots import WIDE
from cm_jax.plotting import COLOURS, STYLE, mark_stages, panel, plain_log
from cm_jax.reports.style import INKS

NO_METADATA = dict.fromkeys(
    ('Creator', 'Date', 'Format', 'Type')
)  # the same figure, the same bytes
LINES = ('ema', 'lcsc', 'ect', 'teacher')  # the colours of lines that no model's is meant for
SHRUNK = 0.8  # the size of a figure on a page, so that its texts are readable on a phone
CELL = 40  # pixels; the least width of an image in `comparison`


class Panel(NamedTuple):
    """One grid of the picture that `comparison` draws, with the three lines of text below it."""

    images: np.ndarray  # uint8 [N,H,W,C]
    title: str
    detail: str
    score: str
    colour: str  # of the score


def to_svg(figure: Figure, name: str, scale: float = SHRUNK) -> str:
    """Returns a figure as an <svg> element for an HTML page, without XML prolog and namespaces.

    `name` decides the ids of the parts of the figure. The same figure with the same name gives the same
    text, and figures with different names have no id in common, so that one page can hold them all.
    It is drawn at `scale` times its size. Its colours are those of the page's style sheet where that
    has them (style.INKS).
    """
    file = io.StringIO()
    figure.set_size_inches(*(scale * figure.get_size_inches()))
    with matplotlib.rc_context({'svg.hashsalt': name, 'svg.fonttype': 'none'}):
        figure.savefig(file, format='svg', metadata=NO_METADATA, transparent=True)
    svg = file.getvalue()
    head, _, body = svg[svg.index('<svg') :].partition('>')
    (view_box,) = re.findall(r'viewBox="[^"]*"', head)
    body = re.sub(r' id="[A-Za-z0-9.]+_\d+"', '', body)
    for colour, variable in INKS.items():
        body = body.replace(colour, f'var({variable})')
    return f'<svg {view_box} aria-hidden="true">{body}'


def curves(
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    ylabel: str,
    colour: str | None = None,
    stage: int | None = None,
) -> Figure:
    """Returns a figure of values over training steps, logarithmic where they are positive and differ by
    more than a factor of WIDE.

    `rows` are those of metrics.jsonl, and `names` the keys of the values, every other of them dashed. A
    row without a value leaves it out. `colour` is a key of plotting.COLOURS; with None the lines
    have several. `stage` is the length in steps of a stage of the run's curriculum; with None no stages
    are marked.
    """
    drawn = {}
    for name in names:
        found = [(row['step'], row[name]) for row in rows if row.get(name) is not None]
        points = np.array(found, float).reshape(-1, 2)
        if np.isfinite(points[:, 1]).any():
            drawn[name] = points.T
    finite = [y[np.isfinite(y)] for _, y in drawn.values()]
    low, high = (find(np.concatenate(finite or [np.ones(1)])) for find in (np.min, np.max))
    logarithmic = low > 0 and high > WIDE * low
    scale = ' (log scale)' if logarithmic else ''
    with panel('training step', ylabel + scale) as (figure, axes):
        if stage:
            mark_stages(axes, stage, [0, *(row['step'] for row in rows)])
        styles = zip(itertools.cycle(('-', '--')), itertools.cycle(LINES))
        for (name, (x, y)), (line, line_colour) in zip(drawn.items(), styles):
            marker = 'o' if len(x) < 3 else None
            own = COLOURS[colour or line_colour]
            axes.plot(x, y, line, marker=marker, label=name, color=own)
        if logarithmic:
            plain_log(axes)
        if len(drawn) > 1:
            axes.legend()
        return figure


def tile(images: np.ndarray, columns: int, scale: int, gap: int) -> np.ndarray:
    """Returns uint8 images [N,H,W,C] as one picture [height, width, 4] with `columns` in a row.

    The last channel is the opacity. Each pixel of an image becomes a square of `scale` pixels, and
    `gap` transparent pixels stand between two images.
    """
    n, h, w, c = images.shape
    rows = -(-n // columns)
    cells = np.zeros((rows * columns, h * scale + gap, w * scale + gap, 4), np.uint8)
    images_of_cells = cells[:n, : h * scale, : w * scale]
    pixels = images.repeat(scale, 1).repeat(scale, 2)
    images_of_cells[..., :3] = pixels if c == 3 else pixels[..., :1]
    images_of_cells[..., 3] = 255
    grid = cells.reshape(rows, columns, *cells.shape[1:]).swapaxes(1, 2)
    return grid.reshape(rows * cells.shape[1], columns * cells.shape[2], 4)[:-gap, :-gap]


def to_png(picture: np.ndarray) -> bytes:
    """Returns a uint8 picture [height, width, 3 or 4] as the bytes of a PNG file."""
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, 'PNG', optimize=True)
    return file.getvalue()


def comparison(panels: Sequence[Panel], columns: int) -> bytes:
    """Returns the panels side by side, their texts below them, as the bytes of a PNG file.

    All panels hold as many images of the same shape, in rows of `columns`. An image is at least CELL
    pixels wide, so that the texts of five columns have room.
    """
    dpi, margin, space, text_height = 100, 24, 28, 92  # the last three in pixels
    scale = -(-CELL // panels[0].images.shape[2])
    grids = [tile(panel.images, columns, scale, gap=2) for panel in panels]
    height, width = grids[0].shape[:2]
    total_width = 2 * margin + len(grids) * width + (len(grids) - 1) * space
    total_height = 2 * margin + height + text_height
    with matplotlib.rc_context(STYLE):
        size = total_width / dpi, total_height / dpi
        figure = Figure(figsize=size, dpi=dpi, facecolor='white')
        for i, (panel, grid) in enumerate(zip(panels, grids)):
            left, bottom = margin + i * (width + space), margin + text_height
            figure.figimage(grid, left, bottom, origin='upper')
            lines = (
                (panel.title, 14, 'bold', '#111827', 26),
                (panel.detail, 11.5, 'normal', '#4b5563', 50),
                (panel.score, 12.5, 'bold', panel.colour, 76),
            )
            for line, font_size, weight, colour, pixels_below in lines:
                figure.text(
                    x=(left + width / 2) / total_width,
                    y=(bottom - pixels_below) / total_height,
                    s=line,
                    ha='center',
                    va='baseline',
                    fontsize=font_size,
                    fontweight=weight,
                    color=colour,
                )
        file = io.BytesIO()
        figure.savefig(file, format='png', dpi=dpi, metadata={'Software': None})
        return file.getvalue()
