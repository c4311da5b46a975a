"""TensorBoard's events: none twice after a kill; a full disk is told by the run, not by a thread."""

import struct

import pytest
from etils import epath

from cm_jax.training.logs import Log
from tests.helpers.faults import no_file_beyond

event_pb2 = pytest.importorskip('tensorboardX.proto.event_pb2')


def events(folder) -> list:
    """All events in the files of a folder, in the order in which TensorBoard reads them."""
    found = []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at + 12 <= len(data):
            (length,) = struct.unpack_from('<Q', data, at)
            found.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + length]))
            at += length + 16
    return found


def shown(folder) -> list[tuple[int, str, float]]:
    """What TensorBoard shows: at the start of a session it drops what is at its step and later."""
    kept = []
    for event in events(folder):
        if event.session_log.status == event_pb2.SessionLog.START:
            kept = [row for row in kept if row[0] < event.step]
        for value in event.summary.value:
            kept.append((event.step, value.tag, round(value.simple_value, 3)))
    return kept


def log_of(folder, first):
    return Log(folder, first, total=12, batch_size=16, active=True)


def test_events_of_a_killed_run_are_not_shown_beside_those_that_come_again(tmp_path, monkeypatch):
    folder = epath.Path(tmp_path)
    killed = log_of(folder, 0)
    for step in range(1, 10):
        killed.write(step, {'loss': 1.0, 'grad_norm': 2.0})
        if step in (4, 7):
            killed.flush()  # before a resume step is saved
    files = list((folder / 'events').iterdir())
    files[0].rename(files[0].parent / 'events.out.tfevents.1')  # begun a while ago
    with log_of(folder, 4) as log:
        for step in range(5, 13):
            log.write(step, {'loss': 0.5, 'grad_norm': 2.0})
    expected = [(step, 'loss', 1.0 if step < 5 else 0.5) for step in range(1, 13)]
    assert [row for row in shown(folder / 'events') if row[1] == 'loss'] == expected
    assert [row[0] for row in shown(folder / 'events') if row[1] == 'grad_norm'] == [*range(1, 13)]


def test_a_full_disk_is_told_where_the_events_are_written_and_nothing_waits(tmp_path, capfd):
    folder = epath.Path(tmp_path)
    with (
        pytest.raises(OSError, match=str(folder / 'events')) as raised,
        log_of(folder, 0) as log,
        no_file_beyond(300),
    ):
        for step in range(1000):
            log._events.write(step, {'loss': 1.0})
            log.flush()
    assert raised.value.strerror == 'File too large'
    assert 'Traceback' not in capfd.readouterr().err
