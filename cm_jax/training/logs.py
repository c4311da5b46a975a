"""What a run tells: a progress bar, metrics as JSON lines, TensorBoard events."""

import importlib.util
import sys
import time
from collections.abc import Mapping
from typing import Any

from etils import epath
from tqdm import tqdm

from cm_jax.files import append_json_line, drop_lines_after
from cm_jax.run_folder import EVENTS, METRICS, SKIPPED

# A bar is drawn anew this often; in a log file each drawing is a line that stays.
BAR_SECONDS = 0.5 if sys.stderr.isatty() else 15.0


class Log:
    """Writes `metrics.jsonl` always, TensorBoard events where tensorboardX is installed, and shows a
    bar with images/s and the time left; does nothing unless `active` (process 0 of a run)."""

    def __init__(
        self, workdir: str | epath.Path, first: int, total: int, batch_size: int, active: bool
    ):
        self._active = active
        self._path = epath.Path(workdir) / METRICS
        if active:
            for name in (METRICS, SKIPPED):
                drop_lines_after(epath.Path(workdir) / name, first)
        self._batch_size = batch_size
        self._events = None
        if active and importlib.util.find_spec('tensorboardX'):
            import tensorboardX

            self._events = tensorboardX.SummaryWriter(str(epath.Path(workdir) / EVENTS))
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
