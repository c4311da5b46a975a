"""The protocol of a score: the record, stored beside it, of what was measured and how."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from cm_jax.metrics.features import ROUNDING
from cm_jax.metrics.moments import Moments, rank_deficient
from cm_jax.types import Extractor

# Two scores are comparable if these entries of their protocols agree. The other entries say which
# samples were scored.
COMPARABLE = ('score', 'extractor', 'reference', 'rounding', 'samples', 'labels')


def score_name(extractor: Extractor, samples: int) -> str:
    """Returns the name of a score with its number of samples, as 'fd_lenet_5k'.

    The number is in the name as a Fréchet distance falls with it.
    """
    count = f'{samples // 1000}k' if samples and samples % 1000 == 0 else str(samples)
    return f'{extractor.score}_{count}'


def extractor_id(extractor: Extractor) -> dict[str, str]:
    """Returns what identifies an extractor in a `protocol`: its weights, and how it resizes images."""
    return {
        'name': extractor.name,
        'checksum': extractor.checksum,
        'resize': extractor.resize,
    }


def reference_id(source: str, split: str, moments: Moments, checksum: str) -> dict[str, Any]:
    """Returns what identifies a reference set in a `protocol`.

    `checksum` is that of the images and not of the moments. Moments differ in their last digits
    between batch sizes and devices, and a protocol must not depend on those.
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
    rounding: str = ROUNDING['round'],
) -> dict[str, Any]:
    """Returns the protocol of one score, which can be written as JSON.

        samples      the number of samples
        seeds        the seeds that their noise was drawn from
        reference    a `reference_id`
        levels       the noise levels of the sampler
        evaluations  the network evaluations of the sampler for each sample
        ema          the name of the average of the weights; '' for the weights themselves
        step         the training step of the weights
        rounding     how the samples became bytes, one of the texts of metrics.features.ROUNDING
        labels       how classes were chosen: 'none', 'index modulo 10', 'uniform over 10'

    The entry `rank_deficient` is True if the samples or the reference images are not more than the
    features have dimensions. The entry `id` is a hash of the entries COMPARABLE, so scores with the
    same `id` are comparable.
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
