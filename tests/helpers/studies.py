"""Run folders with scores and without weights, as the studies read them."""

import json

from cm_jax import run_folder
from cm_jax.config import to_plain
from cm_jax.metrics.protocol import protocol
from cm_jax.types import Extractor
from tests.helpers.tiny import get_config as tiny

EXTRACTOR = Extractor('lenet_digits', 'fd_lenet', 84, None, {}, None, 'c0ffee')
REFERENCE = {'source': 'digits', 'split': 'train', 'count': 1500, 'rank_deficient': False}
EVALUATIONS = {'onestep': 1, 'multistep@80,1': 2}


def score(value, sampler='onestep', ema='0.5', step=12, samples=5000):
    """A row as `evaluate` stores it."""
    levels = [80.0, 1.0][: EVALUATIONS[sampler]]
    identity = {'sampler': sampler, 'levels': levels, 'evaluations': EVALUATIONS[sampler]}
    record = protocol(
        EXTRACTOR, samples, (1000,), REFERENCE, **identity, ema=ema, step=step, labels='none'
    )
    return {'fd_lenet': value, 'fd_lenet_std': None, 'values': [value], 'protocol': record}


def make_run(folder, rows, seed=0, ema='0.5'):
    """A run folder of tests/helpers/tiny.py with scores and no weights; its last step is 12."""
    config = tiny('ect')
    config.seed, config.sampling.ema = seed, ema
    (folder / 'trajectory' / '12').mkdir(parents=True)
    run_folder.write_config(folder, to_plain(config))
    (folder / 'data_card.json').write_text('{"image_shape": [8, 8, 1], "num_classes": 10}')
    (folder / 'scores.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
