"""Samples for the pages: the same noise through several weights of a run, a strip for each."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cm_jax.errors import UserError
from cm_jax.plotting import scale_to
from cm_jax.reports import elements, plots
from cm_jax.run import Run
from cm_jax.run_folder import RAW, weights_label
from cm_jax.types import Params

STEPS = 6  # of how many steps of a trajectory samples are drawn
SEED = 0  # of the noise


class Weights(NamedTuple):
    """Weights that samples are drawn with: their name, and what loads them."""

    name: str
    load: Callable[[], Params]


def spread(steps: Sequence[int], count: int) -> list[int]:
    """Returns at most `count` of the steps, evenly spread, among them the first and the last."""
    places = np.unique(np.linspace(0, len(steps) - 1, min(count, len(steps))).round().astype(int))
    return [steps[i] for i in places]


def over_trajectory(run: Run) -> Iterator[Weights]:
    """Yields the weights of some steps of a trajectory, and then the averages of its last step."""
    steps = run.steps()
    for step in spread(steps, STEPS):
        stored = run.stored(step)
        shown = stored if step == steps[-1] else stored[:1]
        for name in shown:
            yield Weights(
                f'step {step:,}' if name == RAW else f'step {step:,}, {weights_label(name)}',
                functools.partial(run.params, step, name),
            )


def draw(run: Run, spec: str, each: Iterable[Weights], count: int) -> str:
    """Returns a strip of `count` samples for each of the weights of a run, as HTML text.

    `spec` describes the sampler. Weights that cannot be read have a note in the place of their strip.
    """
    try:
        generate = run.generator(spec, count)
    except UserError as error:  # the run that guides the sampler may be elsewhere
        return elements.missing(f'No samples were drawn: {error}')
    text = elements.soft(
        f'Nothing is picked: the first {count} samples of noise seed {SEED}, by {spec}. Images below '
        'each other are of the same noise (and of the same class, where there are classes).'
    )
    for weights in each:
        try:
            images = generate(weights.load(), SEED)
        except UserError as error:
            text += elements.flag(f'{weights.name}: {error}')
            continue
        scale = scale_to(80, images.shape[2])
        png = plots.to_png(plots.tile(images, count, scale, gap=scale // 2 + 1))
        text += elements.strips([(weights.name, '', png)])
    return text
