"""What pages say in words of a run: its data, network and cost, how scores were measured, and where."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from cm_jax.evaluation.references import describe
from cm_jax.run import Run


def data(card: Mapping[str, Any]) -> str:
    """Returns what the data of a run was, by its data card."""
    split = f', split {card["split"]}' if card.get('split') else ''
    images = f'{card["count"]:,} images' if 'count' in card else 'images'
    classes = f', {card["num_classes"]} classes' if card['num_classes'] else ''
    shape = '×'.join(map(str, card['image_shape']))
    return f'{card.get("name", "unknown")}{split}: {images} of {shape}{classes}'


def cost(run: Run) -> str:
    """Returns how many images a training run saw, and how fast; for no training, that."""
    rows = run.metrics()
    if not rows:
        return 'no row of metrics yet'
    last, speeds = rows[-1], [row['images_per_s'] for row in rows if 'images_per_s' in row]
    images = f'{last["images"]:,} images' if 'images' in last else 'images'
    speed = f', {np.median(speeds):,.0f} images/s' if speeds else ''
    return f'{images} seen in training ({last["step"]:,} steps of {run.config.batch_size}){speed}'


def environment() -> str:
    """Returns the versions and the devices that made the page."""
    return (
        f'cm_jax {importlib.metadata.version("cm_jax")}, JAX {jax.__version__}, '
        f'Python {platform.python_version()}, {jax.device_count()} × {jax.devices()[0].device_kind}'
    )


def measured(protocol: Mapping[str, Any]) -> dict[str, str]:
    """Returns, by term, how the scores of a protocol were measured."""
    reference, extractor = protocol['reference'], protocol['extractor']
    return {
        'Score': f'{protocol["score"]}: Fréchet distance between the features of generated and real '
        'images',
        'Extractor': f'{extractor["name"]}, checksum {extractor["checksum"][:16]}; images before it: '
        f'{extractor.get("resize", "not stored")}',  # earlier versions did not store it
        'Reference': f'{describe(reference)}, checksum {reference.get("checksum", "not stored")[:16]}',
        'Samples': f'{protocol["samples"]:,} for each seed; the score is the mean over seeds ± their '
        'standard deviation',
        'Rounding': f'{protocol["rounding"]}, before the features',
        'Labels': protocol['labels'],
    }


def protocols_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Returns the protocols of scores by their ids, in their order."""
    return {row['protocol']['id']: row['protocol'] for row in rows}
