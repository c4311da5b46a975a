"""Metrics of a set of samples by the names that `evaluate --metrics` takes.

    Inception   other features   what
    fid         fd_lenet         Fréchet distance: in every score, as it needs moments alone
    kid         kd_lenet         kernel distance
    is          is_lenet         inception score, of the classifier behind the features
    pr          pr_lenet         precision, recall, density, coverage

Only the FID Inception's have the short names. DINOv2 has no classifier, hence no inception score.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from cm_jax.errors import UserError, check_name
from cm_jax.metrics.inception_score import inception_score
from cm_jax.metrics.kernel import kernel_distance
from cm_jax.metrics.precision_recall import density_coverage, precision_recall
from cm_jax.types import Extractor

FID = {'fid': 'fd', 'kid': 'kd', 'is': 'is', 'pr': 'pr'}  # name -> kind
PARTS = ('precision', 'recall', 'density', 'coverage')
SUBSET = 1000  # features in a subset of the kernel distance, or as many as there are
SETTINGS = {'kd': {'subsets': 100, 'seed': 0}, 'is': {'splits': 10}, 'pr': {'k': 3, 'k_density': 5}}
LEAST = 10  # samples: the splits of an inception score


def names(extractor: Extractor) -> dict[str, str]:
    """Name -> kind of the metrics in an extractor's features."""
    if extractor.score == 'fid':
        return FID
    space = extractor.score.removeprefix('fd_')
    kinds = [kind for kind in FID.values() if kind != 'is' or extractor.logits]
    return {f'{kind}_{space}': kind for kind in kinds}


def check(
    extractor: Extractor, metrics: Sequence[str], samples: int, reference: int | None = None
) -> None:
    """Raises UserError on an unknown name, and on fewer samples or reference images than needed.

    `reference` None is a number that is not known yet.
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
    """Those of the metrics that need the features themselves, each once."""
    return [name for name in dict.fromkeys(metrics) if names(extractor)[name] != 'fd']


def keys(extractor: Extractor, metrics: Iterable[str]) -> list[str]:
    """The names of the numbers of `measure`: those of 'pr_lenet' are 'precision_lenet' and others."""
    found = []
    for name in beyond(extractor, metrics):
        parts = [f'{part}{name[2:]}' for part in PARTS]
        found += parts if names(extractor)[name] == 'pr' else [name]
    return found


def settings(
    extractor: Extractor, metrics: Iterable[str], samples: int, reference: int
) -> dict[str, dict[str, Any]]:
    """Name -> what it was computed with, to be stored beside the numbers.

    'reference' is the number of reference features: that behind the Fréchet distance can be another,
    in a file that has mu and sigma beside images.
    """
    found = {name: dict(SETTINGS[names(extractor)[name]]) for name in beyond(extractor, metrics)}
    for name, values in found.items():
        if names(extractor)[name] == 'kd':
            values['size'] = min(SUBSET, samples, reference)
        if names(extractor)[name] != 'is':
            values['reference'] = reference
    return found


def measure(
    extractor: Extractor, metrics: Sequence[str], real: np.ndarray, samples: np.ndarray
) -> dict[str, float]:
    """The numbers of `keys`, of features [n, dim] and [m, dim], with the settings of `settings`."""
    found = []
    for name, values in settings(extractor, metrics, len(samples), len(real)).items():
        kind = names(extractor)[name]
        if kind == 'kd':
            subsets = {key: values[key] for key in ('subsets', 'size', 'seed')}
            found.append(kernel_distance(real, samples, **subsets).mean)
        elif kind == 'is':
            logits = np.asarray(jax.jit(extractor.logits)(extractor.params, samples))
            found.append(inception_score(logits, **values).mean)
        else:
            found += precision_recall(real, samples, values['k'])
            found += density_coverage(real, samples, values['k_density'])
    return dict(zip(keys(extractor, metrics), found, strict=True))
