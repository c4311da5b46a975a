"""Writes docs/recipes.md: the settings of the papers' published runs beside those of our configs.

    python -m cm_jax.recipes

It reads configs/published/ and configs/ in the current folder, which must be the root of the
repository; cm_jax/reports/published.py says how the files there are written. Nothing is written if one
of them names a key that the config does not have, or has no line for a setting that it must have; if a
difference has no explanation, or an explanation no difference.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from cm_jax import cli
from cm_jax.config import to_plain
from cm_jax.errors import UserError, check_name
from cm_jax.files import write_text
from cm_jax.reports.published import missing, page, read

CONFIGS = epath.Path('configs')
PUBLISHED = CONFIGS / 'published'
PAGE = epath.Path('docs/recipes.md')


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
    families = [read(path, config_of) for path in paths]
    for path, family in zip(paths, families):
        for row in family.rows:
            if row.config and (keys := missing(config_of(row.config), row)):
                raise UserError(f'{path}: {row.name}: no line for {", ".join(keys)}')
    return page(families)


def main(argv: Sequence[str]) -> None:
    del argv
    write_text(PAGE, recipes())
    print(f'written: {PAGE}')


if __name__ == '__main__':
    cli.run(main)
