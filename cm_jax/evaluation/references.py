"""Reference statistics in files: ours, and those that EDM, EDM2 and ADM have published.

    ours  mu [d], sigma [d,d] (unbiased, float64), record (JSON: extractor, source, split, count,
          image_shape, checksums of the images and the statistics), and, if asked for, features [n,d]
    EDM   mu, sigma
    EDM2  .pkl: a dict with the parts fid and fd_dinov2, each of mu and sigma
    ADM   mu, sigma, mu_s and sigma_s (spatial features: not read); arr_0, images uint8 [n,H,W,3]
          or activations [n,d], from which statistics are taken where there is no mu

A file of ours is refused for another extractor. The published ones do not say which weights made
them: they are taken for those of the extractor at hand if the number of features fits, and every
protocol says that the file did not tell. Of EDM2's the part is taken that is called as the
extractor's score.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from cm_jax.data import Source
from cm_jax.errors import UserError, check_name, damage_is_one_line, shown
from cm_jax.evaluation.scores import Reference, reference
from cm_jax.files import expanded, sha256, writing
from cm_jax.metrics import moments
from cm_jax.metrics.precision_recall import RealFeatures
from cm_jax.metrics.protocol import extractor_id
from cm_jax.types import Extractor
from cm_jax.weights.read import read_tensors

SUFFIX = '.npz'
EDM2_SUFFIX = '.pkl'  # of files with the statistics of several extractors
STATISTICS = ('mu', 'sigma')
RECORD = 'record'
UNTOLD = 'not told by the file'
IDENTITY = ('source', 'split', 'count', 'checksum', 'rank_deficient')  # protocol.reference_id
KEYS: dict[str, type | tuple[type, ...]] = {  # of a record -> of what type it is
    'extractor': dict,
    'image_shape': (list, type(None)),
    'statistics': str,
    'source': str,
    'split': str,
    'count': int,
    'checksum': str,
    'rank_deficient': bool,
}
MAX_COUNT = 10**12  # images of a reference
ADM = 'https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches'
PUBLISHED = {  # where the files are that the papers compared with, by their names
    'cifar10-32x32.npz': 'https://nvlabs-fi-cdn.nvidia.com/edm/fid-refs/cifar10-32x32.npz',
    'imagenet-64x64.npz': 'https://nvlabs-fi-cdn.nvidia.com/edm/fid-refs/imagenet-64x64.npz',
    'img64.pkl': 'https://nvlabs-fi-cdn.nvidia.com/edm2/dataset-refs/img64.pkl',
    'VIRTUAL_imagenet64_labeled.npz': f'{ADM}/imagenet/64/VIRTUAL_imagenet64_labeled.npz',
    'VIRTUAL_lsun_bedroom256.npz': f'{ADM}/lsun/bedroom/VIRTUAL_lsun_bedroom256.npz',
    'VIRTUAL_lsun_cat256.npz': f'{ADM}/lsun/cat/VIRTUAL_lsun_cat256.npz',
}
Arrays = Mapping[str, np.ndarray]


def save(path: pathlib.Path, statistics: Reference, extractor: Extractor) -> None:
    """Writes a reference, whole or not at all, with its features if it has them."""
    arrays: dict[str, Any] = {
        'mu': statistics.moments.mean,
        'sigma': moments.covariance(statistics.moments),
    }
    record = {
        'extractor': extractor_id(extractor),
        'image_shape': statistics.image_shape,
        'statistics': moments.checksum(statistics.moments.count, *arrays.values()),
        **statistics.id,
    }
    if statistics.features is not None:
        arrays['features'] = statistics.features
    arrays[RECORD] = json.dumps(record)
    with writing(path) as file:
        np.savez(file, **arrays)


def load(path: str, extractor: Extractor, batch_size: int, keep: bool = False) -> Reference:
    """Returns the reference in a file, for an extractor.

    With `keep` the features are read too, which some metrics need. `batch_size` is for the images in a
    file that holds images. Raises UserError, one line, on a file that is missing, damaged or holds no
    statistics, of another extractor or another number of features, or without features where they are
    needed.
    """
    place = pathlib.Path(expanded(path))
    if not place.is_file():
        published = PUBLISHED.get(place.name)
        source = f'; it is published at {published}' if published else ''
        raise UserError(f'no file of reference statistics {path}{source}')
    arrays, metadata = read_tensors(place)
    if metadata['format'] != 'npz' and not set(STATISTICS) <= arrays.keys():
        return _published(path, _part(path, arrays, extractor), extractor, batch_size, keep)
    if RECORD in metadata:
        return _ours(path, arrays, _record(path, metadata[RECORD]), extractor, keep)
    return _published(path, arrays, extractor, batch_size, keep)


def _part(path: str, arrays: Arrays, extractor: Extractor) -> Arrays:
    """Returns mu and sigma of the part of EDM2's file that is called as the extractor's score.

    Raises UserError if the file has no such part.
    """
    parts = {
        name: {key: arrays[f'{name}.{key}'] for key in STATISTICS}
        for name in dict.fromkeys(name.rpartition('.')[0] for name in arrays)
        if {f'{name}.{key}' for key in STATISTICS} <= arrays.keys()
    }
    if not parts:
        some = ', '.join(sorted(arrays)[:4])
        raise UserError(f'{path} holds no reference statistics mu and sigma: it holds {some}')
    check_name(f'statistics in {path} for the extractor {extractor.name!r}', extractor.score, parts)
    return parts[extractor.score]


def _record(path: str, text: str) -> dict[str, Any]:
    """Returns the record of a file of ours. Raises UserError if it is not whole."""
    try:
        record = json.loads(text)
        wrong = [key for key, kind in KEYS.items() if not isinstance(record.get(key), kind)]
    except (AttributeError, RecursionError, TypeError, ValueError):
        wrong = [RECORD]
    if wrong:
        raise UserError(f'{path} is no file of reference statistics: it lacks {wrong[0]}')
    shape = record['image_shape']
    if shape is not None and (len(shape) != 3 or any(type(n) is not int for n in shape)):
        raise UserError(
            f'{path} has the image_shape {shown(shape)}; legal: [height, width, channels]'
        )
    if not 2 <= record['count'] <= MAX_COUNT:
        raise UserError(f'{path} is of {record["count"]} images; legal: 2 to {MAX_COUNT:,}')
    return record


def _ours(
    path: str, arrays: Arrays, record: Mapping[str, Any], extractor: Extractor, keep: bool
) -> Reference:
    """Returns the reference in a file that `save` wrote.

    The extractor is checked first: of another one, another number of features is no surprise.
    """
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
    shape = record['image_shape']
    return Reference(
        moments=moments.of_covariance(mean, matrix, record['count']),
        id={key: record[key] for key in IDENTITY},
        real=_stored_features(path, arrays, record['count'], extractor) if keep else None,
        image_shape=None if shape is None else tuple(shape),
    )


def _stored_features(path: str, arrays: Arrays, count: int, extractor: Extractor) -> RealFeatures:
    """Returns the features in a file of ours. Raises UserError if it has none, or damaged ones."""
    if 'features' not in arrays:
        raise UserError(
            f'{path} holds no features, which these metrics need: write it with --features'
        )
    features = arrays['features']
    if features.shape != (count, extractor.dim) or features.dtype.kind != 'f':
        raise UserError(
            f'{path} is damaged: its features are {features.dtype} {features.shape}, not floats '
            f'{(count, extractor.dim)}'
        )
    if not np.isfinite(features).all():
        raise UserError(f'{path} has features that are not finite')
    return RealFeatures(features)


def _published(
    path: str, arrays: Arrays, extractor: Extractor, batch_size: int, keep: bool
) -> Reference:
    """Returns the reference in a published file: mu and sigma, or the statistics of arr_0.

    The features are those of arr_0.
    """
    raw, has_statistics = arrays.get('arr_0'), set(STATISTICS) <= arrays.keys()
    if raw is None and not has_statistics:
        some = ', '.join(sorted(arrays)[:4])
        raise UserError(f'{path} holds no reference statistics mu and sigma: it holds {some}')
    if raw is None and keep:
        raise UserError(f'{path} holds mu and sigma alone, and these metrics need features')
    count, real = None, None
    if raw is not None and (keep or not has_statistics):
        of_raw = _of_raw(path, raw, extractor, batch_size)
        total, count, real = of_raw.moments, of_raw.moments.count, of_raw.real
        is_deficient = moments.rank_deficient(total)
    if has_statistics:
        mean, matrix = _statistics(path, arrays, extractor)
        total, count = moments.of_covariance(mean, matrix), None
        with damage_is_one_line(path, 'has a sigma without eigenvalues'):
            is_deficient = bool(np.linalg.matrix_rank(matrix, hermitian=True) < len(mean))
    identity = {
        'source': f'file {pathlib.Path(path).name}',
        'split': UNTOLD,
        'extractor': UNTOLD,
        'count': count,
        'checksum': sha256(pathlib.Path(expanded(path))),
        'rank_deficient': is_deficient,
    }
    return Reference(
        moments=total,
        id=identity,
        real=real if keep else None,
        image_shape=raw.shape[1:] if raw is not None and raw.ndim == 4 else None,
    )


def _of_raw(path: str, raw: np.ndarray, extractor: Extractor, batch_size: int) -> Reference:
    """Returns the moments and features of images or activations, without an identity."""
    if raw.dtype == np.uint8 and raw.ndim == 4 and raw.shape[-1] in (1, 3) and raw.size:

        def get(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return raw[indices], np.zeros(len(indices), np.int32)

        images = Source(
            name=path,
            split='arr_0',
            count=len(raw),
            image_shape=raw.shape[1:],
            num_classes=0,
            get=get,
        )
        with damage_is_one_line(path, f'has images that {extractor.name} does not take'):
            return reference(images, extractor, batch_size, keep=True)
    if raw.ndim != 2 or raw.dtype.kind != 'f' or len(raw) < 2:
        raise UserError(
            f'{path} has arr_0 of {raw.dtype} {raw.shape}; legal: images uint8 [n,H,W,3] or '
            'activations [n,d]'
        )
    _check_size(path, raw.shape[1], extractor)
    if not np.isfinite(raw).all():
        raise UserError(f'{path} has activations that are not finite')
    features = RealFeatures(np.asarray(raw, np.float32))
    return Reference(moments=moments.of(raw), id={}, real=features)


def _statistics(path: str, arrays: Arrays, extractor: Extractor) -> tuple[np.ndarray, np.ndarray]:
    """Returns mu [d] and sigma [d,d] in float64. Raises UserError if they are no statistics."""
    for name in STATISTICS:
        if name not in arrays:
            raise UserError(f'{path} is no file of reference statistics: it lacks {name}')
    mean, matrix = (np.asarray(arrays[name], np.float64) for name in STATISTICS)
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
    """Raises UserError unless the file has as many features as the extractor."""
    if dim != extractor.dim:
        raise UserError(
            f'the reference {path} is of {dim} features, and the extractor {extractor.name} has '
            f'{extractor.dim}'
        )


def is_file(name: str) -> bool:
    """Returns whether `evaluation.reference` names a file, and not a split."""
    return name.endswith((SUFFIX, EDM2_SUFFIX))


def is_of_one_extractor(name: str) -> bool:
    """Returns whether `evaluation.reference` names a file with the statistics of one extractor."""
    return name.endswith(SUFFIX)


def describe(identity: Mapping[str, Any]) -> str:
    """Returns a reference's name for people: 'digits, split train, 1,500 images'."""
    count = identity['count']
    counted = 'the file does not tell of how many images' if count is None else f'{count:,} images'
    if 'extractor' in identity:
        return f'{identity["source"]}, {counted}, nor by which extractor'
    return f'{identity["source"]}, split {identity["split"]}, {counted}'
