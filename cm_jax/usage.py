"""What `--help` of a command shows: its docstring, and its own flags in groups.

The flags that absl adds to every program are left out; `--helpfull` has them.
"""

import re
import shutil
import sys
import textwrap
from typing import Any

from absl import flags

from cm_jax.bounds import LARGEST

ASKED = ('--help', '-help', '-h', '--helpshort', '-helpshort', '-?')
CONFIG = 'config'
CHANGE = (
    '--config.KEY=VALUE',
    'one setting of that config; repeatable. configs/README.md lists the configs, cm_jax/settings/ '
    'explains their keys, and a wrong key is refused with the right ones',
)
# The names of the flags of all commands, in the order in which a group shows them.
GROUPS = {
    'The run': (
        *(
            'workdir',
            CONFIG,
            'fresh',
            'distributed',
            'teacher',
            'ect',
            'lcsc',
            'order',
            'unsupported',
        ),
    ),
    'The weights': ('step', 'ema', 'network', 'heads', 'denoiser', 'augment'),
    'The data': ('dataset', 'data', 'from', 'data_dir', 'split', 'size', 'crop'),
    'The task': ('task', 'mask', 'factor', 'results'),
    'The images': ('sampler', 'samples', 'count', 'seed', 'seeds', 'labels', 'bytes', 'columns'),
    'The noise levels': ('levels', 'budget'),
    'The score': (
        *('extractor', 'weights', 'download', 'second', 'metrics', 'reference', 'straightness'),
        'batch_size',
    ),
    'What is written': ('to', 'npz', 'save_images', 'features'),
}
OTHERS = 'Other flags'
# What absl adds to the meaning of a flag: its legal values, which stand behind its name here.
ADDED = re.compile(r'^<[^>]*>: |; repeat this option to specify a list of values$')
UNBOUNDED = re.compile(rf'in \[(\d+), {LARGEST}\]')
COLUMN = 26  # where the meaning of a flag begins
WIDTH = 100  # of a line, at most


def is_asked(argv: list[str]) -> bool:
    """Returns whether the arguments of a command ask for its help."""
    return any(argument in ASKED for argument in argv[1:])


def text() -> str:
    """Returns the help of the command that this process runs."""
    doc = (sys.modules['__main__'].__doc__ or '').strip()
    own = {flag.name: flag for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])}
    grouped = {name for names in GROUPS.values() for name in names}
    groups = GROUPS | {OTHERS: tuple(sorted(own.keys() - grouped))}
    parts = [doc]
    for title, names in groups.items():
        entries = [_entry(own[name]) for name in names if name in own]
        if title == 'The run' and CONFIG in own:
            entries.insert(1 + ('workdir' in own), CHANGE)
        if entries:
            parts.append('\n'.join([title, *(_lines(*entry) for entry in entries)]))
    return '\n\n'.join(parts)


def _lines(flag: str, meaning: str) -> str:
    """Returns a flag with its meaning beside it, or below it if the flag is long."""
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    indent = ' ' * COLUMN
    wrapped = textwrap.wrap(
        meaning, max(width, COLUMN + 20), initial_indent=indent, subsequent_indent=indent
    )
    first = f'  {flag}'
    if len(first) + 2 > COLUMN:
        return '\n'.join([first, *wrapped])
    return '\n'.join([first.ljust(COLUMN) + wrapped[0].lstrip(), *wrapped[1:]])


def _entry(flag: Any) -> tuple[str, str]:
    """Returns how a flag is written, and what it means, with its legal values and its default."""
    kind, meaning = flag.flag_type(), ADDED.sub('', ' '.join((flag.help or '').split())).rstrip('.')
    if kind == 'bool':
        return f'--[no]{flag.name}', meaning + (', on by default' if flag.default else '')
    legal = flag.parser.syntactic_help if kind == 'int' else ''
    legal = UNBOUNDED.sub(r'of at least \1', legal)
    if legal:
        meaning += f'; {legal}'
    if flag.default not in (None, '', [], 0) and 'default' not in meaning:
        meaning += f'; default: {flag.default_as_str or flag.default}'.replace("'", '')
    return f'--{flag.name}={_value(flag, kind)}', meaning


def _value(flag: Any, kind: str) -> str:
    """Returns what stands for the value of a flag."""
    if hasattr(flag.parser, 'enum_values'):
        return '|'.join(flag.parser.enum_values)
    if 'comma separated' in kind:
        return 'A,B,...'
    names = {'workdir': 'FOLDER', CONFIG: 'FILE', 'to': 'FILE', 'weights': 'FILE', 'from': 'PATH'}
    return 'N' if kind == 'int' else names.get(flag.name, 'TEXT')
