"""Downloads the public weights of the extractors, when a user asks for it, and checks their sha256."""

import contextlib
import os
import pathlib
import shutil
import urllib.request
from typing import NamedTuple

from cm_jax.errors import FULL_DISK, UserError, check_name
from cm_jax.files import expanded, sha256
from cm_jax.weights import dinov2, inception

TIMEOUT = 60  # seconds to wait for an answer


class Published(NamedTuple):
    """Where a weights file is published, and its sha256."""

    url: str
    sha256: str


PUBLISHED = {
    inception.NAME: Published(
        'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/'
        'pt_inception-2015-12-05-6726825d.pth',
        '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2',
    ),
    dinov2.NAME: Published(
        f'https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/{dinov2.FILE}',
        'd5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428',
    ),
}


def place(extractor: str, path: str = '') -> pathlib.Path:
    """Returns the path of an extractor's weights file: `path`, or one in the user's cache if it is ''.

    Raises UserError if the extractor has no such file.
    """
    check_name('extractor to download', extractor, PUBLISHED)
    if path:
        return pathlib.Path(expanded(path))
    home = os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache')
    name = PUBLISHED[extractor].url.split('/')[-1]
    return pathlib.Path(home) / 'cm_jax' / 'weights' / name


def fetch(extractor: str, path: str = '') -> pathlib.Path:
    """Downloads an extractor's weights to their `place` and returns that path.

    A file that is already there is checked and not downloaded again. Raises UserError, in one line, if
    the connection fails, the place cannot be written or the checksum is wrong; a file that was
    downloaded is then deleted.
    """
    published, where = PUBLISHED[extractor], place(extractor, path)
    if where.is_dir():
        raise UserError(f'{where} is a folder; --weights names the file to fetch into')
    if where.exists():
        _check(where, where, published, 'delete it, or leave --download out to use it as it is')
        return where
    beside = where.with_name(f'{where.name}.fetching')
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(published.url, timeout=TIMEOUT) as answer,
            beside.open('wb') as file,
        ):
            shutil.copyfileobj(answer, file)
        _check(beside, where, published, 'nothing was kept')
        beside.replace(where)
    except OSError as error:  # errors of the connection are OSErrors, too
        if error.errno in FULL_DISK:
            raise  # the commands report a full disk themselves
        raise UserError(f'{published.url} cannot be fetched to {where}: {error}') from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
    return where


def _check(path: pathlib.Path, shown: pathlib.Path, published: Published, advice: str) -> None:
    """Raises UserError, with `advice`, unless the file at `path` is the published one."""
    actual = sha256(path)
    if actual != published.sha256:
        raise UserError(
            f'{shown} has the sha256 {actual}, and the file published at {published.url} has '
            f'{published.sha256}: {advice}'
        )
