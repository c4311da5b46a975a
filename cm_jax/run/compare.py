"""In what two runs differ."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cm_jax.config import flatten
from cm_jax.run.summary import main_score
from cm_jax.run.tables import Table
from cm_jax.run_folder import weights_label

if TYPE_CHECKING:
    from cm_jax.run import Run

ABSENT = 'absent'


def compare(run: 'Run', other: 'Run') -> Table:
    """Returns a row for each thing that differs; see `Run.compare`."""
    described, others = _described(run), _described(other)
    keys = [*described, *(key for key in others if key not in described)]
    rows = (
        {'what': key, 'this': described.get(key, ABSENT), 'other': others.get(key, ABSENT)}
        for key in keys
        if described.get(key, ABSENT) != others.get(key, ABSENT)
    )
    return Table(rows, note=f'this: {run.workdir}; other: {other.workdir}')


def _described(run: 'Run') -> dict[str, Any]:
    """Returns what is compared: config, data, network, steps, averages, and the latest scores."""
    plain = json.loads(json.dumps(flatten(run.config.to_dict())))
    found = {f'config.{key}': value for key, value in plain.items()}
    found |= {f'data.{key}': value for key, value in run.card.items()}
    found['parameters'] = run.parameter_count
    found['snapshots'] = run.steps()
    if run.steps():
        found['averages'] = ', '.join(run.emas()) or 'none'
    return found | {_measured(row): row.get(main_score(row)) for row in run.scores()}


def _measured(row: Mapping[str, Any]) -> str:
    """Returns what a row of scores.jsonl has measured; equal words are of one protocol."""
    protocol = row['protocol']
    weights = f'{weights_label(protocol["ema"])}, step {protocol["step"]}'
    return f'{protocol["score"]} by {protocol["sampler"]}, {weights} (protocol {protocol["id"]})'
