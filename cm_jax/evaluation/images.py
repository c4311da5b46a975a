"""evaluate --save_images=FOLDER: the samples behind a score, a PNG each.

The folder of a score has its name only once all of its images are there, with the protocols of the
score in the file RECORD. An evaluation that was stopped can therefore be started again.
"""

import contextlib
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
from etils import epath

from cm_jax.errors import UserError
from cm_jax.evaluation.scores import SaveImages
from cm_jax.files import WRITING, expanded, read_json
from cm_jax.run_folder import sampler_file_label, weights_file_label, write_json
from cm_jax.sharding import is_primary

RECORD = 'protocols.json'


def folder(root: str, step: int, ema: str, spec: str) -> pathlib.Path:
    """Returns the folder of one score below `root`.

    Raises UserError if it is there and not of a score.
    """
    name = f'step{step}_{weights_file_label(ema)}_{sampler_file_label(spec)}'
    place = pathlib.Path(expanded(root)) / name
    if place.exists() and any(place.iterdir()) and not (place / RECORD).exists():
        raise UserError(f'--save_images: {place} is not empty; choose another folder')
    return place


def are_saved(place: pathlib.Path, protocols: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether a folder holds the images of a score, by its protocols.

    Raises UserError if it holds those of another.
    """
    record = epath.Path(place / RECORD)
    if not record.exists():
        return False
    if read_json(record, f'remove {place}') != json.loads(json.dumps(protocols)):
        raise UserError(
            f'--save_images: {place} has the images of another protocol; choose another folder'
        )
    return True


@contextlib.contextmanager
def saving(place: pathlib.Path, protocols: Sequence[Mapping[str, Any]]) -> Iterator[SaveImages]:
    """Yields `save(seed, first, images)`, which writes `seed<seed>/<index>.png`, on one process.

    The folder gets its name when the body of the `with` statement ends. PNG loses nothing: the score
    can be computed again from the pictures.
    """
    unfinished = place.with_name(f'{place.name}{WRITING}')
    if is_primary():
        shutil.rmtree(unfinished, ignore_errors=True)  # of an evaluation that was stopped
        unfinished.mkdir(parents=True)

    def save(seed: int, first: int, images: np.ndarray) -> None:
        if not is_primary():
            return
        inside = unfinished / f'seed{seed}'
        inside.mkdir(exist_ok=True)
        for index, image in enumerate(images, first):
            pixels = image[..., 0] if image.shape[-1] == 1 else image
            try:
                PIL.Image.fromarray(pixels).save(inside / f'{index:06d}.png')
            except OSError as error:
                error.filename = error.filename or str(inside)  # a full disk does not say where
                raise

    yield save
    if is_primary():
        write_json(epath.Path(unfinished / RECORD), protocols)
        unfinished.rename(place)
