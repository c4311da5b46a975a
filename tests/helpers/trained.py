"""A stand-in for the folder of a training run, for what a search asks of it before it computes."""

import types

import numpy as np

from cm_jax.core import ema as averages
from cm_jax.wiring import wire
from tests.helpers.tiny import settings_of


def trained(config, image_shape, classes, **changed):
    """The run that a config trains: its steps, averages and process.

    `changed` are steps, start, every and sigma_rels, as far as they are not the config's.
    """
    steps = changed.get('steps', config.steps)
    start = changed.get('start', config.trajectory.start)
    every = changed.get('every', config.trajectory.every)
    kept = sorted({*range(start, steps + 1, every), steps})
    sigma_rels = changed.get('sigma_rels', config.ema_sigma_rels)

    def posthoc(step, name):
        averages.posthoc([step] * len(sigma_rels), sigma_rels, step, float(name[len('posthoc') :]))

    return types.SimpleNamespace(
        steps=lambda: kept,
        params=lambda step, ema: {'params': {'weight': np.zeros(1)}},
        check_ema=lambda step, ema: None,
        emas=lambda step: [f'power{s}' for s in sigma_rels],
        posthoc=posthoc,
        parts=wire(settings_of(config), image_shape, classes),
    )
