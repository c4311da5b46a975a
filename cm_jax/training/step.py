"""The train step: one short pure function for every objective."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cm_jax.core import tree
from cm_jax.core.ema import Share
from cm_jax.objectives import Objective
from cm_jax.training.optim import Optimizer
from cm_jax.types import Array, Batch, Key, Metrics, Params

# (state, batch, teacher) -> (state, metrics)
TrainStep = Callable[['TrainState', Batch, Params], tuple['TrainState', Metrics]]
QUARTERS = 4  # the loss is logged by quarter of the batch, ordered by noise level


class TrainState(NamedTuple):
    """All that training changes. `step` counts steps taken; `emas` is {name: params}, by the names of
    `core.ema.averages`; `skipped` counts non-finite steps, and `skipped_in_row` the present run of
    them."""

    step: Array
    params: Params
    opt_state: Any
    emas: dict[str, Params]
    refs: Any
    skipped: Array
    skipped_in_row: Array


def init_state(
    params: Params, objective: Objective, optimizer: Optimizer, averages: Mapping[str, Share]
) -> TrainState:
    """The state before the first step: every average starts at the initial weights."""
    zero = jnp.zeros((), jnp.int32)
    emas = {name: jax.tree.map(jnp.copy, params) for name in averages}
    return TrainState(
        step=zero,
        params=params,
        opt_state=optimizer.init(params),
        emas=emas,
        refs=objective.init(params),
        skipped=zero,
        skipped_in_row=zero,
    )


def by_quarter(loss: Array, t: Array) -> dict[str, Array]:
    """Mean of loss [B] over each quarter of the batch in order of t [B]: 'loss_q1' has least noise."""
    rank = jnp.argsort(jnp.argsort(t))
    quarter = rank * QUARTERS // t.shape[0]
    return {
        f'loss_q{i + 1}': jnp.sum(jnp.where(quarter == i, loss, 0))
        / jnp.maximum(1, jnp.sum(quarter == i))
        for i in range(QUARTERS)
    }


def make_train_step(
    objective: Objective,
    optimizer: Optimizer,
    averages: Mapping[str, Share],
    key: Key,
    accumulate: int = 1,
    project: Callable[[Params], Params] = lambda params: params,
) -> TrainStep:
    """Returns `train_step(state, batch, teacher) -> (state, metrics)`, to be jitted.

    The randomness of a step is fold_in(key, state.step). With `accumulate` > 1 the gradient is the
    mean over that many micro-batches, each of every accumulate-th example, so that each stays
    spread over the devices as the batch is. The weights after an optimiser step are `project` of
    what it gives (`Model.project`); averages and refs take those. A step whose loss or gradient is
    not finite changes nothing but `step` and the counters; averages count steps taken, it among
    them. metrics: scalars, among them 'loss', 'learning_rate', 'grad_norm', 'param_norm',
    'skipped', 'skipped_in_row', and 't_bad', the noise level of a non-finite loss (0 if there is
    none).
    """

    def mean_loss(params: Params, refs: Any, teacher: Params, batch: Batch, key: Key, step: Array):
        loss, metrics = objective.loss(params, refs, teacher, batch, key, step)
        bad = ~jnp.isfinite(loss)
        scalars = {name: jnp.mean(value) for name, value in metrics.items()}
        t_bad = jnp.where(jnp.any(bad), metrics['t'][jnp.argmax(bad)], 0)
        return jnp.mean(loss), scalars | by_quarter(loss, metrics['t']) | {'t_bad': t_bad}

    def gradient(state: TrainState, batch: Batch, teacher: Params) -> tuple[Array, Metrics, Params]:
        grad_fn = jax.value_and_grad(mean_loss, has_aux=True)
        step_key = jax.random.fold_in(key, state.step)

        def micro(i: Array, part: Batch) -> tuple[Array, Metrics, Params]:
            part_key = jax.random.fold_in(step_key, i)
            (loss, metrics), grads = grad_fn(
                state.params, state.refs, teacher, part, part_key, state.step
            )
            return loss, metrics, grads

        if accumulate == 1:
            return micro(jnp.int32(0), batch)
        parts = jax.tree.map(
            lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch
        )

        def add(total: Params, i_part: tuple[Array, Batch]) -> tuple[Params, tuple[Array, Metrics]]:
            loss, metrics, grads = micro(*i_part)
            return jax.tree.map(jnp.add, total, grads), (loss, metrics)

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        grads, (losses, metrics) = jax.lax.scan(add, zeros, (jnp.arange(accumulate), parts))
        means = {name: jnp.mean(values) for name, values in metrics.items()}
        means['t_bad'] = jnp.max(metrics['t_bad'])
        return jnp.mean(losses), means, jax.tree.map(lambda g: g / accumulate, grads)

    def train_step(state: TrainState, batch: Batch, teacher: Params) -> tuple[TrainState, Metrics]:
        loss, metrics, grads = gradient(state, batch, teacher)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        learning_rate = optimizer.learning_rate(state.step - state.skipped)

        def advance(state: TrainState) -> TrainState:
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = project(optax.apply_updates(state.params, updates))
            emas = {
                name: tree.lerp(state.emas[name], params, share(state.step + 1))
                for name, share in averages.items()
            }
            refs = objective.update(state.refs, params, state.step)
            return state._replace(
                params=params,
                opt_state=opt_state,
                emas=emas,
                refs=refs,
                skipped_in_row=jnp.zeros_like(state.skipped_in_row),
            )

        def skip(state: TrainState) -> TrainState:
            return state._replace(
                skipped=state.skipped + 1, skipped_in_row=state.skipped_in_row + 1
            )

        state = jax.lax.cond(finite, advance, skip, state)
        metrics = dict(metrics) | {
            'loss': loss,
            'learning_rate': jnp.float32(learning_rate),
            'grad_norm': grad_norm,
            'param_norm': optax.tree.norm(state.params),
            'skipped': state.skipped,
            'skipped_in_row': state.skipped_in_row,
        }
        return state._replace(step=state.step + 1), metrics

    return train_step
