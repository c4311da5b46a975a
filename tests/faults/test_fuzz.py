"""Whatever a file holds, its reader reads it or refuses it in one line, within 1 GB, and runs nothing.

Each reader gets files that hypothesis makes: whole ones that are damaged in some places, and made-up
ones of the right form. The process is limited and watched as tests/helpers/limited.py says.
"""

import collections
import functools
import pathlib
import shutil
import time
import warnings
from collections.abc import Callable
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import data
from cm_jax.data import readers
from cm_jax.evaluation import references
from cm_jax.types import Extractor
from cm_jax.weights.read import read_tensors
from tests.helpers import fuzzing, limited

QUICK, LONG = 200, 5000  # files for each reader, as far as they are read in
SECONDS = 200


def apply(params, x):
    return jnp.concatenate([x.mean((1, 2)), x[:, 0].mean((1, 2))[:, None]], axis=1) * params


EXTRACTOR = Extractor('made_up', 'fd_made_up', 4, apply, np.float32(2), None, 'c0ffee')


def weights(folder: pathlib.Path, content: bytes, name: str) -> list[str]:
    (folder / name).write_bytes(content)
    return [limited.refusal(read_tensors, folder / name)]


def reference(folder: pathlib.Path, content: bytes, name: str) -> list[str]:
    (folder / name).write_bytes(content)
    arguments = references.load, str(folder / name), EXTRACTOR, 8
    return [limited.refusal(*arguments, keep) for keep in (False, True)]


def everything(path: pathlib.Path, size: int = 0, crop: str = 'lanczos') -> None:
    contents = readers.read(path, size, crop)
    for split in contents.counts:
        for _ in contents.examples(split):
            pass


def images(folder: pathlib.Path, file: tuple[str, bytes]) -> list[str]:
    """One image in a folder, as `prepare` and as the source `folder` read it."""
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / file[0]).write_bytes(file[1])
    said = [limited.refusal(everything, folder, *crop) for crop in ((), (6,), (6, 'adm'))]
    return [*said, limited.refusal(source, folder)]


def source(folder: pathlib.Path) -> None:
    opened = data.open_source('folder', 'train', path=str(folder))
    opened.get(np.arange(opened.count))


def archive(folder: pathlib.Path, content: bytes, name: str) -> list[str]:
    (folder / name).write_bytes(content)
    return [limited.refusal(everything, folder / name)]


def idx(folder: pathlib.Path, files: tuple[bytes, bytes]) -> list[str]:
    for name, content in zip(('images-idx3', 'labels-idx1'), files, strict=True):
        (folder / f'train-{name}-ubyte').write_bytes(content)
    return [limited.refusal(everything, folder, *crop) for crop in ((), (6, 'adm'))]


def data_set(folder: pathlib.Path, file: tuple[pathlib.Path, bytes]) -> list[str]:
    """One file of a prepared data set."""
    path, whole = file[0], file[0].read_bytes()
    path.write_bytes(file[1])
    try:
        return [limited.refusal(source, path.parent)]
    finally:
        path.write_bytes(whole)


# {reader: (its files, what is said of each of them in a folder)}
READERS: dict[str, tuple[Any, Callable]] = {
    'pickle': (fuzzing.pickles, functools.partial(weights, name='a.pkl')),
    'torch': (fuzzing.torch_zips, functools.partial(weights, name='a.pt')),
    'torch legacy': (fuzzing.legacy, functools.partial(weights, name='a.pth')),
    'npz': (fuzzing.npz, functools.partial(weights, name='a.npz')),
    'safetensors': (fuzzing.safetensors_files, functools.partial(weights, name='a.safetensors')),
    'flax': (fuzzing.flax_files, functools.partial(weights, name='checkpoint')),
    'reference npz': (fuzzing.references(), functools.partial(reference, name='a.npz')),
    'reference pkl': (fuzzing.statistics, functools.partial(reference, name='a.pkl')),
    'images': (fuzzing.images, images),
    'image zip': (fuzzing.image_zips, functools.partial(archive, name='a.zip')),
    'idx': (fuzzing.idx_files, idx),
    'prepared': (fuzzing.data_sets, data_set),
    'cifar10': (fuzzing.cifar, functools.partial(archive, name='a.tar.gz')),
}


def warm_up() -> None:
    """What must be there before the limit is set: JAX, and the modules that are imported late."""
    warnings.simplefilter('ignore')  # of Pillow, for damaged images
    jax.config.update('jax_enable_compilation_cache', False)  # it writes files
    jnp.zeros(3).block_until_ready()


def fuzz(reader: str, folder: pathlib.Path, examples: int) -> None:
    """In the limited process: tries so many files on a reader, which reads some and refuses some.

    After SECONDS no further file is read: the rest of a slow reader's are left out.
    """
    files, check = READERS[reader]
    said: collections.Counter[bool] = collections.Counter()
    end = time.monotonic() + SECONDS
    files = files(folder) if callable(files) else files
    settings = hypothesis.settings(
        max_examples=examples,
        derandomize=examples == QUICK,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        report_multiple_bugs=False,
    )

    @settings
    @hypothesis.given(files)
    def tried(file: Any) -> None:
        if time.monotonic() < end:
            said.update(bool(one) for one in check(folder, file))

    tried()
    assert said.keys() == {True, False}, said


@pytest.fixture(scope='module')
def call():
    yield from limited.process(warm_up)


@pytest.mark.parametrize('reader', READERS)
def test_no_file_breaks_a_reader(call, tmp_path, reader):
    call(fuzz, reader, tmp_path, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize('reader', READERS)
def test_thousands_of_files_break_no_reader(call, tmp_path, reader):
    call(fuzz, reader, tmp_path, LONG)
