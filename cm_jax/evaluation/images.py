"""evaluate --save_images=FOLDER: the samples behind a score, a PNG each."""

import pathlib

import numpy as np
import PIL.Image

from cm_jax.errors import UserError
from cm_jax.evaluation.scores import SaveImages
from cm_jax.run_folder import sampler_file_label, weights_file_label
from cm_jax.sharding import is_primary


def folder(root: str, step: int, ema: str, spec: str) -> pathlib.Path:
    """Returns the folder of one score below `root`. Raises UserError if it is not empty."""
    name = f'step{step}_{weights_file_label(ema)}_{sampler_file_label(spec)}'
    place = pathlib.Path(root).expanduser() / name
    if place.exists() and any(place.iterdir()):
        raise UserError(f'--save_images: {place} is not empty; choose another folder')
    return place


def writer(place: pathlib.Path) -> SaveImages:
    """Returns `save(seed, first, images)`, which writes `seed<seed>/<index>.png`, on one process.

    PNG loses nothing: the score can be computed again from the pictures.
    """

    def save(seed: int, first: int, images: np.ndarray) -> None:
        if not is_primary():
            return
        inside = place / f'seed{seed}'
        inside.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images, first):
            pixels = image[..., 0] if image.shape[-1] == 1 else image
            PIL.Image.fromarray(pixels).save(inside / f'{index:06d}.png')

    return save
