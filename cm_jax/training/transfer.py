"""Weights of another run: to start from, or to learn from as a frozen teacher; whether they fit."""

from collections.abc import Sequence
from typing import Any

import jax

from cm_jax import models, objectives
from cm_jax.config import differences
from cm_jax.core import tree
from cm_jax.errors import UserError
from cm_jax.run import open_run
from cm_jax.settings import RunSettings
from cm_jax.types import DenoiseFn, Params
from cm_jax.weights.lpips import distance_of
from cm_jax.wiring import Frozen, net_params, prior_settings, weights_meaning

SCALING = 'skip_scaling'  # the setting of a network that scales its skips
TIMES = 'times'  # the setting of how many times a network takes


def initial_weights(
    settings: RunSettings, template: Params, image_shape: tuple[int, int, int]
) -> Params | None:
    """Returns the weights of `init_from`, or None where it names no run.

    `template` has the shapes of the weights that the run needs. A prior that was learnt there and is
    not learnt here is left behind, and so is the scaling of skips (`model.skip_scaling`), which has no
    weights, where this run has none. Weights of a network of one time start one of two times
    (`models.add_time`). Raises UserError, by name, if the weights do not fit.
    """
    origin = settings.init_from
    if not origin.workdir:
        return None
    run = open_run(origin.workdir)
    theirs = weights_meaning(run.settings, run.card['image_shape'])
    leaves_prior = not prior_settings(settings)
    if leaves_prior:
        theirs['prior'] = {}
    ours = weights_meaning(settings, image_shape)
    if SCALING in ours['model'] and ours['model'][SCALING] is None:
        theirs['model'] |= {SCALING: None}
    adds_time = theirs['model'].get(TIMES) == 1 and ours['model'].get(TIMES) == 2
    if adds_time:
        theirs['model'] |= {TIMES: 2}
    differing = differences(theirs, ours)
    if differing:
        raise UserError(f'config.init_from {origin.workdir} does not fit: {"; ".join(differing)}')
    params = run.params(origin.step, origin.ema)
    if leaves_prior:
        params = net_params(run.settings, params)
    if adds_time and tree.flatten(params).keys() == tree.flatten(template).keys():
        params = models.add_time(settings.model, params, template)
    check_tree(params, template, f'weights of {origin.workdir}')
    return params


def open_frozen(settings: RunSettings, image_shape: tuple[int, int, int]) -> Frozen:
    """Returns the teacher and the distance of a run, as far as it has them.

    Raises UserError where one is missing, or where the teacher's process, images or labels differ.
    """
    denoise, weights = open_teacher(settings, image_shape)
    if settings.objective.get('distance') != objectives.LPIPS:
        return Frozen(teacher_denoise=denoise, weights=weights)
    lpips = distance_of(settings.lpips)
    return Frozen(teacher_denoise=denoise, lpips=lpips, weights=(weights, lpips.params))


def open_teacher(
    settings: RunSettings, image_shape: tuple[int, int, int]
) -> tuple[DenoiseFn | None, Params]:
    """Returns the teacher's denoiser and its weights: (None, ()) where `teacher` names no run.

    Raises UserError as `open_frozen` does.
    """
    teacher, objective = settings.teacher, settings.objective
    if not teacher.workdir:
        if objectives.takes_teacher(objective.get('name')):
            raise UserError(
                f'objective {objective["name"]!r} learns from a teacher: set '
                'config.teacher.workdir to its run folder'
            )
        return None, ()
    guidance = objectives.guidance(objective)
    if guidance != 1 and not settings.class_conditional:
        raise UserError('config.objective.guidance needs classes: set config.class_conditional')
    run = open_run(teacher.workdir)
    if guidance != 1 and not run.parts.generative_model.guidable:
        raise UserError(
            f'config.objective.guidance = {guidance} needs a teacher that also learnt '
            f'from images without their class; {teacher.workdir} has model.label_dropout = 0'
        )
    theirs = _teaches(run.settings, run.card['image_shape'])
    differing = differences(theirs, _teaches(settings, image_shape))
    if differing:
        raise UserError(f'config.teacher {teacher.workdir} does not fit: {"; ".join(differing)}')
    return run.parts.objective.denoise, run.params(teacher.step, teacher.ema)


def _teaches(settings: RunSettings, image_shape: Sequence[int]) -> dict[str, Any]:
    """Returns what must be equal in a teacher and its student."""
    return {
        'process': settings.process,
        'class_conditional': settings.class_conditional,
        'images': list(image_shape),
    }


def check_tree(params: Params, template: Params, what: str) -> None:
    """Raises UserError naming the first weight that is missing, unexpected or of another shape."""
    shapes, wanted = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)}
        for tree in (params, template)
    )
    for name in sorted(shapes.keys() | wanted.keys()):
        if shapes.get(name) != wanted.get(name):
            raise UserError(
                f'{what}: {name} is {shapes.get(name, "missing")}, the network has '
                f'{wanted.get(name, "no such weight")}'
            )
