"""The curve of the scores over the steps."""

import json
import math

import numpy as np
import pytest
from etils import epath

from cm_jax.evaluation import curve
from cm_jax.files import append_json_line


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


def test_a_curve_with_a_score_that_is_not_finite_is_drawn(folder):
    protocol = {'ema': '', 'sampler': 'onestep', 'evaluations': 1, 'samples': 5, 'seeds': [0]}
    protocol |= {'id': 'x', 'score': 'fd_5'}
    rows = [
        append_json_line(
            folder / 'rows.jsonl', {'fd': value, 'fd_std': None, 'protocol': protocol | {'step': i}}
        )
        for i, value in enumerate((2.0, math.nan, 1.0))
    ]
    assert curve.write(folder, rows, 'fd').stat().length > 1000
    found = json.loads((folder / 'curve.json').read_text())
    assert [point['value'] for point in found] == [2.0, None, 1.0]
    assert np.isfinite([point['step'] for point in found]).all()
