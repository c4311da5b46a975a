"""What `evaluate` prints: what its scores have in common, and a line for each."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cm_jax.evaluation.references import describe
from cm_jax.models import lenet
from cm_jax.run_folder import weights_label
from cm_jax.terminal import plus_minus
from cm_jax.types import Extractor


def weights_line(step: int, ema: str) -> str:
    """Returns the beginning of a line of the terminal: which weights it is about."""
    return f'step {step}  {weights_label(ema):<10}'


def values(row: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    """Yields '12.3456 ± 0.1234', 'kid 0.001235 ± 0.0001': the line names the first already."""
    for name in names:
        label, form = ('', '.4f') if name == names[0] else (f'{name} ', '.4g')
        value = math.nan if row[name] is None else row[name]
        yield label + plus_minus(value, row[f'{name}_std'], form)


def header(protocol: Mapping[str, Any], extractor: Extractor, channels: int) -> str:
    """Returns what all scores of a call have in common, and what they are not good for."""
    text = (
        f'protocol {protocol["id"]}: {protocol["score"]}, {extractor.name} '
        f'{extractor.checksum[:8]} ({extractor.resize}), {protocol["samples"]:,} samples a seed, '
        f'labels {protocol["labels"]}; reference {describe(protocol["reference"])}'
    )
    if protocol['rank_deficient']:
        text += (
            f'\nwarning: too few samples or reference images for {extractor.dim} features: the '
            'covariance is singular, and the distance far too high to compare with any other protocol'
        )
    if extractor.name in lenet.names() and channels != 1:
        text += (
            f'\nwarning: {extractor.name} was trained on small grey pictures; for those of {channels} '
            'channels --extractor=inception gives the FID'
        )
    return text


def score_line(row: Mapping[str, Any], names: Sequence[str], cost: str) -> str:
    """Returns a row of scores for the terminal."""
    protocol = row['protocol']
    return (
        f'{weights_line(protocol["step"], protocol["ema"])}  {protocol["sampler"]:<18} '
        f'{protocol["evaluations"]:>3} evaluations  {protocol["score"]} '
        f'{"  ".join(values(row, names))}  ({cost})'
    )
