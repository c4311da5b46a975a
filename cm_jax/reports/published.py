"""Our configs beside the papers' published runs: the page docs/recipes.md.

A file of configs/published/ holds the runs of one code base or paper:

    title, paper, code   what the runs are, and where their settings stand
    beyond               texts: what of the paper no setting of ours expresses
    settings             what all the runs share
    rows                 one run each: its `name`, its `config` ('' if there is none here), and, over
                         those that are shared, its `settings` and `beyond`

A setting is `key = [the paper's value, source]` or `[the paper's value, source, why]`. The key is one of
our config, such as `optimizer.b1`, also where the config leaves it at its default, or `images`, the
images that the whole run learns from. The value is in our units; 'none' is None, and '?' a value that
could not be verified. The source is a file and line of the code, or a place in the paper. `why` explains
in a phrase a difference, or a '?', and stands nowhere else. Our own values are always read.
"""

import dataclasses
import inspect
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from cm_jax import models, objectives
from cm_jax.config import flatten
from cm_jax.core import process
from cm_jax.data import source_opener
from cm_jax.errors import UserError, check_name
from cm_jax.settings import parse_run, parse_search
from cm_jax.training import optim
from cm_jax.weights import lpips

UNKNOWN = '?'
SAME, DIFFERENT = '', '≠'
KEYS = {'title', 'paper', 'code', 'beyond', 'settings', 'rows'}
ROW_KEYS = {'name', 'config', 'beyond', 'settings'}
HEAD = '| | setting | paper | ours | why | source |\n|---|---|---|---|---|---|\n'


class Line(NamedTuple):
    """One setting of a row as the page has it. `mark` is SAME, DIFFERENT or UNKNOWN."""

    mark: str
    key: str
    paper: str
    ours: str
    why: str
    source: str


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


def defaults(factory: Callable) -> dict[str, Any]:
    """Returns the parameters of `factory` that have a default, with it."""
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all settings of a config by dotted keys, with the defaults of those it leaves out."""
    if 'basis' in config:
        return flatten(dataclasses.asdict(parse_search(config)))
    settings = parse_run(config)
    sections = dataclasses.asdict(settings)
    factories = {
        'dataset': source_opener(settings.dataset['source']),
        'process': process.build,
        'objective': objectives.maker(settings.objective['name']),
        'optimizer': optim.make,
        'lpips': lpips.load,
    }
    for name, factory in factories.items():
        sections[name] = defaults(factory) | sections[name]
    for name in ('model', 'prior'):
        sections[name] = models.with_defaults(sections[name])
    return flatten(sections) | {'images': settings.images_seen()}


def plain(value: Any) -> Any:
    """Returns tuples as lists, 'none' as None, and any other value as it is."""
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if value == 'none' else value


def text(value: Any) -> str:
    """Returns a value as a cell of the page has it."""
    if isinstance(value, list):
        return '; '.join(map(text, value)) or 'none'
    if isinstance(value, bool) or value is None:
        return {True: 'yes', False: 'no', None: 'none'}[value]
    cell = f'{value:,}' if isinstance(value, int) else str(value)
    return cell.replace('|', '\\|') or "''"


def line_of(key: str, entry: Sequence[Any], ours: Mapping[str, Any] | None) -> Line:
    """Returns the line of a setting; `ours` is None if the row has no config here.

    Raises UserError if the entry has not the form of a setting, if the config has no such key, if a
    difference or a '?' lacks its explanation, or if there is one without a difference.
    """
    if not isinstance(entry, list) or len(entry) not in (2, 3) or not entry[1]:
        raise UserError(f"{key} must be [the paper's value, source] or [.., .., why], got {entry!r}")
    paper, source, why = plain(entry[0]), entry[1], (*entry, '')[2]
    if ours is None:
        mark, own = UNKNOWN if paper == UNKNOWN else SAME, '–'
    else:
        check_name('key of the config', key, ours)
        own_value = plain(ours[key])
        mark = SAME if paper == own_value else DIFFERENT
        mark, own = UNKNOWN if paper == UNKNOWN else mark, text(own_value)
    if mark != SAME and not why:
        raise UserError(f'{key}: {text(paper)} in the paper, {own} here, and nothing says why')
    if mark == SAME and why and ours is not None:
        raise UserError(f'{key}: both are {own}, and there is an explanation: {why}')
    return Line(mark, key, text(paper), own, why if mark else '', source)


def read(path: epath.Path, load: Callable[[str], Mapping[str, Any]]) -> Family:
    """Returns the runs of a file of configs/published/; `load` gives the config of a name.

    Raises UserError, which names the file and the row, if anything in them is wrong.
    """
    try:
        content = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise UserError(f'{path}: {error}') from None
    for key in content:
        check_name(f'key of {path}', key, KEYS)
    rows = []
    for row in content['rows']:
        try:
            for key in row:
                check_name('key of a row', key, ROW_KEYS)
            settings = _flat(content.get('settings', {})) | _flat(row.get('settings', {}))
            ours = resolved(load(row['config'])) if row['config'] else None
            lines = [line_of(key, entry, ours) for key, entry in settings.items()]
        except UserError as error:
            raise UserError(f'{path}: {row["name"]}: {error}') from None
        rows.append(Row(row['name'], row['config'], lines, row.get('beyond', [])))
    origin = f'{content["paper"]}; {content["code"]}'
    return Family(content['title'], origin, content.get('beyond', []), rows)


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    return flatten(settings)


def page(families: Sequence[Family], intro: str) -> str:
    """Returns the page: `intro`, a table of all rows, and the settings of each."""
    parts = [intro, _overview(families)]
    for family in families:
        parts += [f'\n## {family.title}\n\n{family.origin}.\n', _beyond(family.beyond)]
        shared = _shared(family.rows)
        if shared:
            parts.append(_table('All of them', shared))
        for row in family.rows:
            config = f'`{row.config}`' if row.config else 'no config here'
            own = [line for line in row.lines if line not in shared]
            parts += [_table(f'{row.name}: {config}', own), _beyond(row.beyond)]
    return ''.join(parts)


def _shared(rows: Sequence[Row]) -> list[Line]:
    """Returns the lines that all rows have, or [] if there is only one row."""
    first, *others = rows
    return [line for line in first.lines if others and all(line in row.lines for row in others)]


def _overview(families: Sequence[Family]) -> str:
    lines = ['| published run | config | settings | different | not verified |', '|---|---|---|---|---|']
    for family in families:
        for row in family.rows:
            marked = {
                mark: ', '.join(f'`{line.key}`' for line in row.lines if line.mark == mark)
                for mark in (DIFFERENT, UNKNOWN)
            }
            config = f'`{row.config}`' if row.config else 'none'
            cells = [f'{family.title}: {row.name}', config, str(len(row.lines)), *marked.values()]
            lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def _table(title: str, lines: Sequence[Line]) -> str:
    rows = [
        f'| {line.mark} | `{line.key}` | {line.paper} | {line.ours} | {line.why} | {line.source} |\n'
        for line in lines
    ]
    return f'\n### {title}\n\n' + (HEAD + ''.join(rows) if rows else 'As all of them.\n')


def _beyond(texts: Sequence[str]) -> str:
    return '\nIn no setting:\n\n' + ''.join(f'- {line}\n' for line in texts) if texts else ''
