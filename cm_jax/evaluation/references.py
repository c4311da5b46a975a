"""Reference statistics in files: ours, and those that EDM and ADM have published.

    ours  mu [d], sigma [d,d] (unbiased, float64), record (JSON: extractor, source, split, count,
          image_shape, checksums of the images and the statistics), and, if asked for, features [n,d]
    EDM   mu, sigma
    ADM   mu, sigma, mu_s and sigma_s (spatial features: not read); arr_0, images uint8 [n,H,W,3]
          or activations [n,d], from which statistics are taken where there is no mu

A file of ours is refused for another extractor. The published ones do not say of what they are: they
are taken for those of the extractor at hand, if the number of features fits, and every protocol says
so.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from cm_jax.data import Source
from cm_jax.errors import UserError
from cm_jax.evaluation.scores import Reference, reference
from cm_jax.files import sha256
from cm_jax.metrics import moments
from cm_jax.metrics.protocol import extractor_id
from cm_jax.types import Extractor
from cm_jax.weights.read import read_tensors

SUFFIX = '.npz'
RECORD = 'record'
UNTOLD = 'not told by the file'
IDENTITY = ('source', 'split', 'count', 'checksum', 'rank_deficient')  # protocol.reference_id
KEYS = ('extractor', 'image_shape', 'statistics', *IDENTITY)


def save(path: pathlib.Path, found: Reference, extractor: Extractor) -> None:
    """Writes a reference, whole or not at all; with its features, if it has them."""
    arrays = {'mu': found.moments.mean, 'sigma': moments.covariance(found.moments)}
    record = {
        'extractor': extractor_id(extractor),
        'image_shape': found.image_shape,
        'statistics': moments.checksum(found.moments.count, *arrays.values()),
        **found.id,
    }
    if found.features is not None:
        arrays['features'] = found.features
    beside = path.with_name(f'{path.name}.writing')
    with beside.open('wb') as file:
        np.savez(file, **arrays, **{RECORD: json.dumps(record)})
    beside.replace(path)


def load(path: str, extractor: Extractor, batch_size: int, keep: bool = False) -> Reference:
    """The reference in a file, for an extractor; `keep`: with the features, which some metrics need.

    `batch_size` is of the images in a file that holds images. Raises UserError, one line, on a file
    that is missing, damaged or holds no statistics, of another extractor or another number of
    features, or without features where they are needed.
    """
    place = pathlib.Path(path).expanduser()
    if not place.is_file():
        raise UserError(f'no file of reference statistics {path}')
    arrays, metadata = read_tensors(place)
    if RECORD in metadata:
        return _ours(path, arrays, _record(path, metadata[RECORD]), extractor, keep)
    return _published(path, arrays, extractor, batch_size, keep)


def _record(path: str, text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
        missing = [key for key in KEYS if key not in record]
    except (ValueError, TypeError):
        missing = [RECORD]
    if missing:
        raise UserError(f'{path} is no file of reference statistics: it lacks {missing[0]}')
    return record


def _ours(
    path: str, arrays: Mapping, record: Mapping[str, Any], extractor: Extractor, keep: bool
) -> Reference:
    """Checks the extractor first: another number of features is then no news."""
    theirs, ours = record['extractor'], extractor_id(extractor)
    for key, value in ours.items():
        if theirs.get(key) != value:
            raise UserError(
                f'the reference {path} is of another extractor: {key} {theirs.get(key)!r} there, '
                f'{value!r} here'
            )
    mean, matrix = _statistics(path, arrays, extractor)
    if moments.checksum(record['count'], mean, matrix) != record['statistics']:
        raise UserError(f'{path} is damaged: its statistics have not the checksum in its record')
    identity = {key: record[key] for key in IDENTITY}
    features = arrays.get('features')
    if keep and features is None:
        raise UserError(
            f'{path} holds no features, which these metrics need: write it with --features'
        )
    if keep and features.shape != (record['count'], extractor.dim):
        raise UserError(
            f'{path} is damaged: its features are {features.shape}, not '
            f'{(record["count"], extractor.dim)}'
        )
    total = moments.of_covariance(mean, matrix, record['count'])
    return Reference(total, identity, features if keep else None, tuple(record['image_shape']))


def _published(
    path: str, arrays: Mapping, extractor: Extractor, batch_size: int, keep: bool
) -> Reference:
    """mu and sigma, or what arr_0 gives; the features are those of arr_0."""
    raw = arrays.get('arr_0')
    if raw is None and not {'mu', 'sigma'} <= arrays.keys():
        some = ', '.join(sorted(arrays)[:4])
        raise UserError(f'{path} holds no reference statistics mu and sigma: it holds {some}')
    if keep and raw is None:
        raise UserError(f'{path} holds mu and sigma alone, and these metrics need features')
    if 'mu' in arrays and 'sigma' in arrays:
        mean, matrix = _statistics(path, arrays, extractor)
        total, count = moments.of_covariance(mean, matrix), None
        deficient = bool(np.linalg.matrix_rank(matrix, hermitian=True) < len(mean))
        features = _of_raw(path, raw, extractor, batch_size).features if keep else None
    else:
        found = _of_raw(path, raw, extractor, batch_size)
        total, count, features = found.moments, found.moments.count, found.features
        deficient = moments.rank_deficient(total)
    identity = {
        'source': f'file {pathlib.Path(path).name}',
        'split': UNTOLD,
        'extractor': UNTOLD,
        'count': count,
        'checksum': sha256(pathlib.Path(path).expanduser()),
        'rank_deficient': deficient,
    }
    shape = tuple(raw.shape[1:]) if raw is not None and raw.ndim == 4 else None
    return Reference(total, identity, features if keep else None, shape)


def _of_raw(path: str, raw: np.ndarray, extractor: Extractor, batch_size: int) -> Reference:
    """Moments and features of images or activations."""
    if raw.dtype == np.uint8 and raw.ndim == 4:

        def get(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return raw[indices], np.zeros(len(indices), np.int32)

        images = Source(path, 'arr_0', len(raw), raw.shape[1:], 0, get)
        return reference(images, extractor, batch_size, keep=True)
    if raw.ndim != 2 or raw.dtype.kind != 'f' or len(raw) < 2:
        raise UserError(
            f'{path} has arr_0 of {raw.dtype} {raw.shape}; legal: images uint8 [n,H,W,3] or '
            'activations [n,d]'
        )
    _check_size(path, raw.shape[1], extractor)
    if not np.isfinite(raw).all():
        raise UserError(f'{path} has activations that are not finite')
    return Reference(moments.of(raw), {}, np.asarray(raw, np.float32))


def _statistics(path: str, arrays: Mapping, extractor: Extractor) -> tuple[np.ndarray, np.ndarray]:
    """mu [d] and sigma [d,d], float64, checked."""
    for name in ('mu', 'sigma'):
        if name not in arrays:
            raise UserError(f'{path} is no file of reference statistics: it lacks {name}')
    mean, matrix = (np.asarray(arrays[name], np.float64) for name in ('mu', 'sigma'))
    if mean.ndim != 1 or matrix.shape != 2 * mean.shape:
        raise UserError(
            f'{path} has mu of shape {mean.shape} and sigma of {matrix.shape}; legal: [d] and [d,d]'
        )
    _check_size(path, len(mean), extractor)
    if not (np.isfinite(mean).all() and np.isfinite(matrix).all()):
        raise UserError(f'{path} has statistics that are not finite')
    scale = np.abs(matrix).max(initial=0)
    if np.abs(matrix - matrix.T).max(initial=0) > 1e-6 * scale or (np.diag(matrix) < 0).any():
        raise UserError(
            f'{path} has a sigma that is no covariance: it is not symmetric, or negative'
        )
    return mean, matrix


def _check_size(path: str, dim: int, extractor: Extractor) -> None:
    if dim != extractor.dim:
        raise UserError(
            f'the reference {path} is of {dim} features, and the extractor {extractor.name} has '
            f'{extractor.dim}'
        )


def is_file(name: str) -> bool:
    """Whether `evaluation.reference` names a file, not a split."""
    return name.endswith(SUFFIX)


def describe(identity: Mapping[str, Any]) -> str:
    """A reference's name for terminals and reports: 'digits, split train, 1,500 images'."""
    count = identity['count']
    counted = 'the file does not tell of how many images' if count is None else f'{count:,} images'
    if 'extractor' in identity:
        return f'{identity["source"]}, {counted}, nor by which extractor'
    return f'{identity["source"]}, split {identity["split"]}, {counted}'
