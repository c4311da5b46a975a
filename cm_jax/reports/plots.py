"""The report's pictures: curves as inline SVG, grids of samples as PNG. Pure functions."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import PIL.Image
from matplotlib.figure import Figure

from cm_jax.plotting import COLOURS, STYLE, mark_stages, panel, plain_log, scale_to

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
    with matplotlib.rc_context({'svg.hashsalt': name, 'svg.fonttype': 'none'}):
        figure.savefig(file, format='svg', metadata=NO_METADATA, transparent=True)
    svg = file.getvalue()
    head, _, body = svg[svg.index('<svg') :].partition('>')
    box = re.search(r'viewBox="[^"]*"', head).group()
    return f'<svg {box} aria-hidden="true">' + re.sub(r' id="[A-Za-z0-9.]+_\d+"', '', body)


def training(rows: Sequence[Mapping[str, Any]], model: str, stage: int | None) -> Figure:
    """Draws the loss over training, and the distance where it was logged.

    `stage` is the length in steps of a stage of the run's curriculum, whose stages are then marked.
    """
    with panel('training step', 'loss (log scale)') as (figure, axes):
        steps = [row['step'] for row in rows]
        if stage:
            mark_stages(axes, stage, [0, *steps])
        for name, line, width in (('loss', '-', 1.8), ('distance', '--', 1.4)):
            values = [row.get(name) or np.nan for row in rows]
            if np.isfinite(values).any():
                axes.plot(steps, values, line, color=COLOURS[model], linewidth=width, label=name)
        plain_log(axes)
        if len(axes.lines) > 1:
            axes.set_ylabel('log scale')
            axes.legend()
        return figure


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
    scale = scale_to(40, panels[0].images.shape[1])
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
