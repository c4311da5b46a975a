"""Weights of another run: to start from, or to learn from as a frozen teacher; whether they fit."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from cm_jax import config as configs
from cm_jax.errors import UserError, call
from cm_jax.models import with_defaults
from cm_jax.objectives import base
from cm_jax.run import open_run
from cm_jax.types import DenoiseFn, Params
from cm_jax.weights.lpips import distance_of
from cm_jax.wiring import Frozen, net_params, prior_settings

# Settings of a network that do not change what its weights mean.
OF_TRAINING = ('dropout', 'dropout_resolution', 'label_dropout', 'dtype', 'remat')


class WeightsOf(NamedTuple):
    """Weights of another run: the sections `init_from` and `teacher`; workdir '' is none."""

    workdir: str
    step: int | None
    ema: str


def initial_weights(config: Any, template: Params, image_shape: tuple) -> Params | None:
    """The weights of `config.init_from`, or None. Raises UserError, by name, if they do not fit.

    A prior that was learnt there and is not learnt here is left behind.
    """
    init = call('init_from', WeightsOf, config.init_from)
    if not init.workdir:
        return None
    run = open_run(init.workdir)
    theirs = weights_meaning(run.config, run.card['image_shape'])
    leaves_prior = not prior_settings(config)
    if leaves_prior:
        theirs['prior'] = {}
    differing = configs.differences(theirs, weights_meaning(config, image_shape))
    if differing:
        raise UserError(f'config.init_from {init.workdir} does not fit: {"; ".join(differing)}')
    params = run.params(init.step, init.ema)
    if leaves_prior:
        params = net_params(run.config, params)
    check_tree(params, template, f'weights of {init.workdir}')
    return params


def open_frozen(config: Any, image_shape: tuple[int, int, int]) -> Frozen:
    """The teacher and the distance of a config, as far as it has them.

    Raises UserError where one is missing, or the teacher's process, images or labels differ.
    """
    denoise, weights = _open_teacher(config, image_shape)
    if config.objective.get('distance') != base.LPIPS:
        return Frozen(denoise, None, weights)
    lpips = distance_of(config.lpips)
    return Frozen(denoise, lpips, (weights, lpips.params))


def _open_teacher(
    config: Any, image_shape: tuple[int, int, int]
) -> tuple[DenoiseFn | None, Params]:
    of = call('teacher', WeightsOf, config.teacher)
    if not of.workdir:
        if base.takes_teacher(config.objective.name):
            raise UserError(
                f'objective {config.objective.name!r} learns from a teacher: set '
                'config.teacher.workdir to its run folder'
            )
        return None, ()
    if config.objective.get('guidance', 1) != 1 and not config.class_conditional:
        raise UserError('config.objective.guidance needs classes: set config.class_conditional')
    run = open_run(of.workdir)
    differing = configs.differences(
        *(
            {'process': dict(c.process), 'class_conditional': c.class_conditional, 'images': shape}
            for c, shape in ((run.config, run.card['image_shape']), (config, image_shape))
        )
    )
    if differing:
        raise UserError(f'config.teacher {of.workdir} does not fit: {"; ".join(differing)}')
    return run.parts.objective.denoise, run.params(of.step, of.ema)


def weights_meaning(config: Any, image_shape: Sequence[int]) -> dict[str, Any]:
    """What must be equal for weights of one run to mean the same in another.

    The networks without what only training has, the preconditioning (which on rectified flow has no
    settings), the process, the shape of the images and whether there are labels.
    """
    networks = {'model': config.model, 'prior': prior_settings(config)}
    preconditioning = {}
    if config.process.name != 'rf':
        preconditioning['sigma_data'] = config.objective.sigma_data
    return {
        **{
            section: {k: v for k, v in with_defaults(settings).items() if k not in OF_TRAINING}
            for section, settings in networks.items()
        },
        **preconditioning,
        'process': dict(config.process),
        'class_conditional': config.class_conditional,
        'image_shape': list(image_shape),
    }


def check_tree(params: Params, template: Params, what: str) -> None:
    """Raises UserError naming the first weight that is missing, unexpected or of another shape."""
    found, wanted = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)}
        for tree in (params, template)
    )
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise UserError(
                f'{what}: {name} is {found.get(name, "missing")}, the network has '
                f'{wanted.get(name, "no such weight")}'
            )
