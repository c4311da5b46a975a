"""The log of a training run: metrics as JSON lines, TensorBoard events and a progress bar."""

import importlib.util
import sys
import time
from collections.abc import Mapping
from typing import Any

from etils import epath
from tqdm import tqdm

from cm_jax.files import append_json_line, drop_lines_after
from cm_jax.run_folder import EVENTS, METRICS, SKIPPED

# The bar is redrawn at most once in this many seconds. Rarely where the output is not a terminal: in
# a log file each drawing stays as a line.
BAR_SECONDS = 0.5 if sys.stderr.isatty() else 15.0


class Log:
    """Writes the metrics of a run and shows its progress; used in a `with` statement.

    Metrics go to the file METRICS of the run folder and, if tensorboardX is installed, also to
    TensorBoard events. The bar shows images per second and the time left. The run goes from step
    `first` to step `total`; rows of an earlier attempt later than `first` are removed. Only one
    process of a run logs: with `active` False nothing is written or shown.
    """

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
        """Moves the progress bar to `step`."""
        self._bar.update((step - self._shown) * self._batch_size)
        self._shown = step

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics of `step` and the mean speed since the previous write.

        `metrics` maps names to numbers and has a 'loss', which the bar shows too.
        """
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
