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
    """All that training changes.

    `step` counts the steps that were taken; `emas` is {name: params}, by the names of
    `core.ema.averages`; `skipped` counts the steps that were not finite, and `skipped_in_row` those
    among them since the last finite one.
    """

    step: Array
    params: Params
    opt_state: Any
    emas: dict[str, Params]
    refs: Any
    skipped: Array
    skipped_in_row: Array

    def weights(self, ema: str) -> Params:
        """Returns the average of the weights that is named `ema`, or the weights themselves for ''."""
        return self.emas[ema] if ema else self.params


def init_state(
    params: Params, objective: Objective, optimizer: Optimizer, averages: Mapping[str, Share]
) -> TrainState:
    """Returns the state before the first step: every average starts at the initial weights."""
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
    """Returns the mean of loss [B] over each quarter of the batch in order of t [B].

    'loss_q1' is that of the quarter with the least noise.
    """
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

    The randomness of a step is fold_in(key, state.step). With `accumulate` > 1 the gradient is the mean
    over that many micro-batches. The weights after an optimiser step are `project` of what it gives
    (`Model.project`); averages and refs take those. A step whose loss or gradient is not finite changes
    nothing but `step` and the counters; averages count every step that was taken, such steps too.

    metrics: scalars, among them 'loss', 'learning_rate', 'grad_norm', 'param_norm', 'skipped',
    'skipped_in_row', and 't_bad', the noise level of a non-finite loss (0 if there is none).
    """

    def train_step(state: TrainState, batch: Batch, teacher: Params) -> tuple[TrainState, Metrics]:
        def gradient(part: Batch, part_key: Key) -> tuple[Array, Metrics, Params]:
            return _gradient(objective, state, teacher, part, part_key)

        step_key = jax.random.fold_in(key, state.step)
        loss, metrics, grads = _accumulated(gradient, batch, step_key, accumulate, state.params)
        grad_norm = optax.tree.norm(grads)
        is_finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        learning_rate = optimizer.learning_rate(state.step - state.skipped)

        def advance(state: TrainState) -> TrainState:
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = project(optax.apply_updates(state.params, updates))
            emas = {
                name: tree.lerp(state.emas[name], params, share(state.step + 1))
                for name, share in averages.items()
            }
            return state._replace(
                params=params,
                opt_state=opt_state,
                emas=emas,
                refs=objective.update(state.refs, params, state.step),
                skipped_in_row=jnp.zeros_like(state.skipped_in_row),
            )

        state = jax.lax.cond(is_finite, advance, _skip, state)
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


def _skip(state: TrainState) -> TrainState:
    """Returns the state after a step that was not finite."""
    return state._replace(skipped=state.skipped + 1, skipped_in_row=state.skipped_in_row + 1)


def _gradient(
    objective: Objective, state: TrainState, teacher: Params, batch: Batch, key: Key
) -> tuple[Array, Metrics, Params]:
    """Returns the mean loss of a batch, its metrics as scalars, and its gradient by the weights."""

    def mean_loss(params: Params) -> tuple[Array, Metrics]:
        loss, metrics = objective.loss(params, state.refs, teacher, batch, key, state.step)
        is_bad = ~jnp.isfinite(loss)
        scalars = {name: jnp.mean(value) for name, value in metrics.items()}
        t_bad = jnp.where(jnp.any(is_bad), metrics['t'][jnp.argmax(is_bad)], 0)
        return jnp.mean(loss), scalars | by_quarter(loss, metrics['t']) | {'t_bad': t_bad}

    (loss, metrics), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
    return loss, metrics, grads


def _accumulated(
    gradient: Callable[[Batch, Key], tuple[Array, Metrics, Params]],
    batch: Batch,
    key: Key,
    accumulate: int,
    params: Params,
) -> tuple[Array, Metrics, Params]:
    """Returns what `gradient` gives, as the mean over `accumulate` micro-batches.

    Each micro-batch is every accumulate-th example, so that it stays spread over the devices as the
    batch is. The noise level of a non-finite loss, 't_bad', is the highest of the micro-batches.
    """
    if accumulate == 1:
        return gradient(batch, jax.random.fold_in(key, 0))
    parts = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(total: Params, i_part: tuple[Array, Batch]) -> tuple[Params, tuple[Array, Metrics]]:
        i, part = i_part
        loss, metrics, grads = gradient(part, jax.random.fold_in(key, i))
        return jax.tree.map(jnp.add, total, grads), (loss, metrics)

    zeros = jax.tree.map(jnp.zeros_like, params)
    grads, (losses, metrics) = jax.lax.scan(add, zeros, (jnp.arange(accumulate), parts))
    means = {name: jnp.mean(values) for name, values in metrics.items()}
    means['t_bad'] = jnp.max(metrics['t_bad'])
    return jnp.mean(losses), means, jax.tree.map(lambda g: g / accumulate, grads)
