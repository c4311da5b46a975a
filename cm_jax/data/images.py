"""Image files: how a folder or zip of them is laid out, and their pixels as uint8.

The rules, for every place that reads image files:
- Folders named after splits (SPLITS) at the top are splits; the folders below are classes.
- A set is colour if any of its images is; the grey ones then get three equal channels.
- An alpha channel is dropped; 16-bit grey and float images are refused.
"""

import contextlib
import pathlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from cm_jax.errors import UserError

SPLITS = ('train', 'test', 'validation', 'val')
SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
FORMATS = ('BMP', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')
GREY_MODES = ('1', 'L', 'LA')
REFUSED_MODES = ('I', 'F', 'I;16', 'I;16B', 'I;16L', 'I;16N')


class Layout(NamedTuple):
    """What the file names say: per split its (name, label) pairs; no class names = no labels."""

    splits: dict[str, list[tuple[str, int]]]
    class_names: tuple[str, ...]


class Header(NamedTuple):
    """What the first bytes of an image file say."""

    height: int
    width: int
    colour: bool


def is_image(name: str) -> bool:
    """Whether a relative name is that of an image; hidden files and folders hold none."""
    hidden = any(part.startswith(('.', '__MACOSX')) for part in name.split('/'))
    return not hidden and name.lower().endswith(SUFFIXES)


def layout(names: Iterable[str], where: str) -> Layout:
    """Sorts relative names ('train/cat/1.png') into splits and classes.

    One folder around everything is skipped. Without split folders all is 'train'. Labels number the
    sorted class folders of all splits. Raises UserError where there is no image, or where the
    folders can be read in two ways.
    """
    paths = sorted(tuple(name.split('/')) for name in names if is_image(name))
    if not paths:
        raise UserError(f'{where} holds no image ({", ".join(SUFFIXES)})')
    skipped = 0
    while all(len(p) > skipped + 1 for p in paths) and len({p[skipped] for p in paths}) == 1:
        if paths[0][skipped] in SPLITS:
            break
        skipped += 1
    parts = [path[skipped:] for path in paths]
    tops = {part[0] if len(part) > 1 else '' for part in parts}
    has_splits = tops <= set(SPLITS)
    if not has_splits and len(tops & set(SPLITS)) > 1:
        other = min(tops - set(SPLITS)) or 'images'
        raise UserError(
            f'{where} has {other!r} beside its split folders; legal: {", ".join(SPLITS)}'
        )

    classes = [part[1:-1] if has_splits else part[:-1] for part in parts]
    class_names = tuple(sorted({c[0] for c in classes if c}))
    numbers = {name: number for number, name in enumerate(class_names)}
    loose = [path for path, c in zip(paths, classes) if not c]
    if class_names and loose:
        raise UserError(f'{where}: {"/".join(loose[0])} lies in no class folder, others lie in one')
    splits: dict[str, list[tuple[str, int]]] = {}
    for path, part, c in zip(paths, parts, classes):
        label = numbers[c[0]] if c else 0
        splits.setdefault(part[0] if has_splits else 'train', []).append(('/'.join(path), label))
    return Layout(splits, class_names)


@contextlib.contextmanager
def _opened(file: BinaryIO | pathlib.Path, where: str) -> Iterator[Image.Image]:
    try:
        with Image.open(file, formats=FORMATS) as image:
            yield image
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f'{where} is not a readable image: {error}') from error


def header(file: BinaryIO | pathlib.Path, where: str) -> Header:
    """Size and colour of an image, without decoding it; UserError if there is none in `file`."""
    with _opened(file, where) as image:
        if image.mode in REFUSED_MODES:
            raise UserError(f'{where} has pixels of mode {image.mode}; legal: 8 bits per channel')
        return Header(image.height, image.width, image.mode not in GREY_MODES)


def common_shape(headers: Iterable[tuple[str, Header]]) -> tuple[int, int, int]:
    """(H, W, C) of a set; raises UserError naming the first image of another size."""
    colour, first, first_name = False, None, ''
    for name, found in headers:
        if first is None:
            first, first_name = found, name
        if found[:2] != first[:2]:
            raise UserError(
                f'images differ in size: {name} is {found.height}x{found.width}, {first_name} is '
                f'{first.height}x{first.width}; python -m cm_jax.prepare --size=N makes '
                'them one size'
            )
        colour = colour or found.colour
    return first.height, first.width, 3 if colour else 1


def _square(image: Image.Image, size: int) -> Image.Image:
    """The centre square of an image, resized to `size` pixels (Lanczos)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # Cropped first: the filter may not see what the crop cuts off.
    return image.crop((left, top, left + side, top + side)).resize(
        (size, size), Image.Resampling.LANCZOS
    )


def _array(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def pixels(file: BinaryIO | pathlib.Path, where: str, channels: int, size: int = 0) -> np.ndarray:
    """Decodes one image: uint8 [H,W,channels], or [size,size,channels] where a size is given.

    With a size the image is first turned as its EXIF orientation says, then centre-cropped.
    """
    with _opened(file, where) as image:
        upright = ImageOps.exif_transpose(image) if size else image
        converted = upright.convert('RGB' if channels == 3 else 'L')
        return _array(_square(converted, size) if size else converted)


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """Centre-crops and resizes uint8 [H,W,C] to [size,size,C]."""
    return _array(_square(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image), size))
