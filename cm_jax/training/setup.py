"""A training run from its settings: built and checked, before any compute."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from cm_jax import data, sharding
from cm_jax.core import ema
from cm_jax.core.ema import Share
from cm_jax.data import Source
from cm_jax.errors import UserError, check_name
from cm_jax.evaluation.extractors import check_unscored
from cm_jax.generate import build_sampler, check_sampler
from cm_jax.models import check_resolutions, heights, with_defaults
from cm_jax.run_folder import RAW
from cm_jax.samplers import GenerativeModel
from cm_jax.settings import RunSettings
from cm_jax.training import optim, weights_and_biases
from cm_jax.training.optim import Optimizer
from cm_jax.training.scoring import Scoring, open_scoring
from cm_jax.training.step import TrainState, TrainStep, init_state, make_train_step
from cm_jax.training.transfer import initial_weights, open_frozen
from cm_jax.types import DenoiseFn, Distance, Params
from cm_jax.wiring import Frozen, Parts, open_data, prior_settings, wire


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """A training run, built and checked, before any compute."""

    settings: RunSettings
    last_step: int
    workdir: epath.Path
    mesh: Mesh
    batches: data.Batches
    generative_model: GenerativeModel
    initial_state: Callable[[], TrainState]  # the state before the first step, born sharded
    state_template: TrainState  # its shapes and shardings
    train_step: Callable  # jitted: (state, batch, teacher) -> (state, metrics)
    lpips: Distance | None
    teacher: Params  # frozen weights that the objective learns from, or ()
    teacher_denoise: DenoiseFn | None  # what the first of them are the weights of
    scoring: Scoring | None  # the scores during training, if there are any


def set_up(settings: RunSettings, workdir: epath.Path) -> Setup:
    """Builds everything that the settings describe. Raises UserError on whatever is wrong in them."""
    averages, last_step = _check(settings)
    mesh = sharding.make_mesh()
    weights_and_biases.check(settings.train.wandb)
    sharding.check_batch(settings.batch_size, settings.train.accumulate, mesh)
    source = open_data(settings.dataset)
    batches = data.Batches(
        source,
        settings.batch_size,
        settings.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    frozen = open_frozen(settings, source.image_shape)
    parts = wire(settings, source.image_shape, source.num_classes, frozen)
    check_unscored(settings.evaluation)
    build_sampler(settings.sampling.sampler, parts.generative_model)
    for spec in settings.evaluation.samplers:
        check_sampler(spec, parts.generative_model)
    optimizer = optim.build(settings.optimizer)
    init_key, train_key = jax.random.split(jax.random.key(settings.seed))
    initial_state, shardings, template = _state(
        settings, mesh, source, parts, optimizer, averages, init_key
    )
    step = make_train_step(
        parts.objective,
        optimizer,
        averages,
        train_key,
        settings.train.accumulate,
        parts.model.project,
    )
    scoring = open_scoring(settings, parts.generative_model, mesh)
    train_step, teacher = _on_devices(step, settings, mesh, shardings, frozen)
    return Setup(
        settings=settings,
        last_step=last_step,
        workdir=workdir,
        mesh=mesh,
        batches=batches,
        generative_model=parts.generative_model,
        initial_state=initial_state,
        state_template=template,
        train_step=train_step,
        lpips=frozen.lpips,
        teacher=teacher,
        teacher_denoise=frozen.teacher_denoise,
        scoring=scoring,
    )


def check_attention(settings: RunSettings, image_shape: tuple[int, int, int]) -> None:
    """Raises UserError if attn_resolutions of a network name a height that it does not have.

    There no block attends. A run that an earlier version began may have such a setting.
    """
    for section, network in (('model', settings.model), ('prior', prior_settings(settings))):
        legal = heights(image_shape, with_defaults(network).get('channel_mult', ()))
        name = f'config.{section}.attn_resolutions'
        check_resolutions(name, network.get('attn_resolutions', ()), legal)


def _check(settings: RunSettings) -> tuple[dict[str, Share], int]:
    """Returns the averages that are kept, and the last step. Raises UserError on wrong numbers."""
    if settings.steps is None or settings.steps < 1:
        raise UserError(f'config.steps must be at least 1, got {settings.steps}')
    if 'float16' in (settings.model.get('dtype'), settings.prior.get('dtype')):
        raise UserError(
            "dtype 'float16' of config.model or config.prior samples but does not train: small "
            "gradients become 0. Take 'float32' for consistency training, 'bfloat16' for diffusion"
        )
    averages = ema.averages(settings.ema_rates, settings.ema_sigma_rels)
    if settings.sampling.ema != RAW:
        check_name('average config.sampling.ema', settings.sampling.ema, averages)
    return averages, settings.steps


def _state(
    settings: RunSettings,
    mesh: Mesh,
    source: Source,
    parts: Parts,
    optimizer: Optimizer,
    averages: Mapping[str, Share],
    init_key: jax.Array,
) -> tuple[Callable[[], TrainState], Any, TrainState]:
    """Returns what makes the state before the first step, its shardings, and its template."""
    shape_of_params = jax.eval_shape(parts.model.init, init_key)
    weights = initial_weights(settings, shape_of_params, source.image_shape)
    given = () if weights is None else (weights,)

    def initial(*weights: Params) -> TrainState:
        params = weights[0] if weights else parts.model.init(init_key)
        return init_state(parts.model.project(params), parts.objective, optimizer, averages)

    shapes = jax.eval_shape(initial, *given)
    shardings = sharding.for_weights(shapes, mesh, settings.train.weights)
    template = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        shardings,
    )
    return lambda: jax.jit(initial, out_shardings=shardings)(*given), shardings, template


def _on_devices(
    step: TrainStep, settings: RunSettings, mesh: Mesh, shardings: Any, frozen: Frozen
) -> tuple[Callable, Params]:
    """Returns the jitted train step, and the frozen weights on the devices."""
    places = sharding.for_weights(frozen.weights, mesh, settings.train.weights)
    jitted = jax.jit(
        step,
        in_shardings=(shardings, sharding.by_example(mesh), places),
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0,
    )
    return jitted, jax.device_put(frozen.weights, places)
