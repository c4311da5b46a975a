"""No test of data reaches the network."""

import socket

import pytest

from cm_jax.data.prepare import prepare
from tests.helpers.data_files import made_up, write_idx


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError('network access')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)


@pytest.fixture(scope='module')
def idx_set(tmp_path_factory):
    """A made-up IDX set, prepared: (its folder, its arrays, the data_dir)."""
    base = tmp_path_factory.mktemp('idx')
    sets = {'train': made_up(200, (7, 5)), 't10k': made_up(20, (7, 5), 1)}
    write_idx(base / 'raw', sets, gz=True)
    prepare('small', str(base / 'raw'), str(base / 'tfds'))
    return base / 'raw', sets, base / 'tfds'
