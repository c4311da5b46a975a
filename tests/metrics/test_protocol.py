"""The protocol of a score says what is comparable with what."""

import json

import numpy as np

from cm_jax.metrics import moments as mo
from cm_jax.metrics.features import ROUNDING
from cm_jax.metrics.protocol import protocol, reference_id, score_name
from cm_jax.types import Extractor
from tests.helpers.moments import features


def record(samples=5000, **changes):
    extractor = Extractor('lenet_digits', 'fd_lenet', 12, None, {}, None, 'abc')
    settings = {
        'seeds': range(3),
        'reference': reference_id('digits', 'train', mo.of(features()), 'beef'),
        'sampler': 'onestep',
        'levels': np.array([80.0]),
        'evaluations': 1,
        'ema': 'raw',
        'step': 0,
        'labels': 'none',
        **changes,
    }
    return protocol(extractor, samples, **settings)


def test_protocol_names_what_is_done_to_images():
    assert record()['extractor'] == {'name': 'lenet_digits', 'checksum': 'abc', 'resize': 'none'}


def test_other_counts_are_other_names():
    extractor = Extractor('inception', 'fid', 2048, None, {}, None, 'abc')
    names = [score_name(extractor, count) for count in (10_000, 50_000)]
    assert names == ['fid_10k', 'fid_50k']


def test_protocol_is_json_and_its_name_carries_the_count():
    found = json.loads(json.dumps(record()))
    assert found['score'] == 'fd_lenet_5k'
    assert found['reference']['count'] == 1000
    assert not found['rank_deficient']
    extractor = Extractor('lenet_digits', 'fd_lenet', 84, None, {}, None, 'abc')
    assert score_name(extractor, 297) == 'fd_lenet_297'


def test_protocol_marks_rank_deficiency_on_either_side():
    assert record(samples=12)['rank_deficient']
    few = reference_id('digits', 'train', mo.of(features(n=12)), 'beef')
    assert record(reference=few)['rank_deficient']


def test_protocol_id_tells_what_is_comparable():
    assert record(step=7, ema='0.999', seeds=[9])['id'] == record()['id']
    other = reference_id('digits', 'test', mo.of(features()), 'beef')
    truncated = record(rounding=ROUNDING['truncate'])
    assert record()['rounding'] == ROUNDING['round'] == 'clip(round(127.5*x + 127.5), 0, 255)'
    others = record(reference=other), record(samples=4000), record(labels='uniform'), truncated
    for changed in others:
        assert changed['id'] != record()['id']
    edited = reference_id('digits', 'train', mo.of(features()), 'feed')
    assert record(reference=edited)['id'] != record()['id']
    rounded = mo.of(features() + 1e-9)  # as another device would have them
    same = reference_id('digits', 'train', rounded, 'beef')
    assert record(reference=same)['id'] == record()['id']
