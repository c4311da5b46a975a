"""The settings of the papers' published runs beside those of our configs: the page docs/recipes.md.

A file of configs/published/ has the runs of one code base or paper on one data set:

    title, paper, code   what they are, the paper, and the code that the sources are lines of
    beyond               texts: how paper and code differ from ours in what no setting expresses
    settings             the settings that all of them share
    rows                 the runs: each has a `name`, its `config` ('' if there is none here), and
                         `settings` and `beyond` of its own, which come after the shared ones

A setting is `key = [value, source]` or `key = [value, source, why]`. The key is one of the config, such
as `optimizer.b1`, whether the config sets it or leaves it at its default, or `images`, the images that
the whole run learns from. The value is the paper's in our units, 'none' is None, and '?' is a value
that could not be verified. The source is a file with its line, or a place in the paper. `why` is a
phrase: why ours differs, or why there is a '?'. Our values are read from the config.
"""

import dataclasses
import importlib
import inspect
import itertools
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from cm_jax import models, objectives
from cm_jax.config import flatten
from cm_jax.core import process
from cm_jax.errors import UserError, check_name
from cm_jax.settings import parse_run, parse_search
from cm_jax.training import optim
from cm_jax.weights import lpips

SAME, DIFFERENT, UNKNOWN = '', '≠', '?'
EVALUATION = ('samplers', 'samples', 'extractor', 'reference', 'bytes')
# What a row with a config has beside what the config itself sets in OWN: of a run, and of a search.
OF_RUN = (
    *('images', 'steps', 'batch_size', 'class_conditional', 'ema_rates', 'sampling.ema'),
    *('dataset.flip', 'process.name', 'init_from.workdir', 'model.dropout'),
    *('optimizer.warmup_steps', 'optimizer.decay', *(f'evaluation.{key}' for key in EVALUATION)),
)
OF_SEARCH = (
    *('search.method', 'basis.start', 'basis.every', 'budget.generations', 'budget.samples'),
    *('budget.metric', 'budget.sampler', *(f'evaluation.{key}' for key in EVALUATION)),
)
OWN = ('model.', 'prior.', 'objective.', 'optimizer.')
DERIVED = ('objective.total_steps',)  # of `steps`
FAMILY_KEYS = ('title', 'paper', 'code', 'beyond', 'settings', 'rows')
ROW_KEYS = ('name', 'config', 'beyond', 'settings')
INTRO = """# Recipes

The settings of the papers' published runs, and those of the configs that stand for them here: ≠ marks
where ours would drift from the paper, with the reason, and ? what could not be verified. The paper's
values are in our units, from the source that is named; ours are read from the configs. These are
settings, not results: what we have measured is in [results.md](results.md). Samples by class have each
class equally often here; in the papers' code classes are drawn, as with `evaluate --labels=uniform`.
`python -m cm_jax.recipes` makes this page from `configs/published/`.
"""


class Line(NamedTuple):
    """One setting of a row, as the page has it. `mark` is SAME, DIFFERENT or UNKNOWN."""

    mark: str
    key: str
    paper: str
    ours: str
    why: str
    source: str

    @property
    def published(self) -> tuple[str, str, str]:
        """What the line says of the paper, without what it says of us."""
        return self.key, self.paper, self.source


class Row(NamedTuple):
    """One published run. `config` is 'FILE.py' or 'FILE.py:VARIANT', or '' if there is none here."""

    name: str
    config: str
    lines: list[Line]
    beyond: list[str]


