"""The rows of reports that nobody computed: of a teacher and of searches over one ECT run."""

import types

import numpy as np

from cm_jax.lcsc.identity import of_earlier_label
from cm_jax.metrics.protocol import protocol
from cm_jax.reports import rows
from cm_jax.settings import RunSettings, Sampling
from cm_jax.types import Extractor

LEVELS = {
    'onestep': [80.0],
    'multistep@80,0.8': [80.0, 0.8],
    'heun@3': [80.0, 5.0, 0.002, 0.0],
    'heun@18': [*np.geomspace(80, 0.002, 18), 0.0],
}
EVALUATIONS = {'onestep': 1, 'multistep@80,0.8': 2, 'heun@3': 5, 'heun@18': 35}
PIXEL = Extractor('pixel', 'fd_pixel', 16, None, {}, None, 'f00d')
EXTRACTOR = Extractor('lenet_digits', 'fd_lenet', 84, None, {}, None, 'c0ffee')
REFERENCE = {
    'source': 'digits',
    'split': 'train',
    'count': 1500,
    'checksum': 'beef',
    'rank_deficient': False,
}
# Of the averages, another one is the best with each sampler.
ONE = {'last': 18.0, 'ema 0.99': 4.0, 'ema* 0.9': 4.2, 'uniform': 6.0, 'lcsc': 3.0}
TWO = {'last': 22.0, 'ema 0.99': 3.4, 'ema* 0.9': 3.5, 'uniform': 3.2, 'lcsc': 2.4}


def record(sampler, ema='', step=12, samples=5000, seeds=(1000, 1001), extractor=EXTRACTOR):
    """The protocol of a row in the feature space of an extractor."""
    return protocol(
        extractor,
        samples,
        seeds,
        REFERENCE,
        sampler=sampler,
        levels=LEVELS[sampler],
        evaluations=EVALUATIONS[sampler],
        ema=ema,
        step=step,
        labels='index modulo 10',
    )


def scored(value, sampler, seeds=(1000, 1001), pixel=None, **settings):
    """A row as `evaluate` stores it, with a second opinion if there is one."""
    spread = 0.05 if len(seeds) > 1 else None
    protocols = [
        record(sampler, seeds=seeds, extractor=extractor, **settings)
        for extractor in (EXTRACTOR, PIXEL)
    ]
    values = list(value + 0.1 * np.arange(len(seeds)))
    row = {'fd_lenet': value, 'fd_lenet_std': spread, 'values': values, 'protocol': protocols[0]}
    if pixel is None:
        return row
    row |= {'fd_pixel': pixel, 'fd_pixel_std': spread, 'recall_pixel': 0.5, 'recall_pixel_std': 0.0}
    second = {'values': [pixel] * len(seeds), 'protocol': protocols[1]}
    return row | {'others': {'fd_pixel': second}}


def searched(one=ONE, two=TWO, pixel=None, name='evolution', used=('fd_lenet',)):
    """The report of a search; `pixel` are the second opinions on some of its weights."""
    found = [
        of_earlier_label(label)._asdict()
        | scored(table[label], sampler, ema=label, pixel=(pixel or {}).get(label))
        for label in one
        for sampler, table in (('onestep', one), ('multistep@80,0.8', two))
    ]
    return rows.Report(name, used, 'onestep', 41, found)


def teacher(*rows, sampler='heun@18', ema='0.995'):
    """A run folder that holds scores, and nothing else that is asked for."""
    settings = RunSettings(sampling=Sampling(sampler=sampler, ema=ema))
    return types.SimpleNamespace(
        workdir='runs/teacher', settings=settings, step=lambda: 12, scores=lambda: list(rows)
    )


def entries(*reports, **settings):
    """The rows of the reports, or of one report with these settings."""
    entries = rows.report_entries(reports or [searched(**settings)])
    run = teacher(scored(2.0, 'heun@18', ema='0.995'), scored(180.0, 'onestep', ema='0.995'))
    return rows.teacher_entries(run, entries[-1].row) + entries


def two_searches():
    """One that gains by the LeNet and loses by the pixels, and one that used both and gains by both."""
    pixel = {'last': 0.5, 'ema 0.99': 0.3, 'ema* 0.9': 0.3, 'uniform': 0.3, 'lcsc': 0.4}
    gradient = pixel | {'lcsc': 0.2}
    return (
        searched(pixel=pixel),
        searched(
            one=ONE | {'lcsc': 3.5}, pixel=gradient, name='gradient', used=('fd_lenet', 'fd_pixel')
        ),
    )
