"""Writes docs/recipes.md: the settings of the papers' published runs beside those of our configs.

    python -m cm_jax.recipes

It reads configs/published/ and configs/ in the current folder, the root of the repository; the page says
what it shows, and cm_jax/reports/published.py how the files are written. Nothing is written if a file
names a setting that the config does not have, if a difference is not explained, or if an explanation has
no difference. --output=FILE names another page.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from etils import epath

from cm_jax import cli
from cm_jax.errors import UserError, check_name
from cm_jax.files import write_text
from cm_jax.config import to_plain
from cm_jax.reports.published import page, read

_OUTPUT = flags.DEFINE_string('output', 'docs/recipes.md', 'the page that is written')

CONFIGS = epath.Path('configs')
PUBLISHED = CONFIGS / 'published'
INTRO = """# Recipes

The settings of the papers' published runs beside those of our configs, for who starts one: ≠ marks where
ours would drift from the paper, with the reason, and ? what could not be verified. The paper's values are
in our units and come from the source named, at the commit named; ours are read from the configs. The page
is made from `configs/published/` by `python -m cm_jax.recipes`. No run here is a result: what we have
measured is in [results](results.md).

"""


def config_of(name: str) -> Mapping[str, Any]:
    """Returns the config 'FILE.py' or 'FILE.py:VARIANT' of configs/ as plain values.

    Raises UserError if there is no such file or variant.
    """
    file, _, variant = name.partition(':')
    check_name('config', file, [path.name for path in CONFIGS.glob('*.py')])
    module = importlib.import_module(f'configs.{file.removesuffix(".py")}')
    return to_plain(module.get_config(*filter(None, [variant])))


def recipes() -> str:
    """Returns the page. Raises UserError if a file of configs/published/ is wrong, or there is none."""
    paths = sorted(PUBLISHED.glob('*.toml'))
    if not paths:
        raise UserError(f'no {PUBLISHED}/*.toml here: run this in the root of the repository')
    return page([read(path, config_of) for path in paths], INTRO)


def main(argv: Sequence[str]) -> None:
    del argv
    write_text(epath.Path(_OUTPUT.value), recipes())
    print(f'written: {_OUTPUT.value}')


if __name__ == '__main__':
    cli.run(main)
