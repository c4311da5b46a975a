"""EDM2's snapshots in a folder: listed by their names, or refused in one line."""

import pytest

from cm_jax.errors import UserError
from cm_jax.weights.snapshots import snapshots


def test_snapshots_are_listed_by_their_names(tmp_path):
    for name in ('a-0000200-0.100.pkl', 'a-0000100-0.100.pkl', 'a-0000100-0.050.pkl', 'log.txt'):
        (tmp_path / name).write_bytes(b'')
    listed = snapshots(tmp_path)
    assert [one[1:] for one in listed] == [(100, 0.05), (100, 0.1), (200, 0.1)]
    for name, message in (
        ('a-0000100-0.05.pkl', 'are of the same time and sigma_rel'),
        ('a-0000300-0.500.pkl', 'has the sigma_rel 0.5 in its name; legal'),
        ('b-0000300-0.100.pkl', 'several networks: a, b; legal: of one'),
    ):
        (tmp_path / name).write_bytes(b'')
        with pytest.raises(UserError, match=message):
            snapshots(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='no snapshots that are called NAME-KIMG'):
        snapshots(tmp_path / 'empty')
