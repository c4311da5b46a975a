"""Published weights are fetched, checked and kept."""

import hashlib

import pytest

from cm_jax.errors import UserError
from cm_jax.weights import download


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A file that is published, at an address on this machine, and a cache of its own."""
    file = tmp_path / 'published' / 'weights.pth'
    file.parent.mkdir()
    file.write_bytes(b'weights')
    known = download.Published(file.as_uri(), hashlib.sha256(b'weights').hexdigest())
    monkeypatch.setitem(download.PUBLISHED, 'inception', known)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return file


def test_a_download_is_checked_and_kept(published, tmp_path):
    found = download.fetch('inception')
    assert found == tmp_path / 'cache' / 'cm_jax' / 'weights' / 'weights.pth'
    assert found.read_bytes() == b'weights'
    published.unlink()
    assert download.fetch('inception') == found  # it is there
    with pytest.raises(UserError, match=r'weights.pth cannot be fetched'):
        download.fetch('inception', str(tmp_path / 'other.pth'))
    with pytest.raises(
        UserError, match=r'weights.pth cannot be fetched to .*mine.pth: .*File exists'
    ):
        download.fetch('inception', str(found / 'mine.pth'))
    with pytest.raises(UserError, match=r'is a folder; --weights names the file'):
        download.fetch('inception', str(tmp_path))
    found.write_bytes(b'other')
    with pytest.raises(UserError, match=r'has the sha256 .* leave --download out'):
        download.fetch('inception')
    assert [path.name for path in found.parent.iterdir()] == ['weights.pth']


def test_another_checksum_is_refused_and_nothing_kept(published, tmp_path):
    published.write_bytes(b'others')
    with pytest.raises(UserError, match=r'has the sha256 .*: nothing was kept') as raised:
        download.fetch('inception', str(tmp_path / 'new' / 'mine.pth'))
    assert '\n' not in str(raised.value) and 'mine.pth has' in str(raised.value)
    assert list((tmp_path / 'new').iterdir()) == []


def test_what_has_no_file_is_refused():
    with pytest.raises(UserError, match=r"'lenet_digits'.*legal: dinov2_vitl14, inception"):
        download.place('lenet_digits')


def test_published_checksums_are_those_in_the_names_of_the_files():
    for known in download.PUBLISHED.values():
        assert known.url.startswith('https://') and len(known.sha256) == 64
    assert download.PUBLISHED['inception'].sha256.startswith('6726825d')
