"""What a run is, in a few lines for a terminal or a notebook."""

import html
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from cm_jax import objectives
from cm_jax.errors import listed
from cm_jax.models import with_defaults
from cm_jax.run_folder import ORIGIN, RESUME, TRAJECTORY, read_record, weights_label

if TYPE_CHECKING:
    from cm_jax.run import Run

BEST = 3  # scores that are shown
DIAGNOSTICS = ('condition', 'rank')  # of the covariance behind a score


def facts(run: 'Run') -> list[tuple[str, str]]:
    """Returns (name, text) of each line."""
    shown = [
        ('method', _method(run)),
        ('data', _data(run)),
        ('network', network(run)),
        ('steps', _steps(run)),
        ('averages', _averages(run)),
        *(('scores' if i == 0 else '', text) for i, text in enumerate(_scores(run))),
        ('size', _size(run)),
    ]
    return [(name, text) for name, text in shown if text]


def as_text(title: str, lines: Sequence[tuple[str, str]]) -> str:
    """Returns lines for a terminal."""
    width = max(len(name) for name, _ in lines)
    return '\n'.join([title, *(f'  {name:<{width}}  {text}' for name, text in lines)])


def as_html(title: str, lines: Sequence[tuple[str, str]]) -> str:
    """Returns lines for a notebook."""
    rows = ''.join(
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(text)}</td></tr>'
        for name, text in lines
    )
    return f'<p><b>{html.escape(title)}</b></p><table><tbody>{rows}</tbody></table>'


def measure(folder: epath.Path) -> int:
    """Returns the bytes of all files in a folder, counted one by one."""
    return sum(measure(path) if path.is_dir() else path.stat().length for path in folder.iterdir())


def megabytes(size: int) -> str:
    """Returns a number of bytes as people read it."""
    return f'{size / 1e9:.3g} GB' if size >= 1e9 else f'{size / 1e6:.3g} MB'


def score(row: Mapping[str, Any]) -> str:
    """Returns the main score of a row of scores.jsonl, such as 'fd_lenet_5k 6.34 ± 0.54'."""
    name, value = row['protocol']['score'], row[main_score(row)]
    std = row.get(f'{main_score(row)}_std')
    return f'{name} {"not finite" if value is None else f"{value:.4g}"}' + (
        '' if std is None else f' ± {std:.2g}'
    )


def score_line(row: Mapping[str, Any]) -> str:
    """Returns the main score of a row of scores.jsonl and what it is the score of."""
    protocol = row['protocol']
    weights = f'{weights_label(protocol["ema"])}, step {protocol["step"]:,}'
    return f'{score(row)}, {protocol["sampler"]}, {weights}'


def main_score(row: Mapping[str, Any]) -> str:
    """Returns the name of the main score of a row of scores.jsonl, such as 'fd_lenet'."""
    return row['protocol']['score'].rpartition('_')[0]


def score_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns the columns of a table of scores: whose score it is, and the numbers."""
    who = {name: f'protocol.{name}' for name in ('step', 'ema', 'sampler', 'evaluations')}
    numbers = {key: key for row in rows for key, value in row.items() if isinstance(value, float)}
    return who | {key: key for key in numbers if key not in DIAGNOSTICS}


def _method(run: 'Run') -> str:
    """Returns the first line of the objective's file, and where weights and the teacher are from."""
    name, settings = run.settings.objective['name'], run.settings
    described = sys.modules[objectives.maker(name).__module__].__doc__ or name
    words = [described.strip().splitlines()[0].rstrip('.')]
    if (run.workdir / ORIGIN).exists():
        origin = read_record(run.workdir, ORIGIN, dict)
        words.append(f'weights made by {origin.get("made_by", "import")}')
    for what, other in (('from', settings.init_from), ('teacher', settings.teacher)):
        if other.workdir:
            step = 'last step' if other.step is None else f'step {other.step:,}'
            words.append(f'{what} {other.workdir} ({step}, {weights_label(other.ema)})')
    return '; '.join(words)


def _data(run: 'Run') -> str:
    card = run.card
    name = ', '.join(str(card[key]) for key in ('name', 'split') if key in card)
    count = f'{card["count"]:,} ' if 'count' in card else ''
    shape = ' x '.join(map(str, card['image_shape']))
    classes = f', {card["num_classes"]} classes' if card['num_classes'] else ', no classes'
    return f'{name or "unnamed"}: {count}images {shape}{classes}'


def network(run: 'Run') -> str:
    """Returns the network of a run in words: its name, size, whether it has classes, and its dtype."""
    model = with_defaults(run.settings.model)
    kind = 'class-conditional' if run.parts.generative_model.num_classes else 'unconditional'
    return (
        f'{model["name"]}, {run.parameter_count:,} parameters, {kind}, computes in {model["dtype"]}'
    )


def _steps(run: 'Run') -> str:
    kept, settings = run.steps(), run.settings
    snapshots = f'{len(kept)} snapshots: {listed(kept)}' if kept else 'no snapshot yet'
    if not settings.steps:
        return snapshots
    last = kept[-1] if kept else 0
    done = f'{last:,} of ' if last < settings.steps else ''
    images = f'batch {settings.batch_size}, {settings.images_seen():,} images in all'
    return f'{done}{settings.steps:,} ({images}); {snapshots}'


def _averages(run: 'Run') -> str:
    if not run.steps():
        return ''
    names = ', '.join(run.emas())
    return f'{names} (at step {run.step():,})' if names else 'none'


def _scores(run: 'Run') -> list[str]:
    """Returns lines of the lowest scores, the first BEST of them, with the number of all."""
    rows = [row for row in run.scores() if row.get(main_score(row)) is not None]
    latest = {str(row['protocol']): row for row in rows}
    best = sorted(latest.values(), key=lambda row: (main_score(row), row[main_score(row)]))
    lines = [score_line(row) for row in best[:BEST]]
    if len(best) > BEST:
        lines.append(f'... and {len(best) - BEST} more: scores()')
    return lines or [f'none yet: python -m cm_jax.evaluate --workdir={run.workdir}']


def _size(run: 'Run') -> str:
    """Returns the size of the folder. Cloud storage is not measured: each file would be a request."""
    if '://' in str(run.workdir):
        return ''
    parts = {name: run.workdir / name for name in (TRAJECTORY, RESUME)}
    sizes = {name: megabytes(measure(path)) for name, path in parts.items() if path.exists()}
    of_them = ', '.join(f'{name} {size}' for name, size in sizes.items())
    return f'{megabytes(measure(run.workdir))}' + (f' ({of_them})' if of_them else '')
