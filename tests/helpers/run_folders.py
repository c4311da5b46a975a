"""Run folders with weights that nobody trained."""

import json
import pathlib

import jax
from etils import epath

from cm_jax import checkpoint, run_folder
from cm_jax.config import to_plain
from cm_jax.files import CRC32
from cm_jax.run import Run, open_run
from cm_jax.run_folder import DATA_CARD, TRAJECTORY
from cm_jax.wiring import wire
from tests.helpers.tiny import settings_of

DIGITS = {'name': 'digits', 'split': 'train', 'image_shape': [8, 8, 1], 'num_classes': 10}


def untrained_run(folder: pathlib.Path, config, steps=(1, 2), card=DIGITS) -> Run:
    """A run folder of a config whose weights at each step are the initial ones of that key, and 0.05.

    The last step has the average '0.9' too: the weights of the first step.
    """
    folder = epath.Path(folder)
    run_folder.write_config(folder, to_plain(config))
    (folder / DATA_CARD).write_text(json.dumps(card))
    init = wire(settings_of(config), tuple(card['image_shape']), card['num_classes']).model.init
    init, kept = jax.jit(init), {}
    with checkpoint.Stream(folder / TRAJECTORY) as stream:
        for step in steps:
            kept[step] = jax.tree.map(lambda leaf: leaf + 0.05, init(jax.random.key(step)))
            items = {'params': kept[step]}
            if step == steps[-1]:
                items['ema_0.9'] = kept[steps[0]]
            stream.save(step, items, {'step': step})
    return open_run(folder)


def unchecked(record: dict) -> dict:
    """A record that a test has changed, without the checksum of what it was."""
    return {key: value for key, value in record.items() if key != CRC32}
