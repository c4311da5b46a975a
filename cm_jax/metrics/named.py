"""Metrics of a set of samples by the names that `evaluate --metrics` takes.

    Inception   other features   kind
    fid         fd_lenet         Fréchet distance, which is part of every score as it needs moments only
    kid         kd_lenet         kernel distance
    is          is_lenet         inception score of the classifier that the features come from
    pr          pr_lenet         precision, recall, density, coverage

The short names are for the features of the FID Inception network. DINOv2, VGG-16 and the pixels have no
classifier, hence no inception score.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from cm_jax.errors import UserError, check_name
from cm_jax.metrics.inception_score import inception_score
from cm_jax.metrics.kernel import kernel_distance
from cm_jax.metrics.precision_recall import RealFeatures, density_coverage, precision_recall
from cm_jax.types import Extractor

FID = {'fid': 'fd', 'kid': 'kd', 'is': 'is', 'pr': 'pr'}  # name -> kind
PARTS = ('precision', 'recall', 'density', 'coverage')
SUBSET = 1000  # features in a subset of the kernel distance; all of them if there are fewer
SETTINGS: dict[str, dict[str, int]] = {
    'kd': {'subsets': 100, 'seed': 0},
    'is': {'splits': 10},
    'pr': {'k': 3, 'k_density': 5},
}
LEAST = 10  # the least number of samples: the splits of an inception score


def names(extractor: Extractor) -> dict[str, str]:
    """Returns the metrics of an extractor's features: from the name to the kind."""
    if extractor.score == 'fid':
        return FID
    space = extractor.score.removeprefix('fd_')
    kinds = [kind for kind in FID.values() if kind != 'is' or extractor.logits]
    return {f'{kind}_{space}': kind for kind in kinds}


def check(
    extractor: Extractor, metrics: Sequence[str], samples: int, reference: int | None = None
) -> None:
    """Raises UserError on an unknown name, and if there are too few samples or reference images.

    `samples` and `reference` are their numbers. `reference` None means that its number is not known
    yet.
    """
    reference = samples if reference is None else reference
    for name in metrics:
        check_name(f'metric of the extractor {extractor.name}', name, names(extractor))
    if beyond(extractor, metrics) and min(samples, reference) < LEAST:
        raise UserError(
            f'metrics {", ".join(metrics)} need at least {LEAST} samples and reference images, got '
            f'{samples} and {reference}'
        )


def beyond(extractor: Extractor, metrics: Iterable[str]) -> list[str]:
    """Returns those of the metrics that need the features and not only moments, each once."""
    return [name for name in dict.fromkeys(metrics) if names(extractor)[name] != 'fd']


def keys(extractor: Extractor, metrics: Iterable[str]) -> list[str]:
    """Returns the names of the numbers that `measure` returns.

    'pr_lenet' has four: 'precision_lenet', 'recall_lenet', 'density_lenet' and 'coverage_lenet'. Every
    other metric has one number of its own name.
    """
    number_names = []
    for name in beyond(extractor, metrics):
        parts = [f'{part}{name[2:]}' for part in PARTS]
        number_names += parts if names(extractor)[name] == 'pr' else [name]
    return number_names


def settings(
    extractor: Extractor, metrics: Iterable[str], samples: int, reference: int
) -> dict[str, dict[str, Any]]:
    """Returns the settings of each metric by its name, to be stored beside the numbers.

    'reference' is the number of reference features. It can differ from the number of images that the
    Fréchet distance refers to, if a reference file has mu and sigma beside images.
    """
    settings_of = {
        name: dict(SETTINGS[names(extractor)[name]]) for name in beyond(extractor, metrics)
    }
    for name, values in settings_of.items():
        if names(extractor)[name] == 'kd':
            values['size'] = min(SUBSET, samples, reference)
        if names(extractor)[name] != 'is':
            values['reference'] = reference
    return settings_of


def measure(
    extractor: Extractor, metrics: Sequence[str], real: RealFeatures, samples: np.ndarray
) -> dict[str, float]:
    """Returns the numbers of the metrics by the names of `keys`, computed with `settings`.

    `real` and `samples` are features [n, dim] and [m, dim]. A metric of moments only is left out.
    """
    numbers: list[float] = []
    for name, values in settings(extractor, metrics, len(samples), len(real.array)).items():
        kind = names(extractor)[name]
        if kind == 'kd':
            subsets = {key: values[key] for key in ('subsets', 'size', 'seed')}
            numbers.append(kernel_distance(real.array, samples, **subsets).mean)
        elif kind == 'is':
            numbers.append(inception_score(_logits(extractor, samples), **values).mean)
        else:
            numbers += precision_recall(real, samples, values['k'])
            numbers += density_coverage(real, samples, values['k_density'])
    return dict(zip(keys(extractor, metrics), numbers, strict=True))


def _logits(extractor: Extractor, features: np.ndarray) -> np.ndarray:
    """Returns the logits [n, classes] of features [n, dim]. Raises ValueError without a classifier."""
    if extractor.logits is None:
        raise ValueError(f'the extractor {extractor.name} has no classifier for an inception score')
    return np.asarray(jax.jit(extractor.logits)(extractor.params, features))
