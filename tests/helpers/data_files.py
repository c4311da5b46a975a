"""Made-up files of data sets, and what is read back of them."""

import gzip
import io
import struct

import numpy as np
from PIL import Image

from cm_jax import data


def made_up(count, shape, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.uint8) % 3
    return generator.integers(0, 256, (count, *shape), np.uint8), labels


def write_idx(folder, sets, gz=False):
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, (pixels, labels) in sets.items():
        for kind, array in (('images-idx3', pixels), ('labels-idx1', labels)):
            content = bytes((0, 0, 8, array.ndim)) + struct.pack(f'>{array.ndim}I', *array.shape)
            content += array.tobytes()
            name = f'{prefix}-{kind}-ubyte' + ('.gz' if gz else '')
            (folder / name).write_bytes(gzip.compress(content) if gz else content)
    return folder


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, 'PNG')
    return file.getvalue()


def everything(name, data_dir, split='train'):
    """All (image bytes, label) pairs of a prepared split, sorted; TFDS shuffles its records."""
    source = data.open_source('tfds', split, name=name, data_dir=str(data_dir))
    pixels, labels = source.get(np.arange(source.count))
    assert pixels.dtype == np.uint8 and labels.dtype == np.int32
    assert pixels.shape == (source.count, *source.image_shape)
    return source, sorted((p.tobytes(), int(n)) for p, n in zip(pixels, labels))


def pairs(pixels, labels):
    return sorted((p.tobytes(), int(n)) for p, n in zip(pixels, labels))


def write_images(folder, shape=(8, 8, 3)):
    pixels, _ = made_up(6, shape)
    names = [f'{split}/{c}/{n}.png' for split in ('train', 'test') for c in 'ba' for n in range(2)]
    for name, image in zip(names, pixels[[0, 1, 2, 3, 4, 5, 0, 1]]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(image))
    return folder, pixels
