"""The log of a training run: metrics as JSON lines, TensorBoard, Weights & Biases, a progress bar."""

import contextlib
import importlib.util
import time
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from cm_jax.files import append_json_line, drop_json_lines
from cm_jax.run_folder import EVENTS, METRICS, SKIPPED
from cm_jax.terminal import Progress
from cm_jax.training.weights_and_biases import WeightsAndBiases

FLUSH_SECONDS = 60.0  # between two writes to the disk, at most, while events come


class Events:
    """Writes TensorBoard events to a file of its own; needs tensorboardX.

    The writer of that package would write in a thread, where a full disk ends the thread, and the run
    then waits for it for ever. Here it raises OSError.
    """

    def __init__(self, folder: epath.Path, first: int):
        """Hides the events later than step `first`: a killed run has left them, and they come again."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        self._folder, self._event, self._summary = folder, event_pb2.Event, summary_pb2.Summary
        folder.mkdir(parents=True, exist_ok=True)
        self._writer, self._flushed = EventsWriter(str(folder / 'events')), time.monotonic()
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=first + 1, session_log=start)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics of a step; on the disk they are FLUSH_SECONDS later at the latest."""
        values = [self._summary.Value(tag=name, simple_value=x) for name, x in metrics.items()]
        self._write(step=step, summary=self._summary(value=values))
        if time.monotonic() > self._flushed + FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Waits until all events are on the disk."""
        with self._naming_the_folder():
            self._writer.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flushes the events and closes the file."""
        with self._naming_the_folder():
            self._writer.close()

    def _write(self, **fields: Any) -> None:
        with self._naming_the_folder():
            self._writer.write_event(self._event(wall_time=time.time(), **fields))

    @contextlib.contextmanager
    def _naming_the_folder(self) -> Iterator[None]:
        """Adds the folder to an error that names no file, as that of a full disk."""
        try:
            yield
        except OSError as error:
            error.filename = error.filename or str(self._folder)
            raise


class Log:
    """Writes the metrics of a run and shows its progress; used in a `with` statement.

    Metrics go to the file METRICS of the run folder, to TensorBoard events if tensorboardX is
    installed, and to `tracker` if there is one. The bar shows images per second and the time left; it
    opens after the first step, which compiles. The run goes from step `first` to step `total`; rows of
    an earlier attempt later than `first` are removed. Only one process of a run logs: with `active`
    False nothing is written or shown.
    """

    def __init__(
        self,
        workdir: str | epath.Path,
        first: int,
        total: int,
        batch_size: int,
        active: bool,
        tracker: WeightsAndBiases | None = None,
    ):
        self._active, self._tracker = active, tracker
        self._path = epath.Path(workdir) / METRICS
        if active:
            for name in (METRICS, SKIPPED):
                is_later = lambda row: row['step'] > first  # noqa: E731
                drop_json_lines(epath.Path(workdir) / name, is_later, 'step')
        self._batch_size, self._total = batch_size, total
        self._events = None
        if active and importlib.util.find_spec('tensorboardX'):
            self._events = Events(epath.Path(workdir) / EVENTS, first)
        self._bar: Progress | None = None
        self._shown = first
        self._since = time.monotonic()
        self._logged = first

    def tick(self, step: int) -> None:
        """Moves the progress bar to `step`; opens it at the first."""
        if self._bar is None:
            done, total = step * self._batch_size, self._total * self._batch_size
            self._bar = Progress(total, 'training', done=done, active=self._active)
        else:
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
        if self._bar:
            self._bar.show(loss=f'{metrics["loss"]:.4g}')
        if self._events:
            self._events.write(step, metrics)
        if self._tracker:
            self._tracker.write(step, row | dict(metrics))

    def flush(self) -> None:
        """Waits until all that was written is on the disk."""
        if self._events:
            self._events.flush()

    def __enter__(self) -> 'Log':
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._bar:
            self._bar.close()
        if self._tracker:
            self._tracker.close(failed=error is not None)
        if self._events is None:
            return
        # The error under way is what the user must see, not one that closing raises because of it.
        with contextlib.suppress(OSError) if error else contextlib.nullcontext():
            self._events.close()
