"""What a run tells: a progress bar, metrics as JSON lines, TensorBoard events, pictures."""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image
from etils import epath
from tqdm import tqdm

# A bar is drawn anew this often; in a log file each drawing is a line that stays.
BAR_SECONDS = 0.5 if sys.stderr.isatty() else 15.0


class Log:
    """Writes `metrics.jsonl` always, TensorBoard events where tensorboardX is installed, and shows a
    bar with images/s and the time left; does nothing unless `active` (process 0 of a run)."""

    def __init__(
        self, workdir: str | epath.Path, first: int, total: int, batch_size: int, active: bool
    ):
        self._active = active
        self._path = epath.Path(workdir) / 'metrics.jsonl'
        if active:
            for name in ('metrics.jsonl', 'skipped.jsonl'):
                drop_lines_after(epath.Path(workdir) / name, first)
        self._batch_size = batch_size
        self._events = None
        if active and importlib.util.find_spec('tensorboardX'):
            import tensorboardX

            self._events = tensorboardX.SummaryWriter(str(epath.Path(workdir) / 'events'))
        self._bar = tqdm(
            initial=first * batch_size,
            total=total * batch_size,
            unit=' images',
            unit_scale=True,
            smoothing=0.05,
            mininterval=BAR_SECONDS,
            dynamic_ncols=True,
            disable=not active,
        )
        self._shown = first
        self._since = time.monotonic()
        self._logged = first

    def tick(self, step: int) -> None:
        """Moves the bar to `step`."""
        self._bar.update((step - self._shown) * self._batch_size)
        self._shown = step

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics of `step`, with the speed since the last write."""
        if not self._active:
            return
        now = time.monotonic()
        speed = (step - self._logged) * self._batch_size / max(now - self._since, 1e-9)
        self._since, self._logged = now, step
        row = {'step': step, 'images': step * self._batch_size, 'images_per_s': round(speed, 1)}
        append_json_line(self._path, row | dict(metrics))
        self._bar.set_postfix(loss=f'{metrics["loss"]:.4g}', refresh=False)
        if self._events:
            for name, value in metrics.items():
                self._events.add_scalar(name, value, step)

    def __enter__(self) -> 'Log':
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.close()
        if self._events:
            self._events.close()


def append_json_line(path: epath.Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """Adds one line of JSON to a file; the row as it will be read: non-finite numbers become null.

    A last line without its end, which `read_json_lines` passes over, is dropped first.
    """
    line = json.dumps(_finite(row))
    in_cloud = '://' in str(path)  # where there is no appending
    if path.exists() and (in_cloud or not _ends_in_newline(path)):
        text = path.read_text()
        write_text(path, text[: text.rfind('\n') + 1] + line + '\n')
    else:
        with path.open('a') as file:
            file.write(line + '\n')
    return json.loads(line)


def _finite(value: Any) -> Any:
    """`value` with None for every number in it that is not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _ends_in_newline(path: epath.Path) -> bool:
    """Whether a file ends in a newline, or is empty."""
    with path.open('rb') as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b'\n'


def read_json_lines(path: epath.Path) -> list[dict[str, Any]]:
    """The complete lines of a file of JSON lines; [] where there is no file.

    A last line without its end (the program was killed in the middle of it) is passed over.
    """
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split('\n')[:-1]]


def drop_lines_after(path: epath.Path, step: int) -> None:
    """Drops the rows later than `step`: a run that goes on from `step` writes them again."""
    if path.exists():
        kept = [row for row in read_json_lines(path) if row['step'] <= step]
        write_text(path, ''.join(json.dumps(row) + '\n' for row in kept))


def write_text(path: epath.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    beside = path.parent / f'{path.name}.writing'
    try:
        beside.write_text(text)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def write_grid(path: epath.Path, images: np.ndarray, columns: int, scale: int) -> None:
    """A PNG of images [N,H,W,C], float in [-1,1] or uint8, `columns` a row, each pixel `scale` wide."""
    if images.dtype != np.uint8:
        images = np.clip(np.round(127.5 * images + 127.5), 0, 255).astype(np.uint8)
    n, h, w, c = images.shape
    rows = -(-n // columns)
    grid = np.full((rows, columns, h + 1, w + 1, c), 255, np.uint8)
    grid.reshape(-1, h + 1, w + 1, c)[:n, :h, :w] = images
    grid = grid.transpose(0, 2, 1, 3, 4).reshape(rows * (h + 1), columns * (w + 1), c)
    grid = grid[:-1, :-1].repeat(scale, 0).repeat(scale, 1)
    with path.open('wb') as file:
        PIL.Image.fromarray(grid[..., 0] if c == 1 else grid).save(file, 'PNG')