class Family(NamedTuple):
    """The runs of one file of configs/published/."""

    title: str
    origin: str
    beyond: list[str]
    rows: list[Row]


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all settings of a config by dotted keys, with the defaults of those it leaves out.

    That of a training run also has 'images', the images that the whole run learns from.
    """
    if 'basis' in config:
        return flatten(dataclasses.asdict(parse_search(config)))
    settings = parse_run(config)
    source = importlib.import_module(f'cm_jax.data.sources.{settings.dataset["source"]}')
    factories = {
        'dataset': source.open_source,
        'process': process.build,
        'objective': objectives.maker(settings.objective['name']),
        'optimizer': optim.make,
        'lpips': lpips.load,
    }
    sections = dataclasses.asdict(settings)
    for name, factory in factories.items():
        parameters = inspect.signature(factory).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        sections[name] = defaults | sections[name]
    for name in ('model', 'prior'):
        sections[name] = models.with_defaults(sections[name])
    return flatten(sections) | {'images': settings.images_seen()}


def missing(config: Mapping[str, Any], row: Row) -> list[str]:
    """Returns the keys of a config that its row must have, and has not.

    They are OF_RUN or OF_SEARCH, and all that the config itself sets in the sections OWN: how the
    network, the method and the optimiser are set up, precision included.
    """
    own = [key for key in flatten(config) if key.startswith(OWN) and key not in DERIVED]
    needed = OF_SEARCH if 'basis' in config else (*OF_RUN, *own)
    present = {line.key for line in row.lines}
    return [key for key in dict.fromkeys(needed) if key not in present]


def read(path: epath.Path, load: Callable[[str], Mapping[str, Any]]) -> Family:
    """Returns the runs of a file of configs/published/; `load` gives the config of a name.

    Raises UserError, which names the file and the row, if anything in them is wrong: see `line_of`.
    """
    try:
        content = tomllib.loads(path.read_text())
        _check_keys('key', content, FAMILY_KEYS, ('title', 'paper', 'code', 'rows'))
    except (tomllib.TOMLDecodeError, UserError) as error:
        raise UserError(f'{path}: {error}') from None
    rows = []
    for row in content['rows']:
        try:
            _check_keys('key of a row', row, ROW_KEYS, ('name', 'config'))
            settings = flatten(content.get('settings', {})) | flatten(row.get('settings', {}))
            ours = resolved(load(row['config'])) if row['config'] else None
            lines = [line_of(key, entry, ours) for key, entry in settings.items()]
        except UserError as error:
            raise UserError(f'{path}: {row.get("name", "a row")}: {error}') from None
        rows.append(Row(row['name'], row['config'], lines, row.get('beyond', [])))
    origin = f'{content["paper"]}; {content["code"]}'
    return Family(content['title'], origin, content.get('beyond', []), rows)


def line_of(key: str, entry: Any, ours: Mapping[str, Any] | None) -> Line:
    """Returns the line of a setting; `ours` is None if the row has no config here.

    Raises UserError if the entry has not the form of a setting, if the config has no such key, if a
    difference or a '?' has no explanation, or if there is an explanation without one of these.
    """
    if not (isinstance(entry, list) and len(entry) in (2, 3) and all(entry[1:])):
        raise UserError(f'{key} must be [value, source] or [value, source, why], got {entry!r}')
    value, source, why = (*entry, '')[:3]
    paper, own, mark = _text(_plain(value)), '–', SAME
    if ours is not None:
        check_name('key of the config', key, ours)
        own = _text(_plain(ours[key]))
        mark = SAME if _plain(value) == _plain(ours[key]) else DIFFERENT
    if value == UNKNOWN:
        mark = UNKNOWN
    if mark != SAME and not why:
        raise UserError(f'{key}: {paper} in the paper, {own} here, and nothing says why')
    if mark == SAME and why and ours is not None:
        raise UserError(f'{key}: {own} in the paper and here, and yet there is a reason: {why}')
    return Line(mark, key, paper, own, why, source)


def page(families: Sequence[Family]) -> str:
    """Returns the page: a table of all rows, and the settings of each."""
    parts = [INTRO, '\n', *_overview(families)]
    for family in families:
        shared = _shared(family.rows)
        known = {line.published for line in shared}
        parts += [f'\n## {family.title}\n\n{family.origin}.\n', *_beyond(family.beyond)]
        parts += _table('All of them', shared) if shared else []
        for row in family.rows:
            config = f'`{row.config}`' if row.config else 'no config here'
            own = [line for line in row.lines if line.published not in known]
            parts += [*_table(f'{row.name}: {config}', own), *_beyond(row.beyond)]
    return ''.join(parts)


def _check_keys(
    kind: str, content: Mapping[str, Any], legal: Sequence[str], needed: Sequence[str]
) -> None:
    for key in content:
        check_name(kind, key, legal)
    for key in needed:
        if key not in content:
            raise UserError(f'no {kind} {key!r}')


def _plain(value: Any) -> Any:
    """Returns tuples as lists, 'none' as None, and any other value as it is."""
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if value == 'none' else value


def _text(value: Any) -> str:
    """Returns a value as a cell of the page has it."""
    if isinstance(value, list):
        runs = [(text, len([*group])) for text, group in itertools.groupby(map(_text, value))]
        return '; '.join(f'{n} x {t}' if n > 3 else '; '.join(n * [t]) for t, n in runs) or 'none'
    if isinstance(value, bool) or value is None:
        return {True: 'yes', False: 'no', None: 'none'}[value]
    return (f'{value:,}' if isinstance(value, int) else str(value)) or "''"


def _shared(rows: Sequence[Row]) -> list[Line]:
    """Returns the lines that all rows have; [] if there is one row.

    A row without a config need only have the same in the paper.
    """
    configured = [row for row in rows if row.config] or rows
    return [
        line
        for line in configured[0].lines
        if len(rows) > 1
        and all(line in row.lines for row in configured)
        and all(line.published in [each.published for each in row.lines] for row in rows)
    ]


def _overview(families: Sequence[Family]) -> Iterator[str]:
    yield '| published run | config | settings | different | not verified |\n|---|---|---|---|---|\n'
    for family in families:
        for row in family.rows:
            config = f'`{row.config}`' if row.config else 'none'
            different, unknown = (
                ', '.join(f'`{line.key}`' for line in row.lines if line.mark == mark)
                for mark in (DIFFERENT, UNKNOWN)
            )
            name = f'{family.title}: {row.name}'
            yield f'| {name} | {config} | {len(row.lines)} | {different} | {unknown} |\n'


def _table(title: str, lines: Sequence[Line]) -> Iterator[str]:
    yield f'\n### {title}\n\n'
    if not lines:
        yield 'As all of them.\n'
        return
    yield '| | setting | paper | ours | why | source |\n|---|---|---|---|---|---|\n'
    for mark, key, paper, ours, why, source in lines:
        yield f'| {mark} | `{key}` | {paper} | {ours} | {why} | {source} |\n'


def _beyond(texts: Sequence[str]) -> Iterator[str]:
    if texts:
        yield '\nWhat no setting expresses:\n\n'
    yield from (f'- {text}\n' for text in texts)
