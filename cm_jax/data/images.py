"""Image files: the layout of a folder or zip of them, and their pixels as uint8.

All code that reads image files follows these rules:
- Folders at the top that are named after splits (SPLITS) are splits; the folders below are classes.
- A data set is in colour if any of its images is. Grey images then get three equal channels.
- An alpha channel is dropped. 16-bit grey images and float images are refused.
- So are images of more than MAX_PIXELS, or MAX_SIDE: a small file can declare any number of them.
"""

import contextlib
import pathlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from cm_jax.errors import UserError, begins_with, damage_is_one_line

MAX_PIXELS = 1 << 26  # of one image: 8192 x 8192
MAX_SIDE = 1 << 16  # pixels of a side: Pillow's tables for each row and column take memory too
MAX_BYTES = 4 * MAX_PIXELS  # of its file: as many as without compression
MAX_SIZE = 4096  # pixels a side to which images are resized
SPLITS = ('train', 'test', 'validation', 'val')
SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
FORMATS = ('BMP', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')
warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # MAX_PIXELS is less
GREY_MODES = ('1', 'L', 'LA')
REFUSED_MODES = ('I', 'F', 'I;16', 'I;16B', 'I;16L', 'I;16N')


class Layout(NamedTuple):
    """The splits and classes of a data set, as given by the names of its files."""

    splits: dict[str, list[tuple[str, int]]]  # split -> (relative name, label) of each image
    class_names: tuple[str, ...]  # empty where there are no class folders; all labels are then 0


class Header(NamedTuple):
    """The size and colour of an image, which are read from the first bytes of its file."""

    height: int
    width: int
    colour: bool


def is_image(name: str) -> bool:
    """Returns whether a relative file name is that of an image and nothing in it is hidden."""
    hidden = any(part.startswith(('.', '__MACOSX')) for part in name.split('/'))
    return not hidden and name.lower().endswith(SUFFIXES)


def layout(names: Iterable[str], where: str) -> Layout:
    """Returns the layout of the files with the relative names `names`, e.g. 'train/cat/1.png'.

    Folders that contain everything are skipped. Without split folders all images are the split
    'train'. A label is the place of the class folder among the sorted class folders of all splits.
    Raises UserError, which begins with `where`, if there is no image, if another folder lies beside
    the split folders, or if some images lie in class folders and others do not.
    """
    paths = sorted(tuple(name.split('/')) for name in names if is_image(name))
    if not paths:
        raise UserError(f'{where} holds no image ({", ".join(SUFFIXES)})')
    skipped = 0
    while (
        all(len(path) > skipped + 1 for path in paths)
        and len({path[skipped] for path in paths}) == 1
    ):
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

    class_folders = [part[1:-1] if has_splits else part[:-1] for part in parts]
    class_names = tuple(sorted({folders[0] for folders in class_folders if folders}))
    labels = {name: label for label, name in enumerate(class_names)}
    loose = [path for path, folders in zip(paths, class_folders) if not folders]
    if class_names and loose:
        raise UserError(
            f'{where}: {"/".join(loose[0])} lies in no class folder, but other images do'
        )
    splits: dict[str, list[tuple[str, int]]] = {}
    for path, part, folders in zip(paths, parts, class_folders):
        label = labels[folders[0]] if folders else 0
        splits.setdefault(part[0] if has_splits else 'train', []).append(('/'.join(path), label))
    return Layout(splits, class_names)


@contextlib.contextmanager
def _opened(file: BinaryIO | pathlib.Path, where: str) -> Iterator[Image.Image]:
    """Opens an image. Raises UserError if it is too large, or reading it in the block fails."""
    with damage_is_one_line(where, 'is not a readable image'):
        try:
            with Image.open(file, formats=FORMATS) as image:
                _check_pixels(image.width, image.height, where)
                yield image
        except Image.DecompressionBombError:
            raise UserError(f'{where} has too many pixels; legal: at most {MAX_PIXELS:,}') from None


def _check_pixels(width: int, height: int, where: str) -> None:
    """Raises UserError, which begins with `where`, if an image exceeds MAX_PIXELS or MAX_SIDE."""
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise UserError(
            f'{where} has {width}x{height} pixels; legal: at most {MAX_PIXELS:,}, and {MAX_SIDE:,} a '
            'side'
        )


def header(file: BinaryIO | pathlib.Path, where: str) -> Header:
    """Returns the size and colour of an image, without decoding it.

    Raises UserError, which begins with `where`, if `file` is not a readable image, or has more than
    8 bits per channel or more pixels than are legal.
    """
    with _opened(file, where) as image:
        if image.mode in REFUSED_MODES:
            raise UserError(f'{where} has pixels of mode {image.mode}; legal: 8 bits per channel')
        return Header(image.height, image.width, image.mode not in GREY_MODES)


def common_shape(headers: Iterable[tuple[str, Header]]) -> tuple[int, int, int]:
    """Returns the (H, W, C) of a data set, given as (name, header) of each of its images.

    Raises UserError, naming the first image that differs, if the images are not all of one size.
    """
    remaining = iter(headers)
    first_name, first = next(remaining)
    colour = first.colour
    for name, other in remaining:
        if (other.height, other.width) != (first.height, first.width):
            raise UserError(
                f'images differ in size: {name} is {other.height}x{other.width}, {first_name} is '
                f'{first.height}x{first.width}; python -m cm_jax.prepare --size=N makes '
                'them one size'
            )
        colour = colour or other.colour
    return first.height, first.width, 3 if colour else 1


def _centre(image: Image.Image, side: int) -> Image.Image:
    """Returns the square of `side` pixels a side at the centre of an image."""
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _lanczos(image: Image.Image, size: int) -> Image.Image:
    """Returns the largest centre square, then resized by Lanczos's filter.

    Pixels outside the square have no influence. It is `center-crop` of EDM's dataset tool.
    """
    square = _centre(image, min(image.size))
    return square.resize((size, size), Image.Resampling.LANCZOS)


def _adm(image: Image.Image, size: int) -> Image.Image:
    """Returns an image halved while it is at least twice too large, resized, then cropped.

    The halving takes means of 2x2 pixels, dropping a last odd row or column. The resizing, by a bicubic
    filter, brings the smaller side to `size`. It is the crop of ADM (arXiv 2105.05233, its code), and
    `center-crop-dhariwal` of EDM2's dataset tool.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    _check_pixels(width, height, f'{image.width}x{image.height} pixels are too narrow: resized, it')
    return _centre(image.resize((width, height), Image.Resampling.BICUBIC), size)


# The rules by which images are cropped and resized to squares of `size` pixels a side.
CROPS: dict[str, Callable[[Image.Image, int], Image.Image]] = {'lanczos': _lanczos, 'adm': _adm}
DEFAULT_CROP = 'lanczos'


def _array(image: Image.Image) -> np.ndarray:
    """Returns the pixels of an image as uint8 [H,W,C]."""
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def pixels(
    file: BinaryIO | pathlib.Path,
    where: str,
    channels: int,
    size: int = 0,
    crop: str = DEFAULT_CROP,
) -> np.ndarray:
    """Returns the pixels of one image as uint8 [H,W,channels], or [size,size,channels] with a size.

    With a size the image is cropped and resized by the rule `crop`, a key of CROPS. By 'lanczos' it is
    turned to its EXIF orientation before; the code whose rule 'adm' is takes the pixels as they are
    stored. Raises UserError, which begins with `where`, if `file` is not a readable image.
    """
    with _opened(file, where) as image:
        if size and crop == 'lanczos':
            ImageOps.exif_transpose(image, in_place=True)
        mode = 'RGB' if channels == 3 else 'L'
        converted = image if image.mode == mode else image.convert(mode)
        with begins_with(where):
            return _array(CROPS[crop](converted, size) if size else converted)


def resized(image: np.ndarray, size: int, crop: str = DEFAULT_CROP) -> np.ndarray:
    """Returns an image uint8 [H,W,C] cropped and resized by a rule of CROPS, as [size,size,C]."""
    opened = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return _array(CROPS[crop](opened, size))


def adm_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Returns an image uint8 [H,W,C] by ADM's crop, `size` pixels a side: uint8 [size,size,C]."""
    return resized(image, size, 'adm')
