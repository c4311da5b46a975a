"""What the commands show in the terminal: progress bars, tables, sizes, spreads, the next command.

A bar is for people who wait. Where the output is not a terminal, as in a log file, it becomes a line
every LOG_SECONDS, and a command that ends before has none.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

Item = TypeVar('Item')

IMAGES = 'images'  # the unit of a bar that shows a speed
BAR_SECONDS = 0.5  # between two drawings of a bar in a terminal
LOG_SECONDS = 30.0  # between two lines elsewhere
LEFT = '{elapsed} so far, {remaining} left{postfix}'


class _Lines:
    """A file for tqdm whose every drawing of a bar becomes a line of its own in another file."""

    def __init__(self, file: TextIO):
        self._file = file

    def write(self, text: str) -> None:
        if text.strip():
            self._file.write(text.strip() + '\n')

    def flush(self) -> None:
        self._file.flush()


class Progress:
    """The bar of something that takes a while; used in a `with` statement.

    It shows how much is done, the time left and, if the unit is IMAGES, the images per second.

    Args:
      total: how many units there are.
      what: what is being done, as 'training'.
      unit: what is counted, in the plural.
      done: how many units an earlier attempt has done; the speed does not count them.
      active: False shows nothing. Of several processes of one run only the first shows its bar.
      leave: whether the bar stays in the terminal when it is complete.
    """

    def __init__(
        self,
        total: int,
        what: str,
        unit: str = IMAGES,
        *,
        done: int = 0,
        active: bool = True,
        leave: bool = True,
    ):
        is_terminal = sys.stderr.isatty()
        speed = '{rate_noinv_fmt}, ' if unit == IMAGES else ''
        drawn = '|{bar}| ' if is_terminal else ''
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=what,
            unit=f' {unit}',
            unit_scale=unit == IMAGES,
            smoothing=0.05,
            miniters=1,
            mininterval=BAR_SECONDS if is_terminal else LOG_SECONDS,
            delay=0 if is_terminal else LOG_SECONDS,
            file=sys.stderr if is_terminal else _Lines(sys.stderr),
            dynamic_ncols=True,
            bar_format='{desc} {percentage:3.0f}% '
            + f'{drawn}{{n_fmt}} of {{total_fmt}}{{unit}}, {speed}{LEFT}',
            leave=leave,
            disable=not active,
        )

    def update(self, count: int = 1) -> None:
        """Counts so many units more."""
        self._bar.update(count)

    def show(self, **values: str) -> None:
        """Shows values behind the bar from its next drawing on, each with its name."""
        self._bar.set_postfix(values, refresh=False)

    def print(self, text: str) -> None:
        """Prints a line above the bar."""
        with tqdm.external_write_mode():
            print(text, flush=True)

    def close(self) -> None:
        """Draws the bar for the last time."""
        self._bar.close()

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def progress(
    items: Iterable[Item], total: int, what: str, unit: str, **more: Any
) -> Iterator[Item]:
    """Yields the items under a bar; the arguments are those of `Progress`."""
    with Progress(total, what, unit, **more) as bar:
        for item in items:
            yield item
            bar.update()


def size(count: float) -> str:
    """Returns a number of bytes in the unit that suits it, as '12 kB' or '1.5 GB' (powers of 1,000)."""
    units = ['B', 'kB', 'MB', 'GB', 'TB']
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        del units[0]
    return (
        f'{count:.0f} {units[0]}' if units[0] == 'B' or count >= 9.95 else f'{count:.1f} {units[0]}'
    )


def plus_minus(value: float, std: float | None, form: str = '.4f') -> str:
    """Returns '12.3456 ± 0.1234': a mean and the standard deviation over its seeds, if there is one."""
    return f'{value:{form}}' + ('' if std is None else f' ± {std:{form}}')


def table(rows: Mapping[str, str]) -> str:
    """Returns a line for each row, its name before it; each line of a value stands below the first."""
    width = max(map(len, rows)) + 2
    return '\n'.join(
        f'  {name if not i else "":<{width}}{line}'
        for name, value in rows.items()
        for i, line in enumerate(value.split('\n'))
    )


def say_next(commands: Sequence[str]) -> None:
    """Prints the commands that can be called next, each on a line that can be copied."""
    for i, command in enumerate(commands):
        print(f'{"     " if i else "next:"} python -m cm_jax.{command}', flush=True)
