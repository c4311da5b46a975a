"""The record stored beside every score: what was measured, and against what."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from cm_jax.metrics.features import ROUNDING
from cm_jax.metrics.moments import Moments, rank_deficient
from cm_jax.types import Extractor

# What has to agree for two scores to be comparable; the rest says which samples were scored.
COMPARABLE = ('score', 'extractor', 'reference', 'rounding', 'samples', 'labels')


def score_name(extractor: Extractor, samples: int) -> str:
    """'fd_lenet_5k': a distance falls with the number of samples, so the name carries it."""
    count = f'{samples // 1000}k' if samples and samples % 1000 == 0 else str(samples)
    return f'{extractor.score}_{count}'


def extractor_id(extractor: Extractor) -> dict[str, str]:
    """Names an extractor, for `protocol`: the weights, and what is done to images before them."""
    return {
        'name': extractor.name,
        'checksum': extractor.checksum,
        'resize': extractor.resize,
    }


def reference_id(source: str, split: str, moments: Moments, checksum: str) -> dict[str, Any]:
    """Names the moments of a reference set, for `protocol`.

    `checksum` is that of the images, and not of the moments: those differ in their last digits with
    the batch size and the device, which no protocol depends on.
    """
    return {
        'source': source,
        'split': split,
        'count': moments.count,
        'checksum': checksum,
        'rank_deficient': rank_deficient(moments),
    }


def protocol(
    extractor: Extractor,
    samples: int,
    seeds: Sequence[int],
    reference: dict[str, Any],
    *,
    sampler: str,
    levels: Sequence[float],
    evaluations: int,
    ema: str,
    step: int,
    labels: str,
    rounding: str = ROUNDING,
) -> dict[str, Any]:
    """The JSON-able record of one score.

    `seeds` are those the noise was drawn from; `reference` is a `reference_id`; `levels` are the
    sampler's noise levels and `evaluations` its network evaluations per sample; `ema` names the
    weights ('', or which average) at `step`; `labels` is the policy ('none', 'index modulo 10',
    'uniform over 10'). `rank_deficient` marks fewer samples than the feature space has dimensions, on
    either side. Scores with the same `id` are comparable: it is a hash of COMPARABLE.
    """
    record = {
        'score': score_name(extractor, samples),
        'extractor': extractor_id(extractor),
        'samples': samples,
        'seeds': [int(seed) for seed in seeds],
        'reference': reference,
        'rank_deficient': samples <= extractor.dim or reference['rank_deficient'],
        'rounding': rounding,
        'sampler': sampler,
        'levels': [float(level) for level in levels],
        'evaluations': evaluations,
        'ema': ema,
        'step': step,
        'labels': labels,
    }
    text = json.dumps({key: record[key] for key in COMPARABLE}, sort_keys=True)
    return {'id': hashlib.sha256(text.encode()).hexdigest()[:12], **record}
