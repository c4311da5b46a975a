"""Makes images from weights: one jitted program for a model and a sampler, on all devices."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cm_jax import samplers
from cm_jax.errors import UserError, check_name
from cm_jax.samplers import GenerativeModel
from cm_jax.sharding import by_example, replicated, to_host
from cm_jax.types import Array, Key, Params

# How the class of a sample is chosen. 'balanced': its index modulo the number of classes. 'uniform':
# drawn at random from all classes, with a key that depends on the seed and the index of the sample.
LABELS = ('balanced', 'uniform')
# Folded into the key of a sample: gives the key that draws its class. The keys of its noise come from
# a split of the sample's key.
LABEL_STREAM = 1_000_003


def check_sampler(spec: str, model: GenerativeModel) -> samplers.Sampler:
    """Returns the sampler that `spec` describes, e.g. 'heun@18', whether its guide is open or not.

    Raises UserError on a sampler that does not exist or that the model does not allow.
    """
    sampler = samplers.build(spec, model.process)
    samplers.check_guidance(sampler, model)
    samplers.check_head(sampler, len(model.heads))
    samplers.check_jump(sampler, model.jump)
    return sampler


def build_sampler(spec: str, model: GenerativeModel) -> samplers.Sampler:
    """Returns the sampler that `spec` describes, to sample with.

    Raises UserError as `check_sampler` does, and if it is guided by a run that was not opened.
    """
    sampler = check_sampler(spec, model)
    samplers.check_guide(sampler, model.guides)
    return sampler


def labels_policy(model: GenerativeModel, labels: str = LABELS[0]) -> str:
    """Returns the words by which a protocol describes how classes are chosen; `labels` is in LABELS.

    Raises UserError on another value, and on 'uniform' for a network without classes.
    """
    check_name('labels', labels, LABELS)
    classes = model.num_classes
    if labels == 'uniform' and not classes:
        raise UserError("labels 'uniform': the network has no classes; legal: balanced")
    if not classes:
        return 'none'
    return f'uniform over {classes}' if labels == 'uniform' else f'index modulo {classes}'


def uniform_labels(num_classes: int, seed: Array, indices: Array) -> Array:
    """Returns a class [B] int32 for each sample of `indices` [B].

    Each is drawn uniformly, and depends on nothing but the seed and the index of the sample.
    """

    def draw_class(index: Array) -> Array:
        key: Key = jax.random.fold_in(jax.random.key(seed), index)
        return jax.random.randint(jax.random.fold_in(key, LABEL_STREAM), (), 0, num_classes)

    return jax.vmap(draw_class)(indices)


def make_generator(
    model: GenerativeModel,
    sampler: samplers.Sampler,
    mesh: Mesh,
    batch_size: int,
    finish: Callable[..., Any],
    weights: tuple[Params, ...] = (),
    labels: str = LABELS[0],
) -> Callable[..., Any]:
    """Returns `generate(params, seed, first)`, one jitted program that runs on all devices.

    It makes the samples x0 with the indices first .. first + batch_size - 1 and returns
    `finish(*weights, x0)` as numpy arrays, on every process. A fourth argument of `generate` replaces
    the noise levels of the sampler by as many others, without compiling again. Arguments named as the
    fields of `samplers.Start`, arrays of batch_size rows, replace what the samples start from. The
    weights of a network that guides the sampler are read here.

    Args:
      model: the denoiser, and what sampling has to know of it.
      sampler: made by `build_sampler`.
      mesh: the devices; each makes an equal part of the samples.
      batch_size: the number of samples in one call.
      finish: (*weights, x0) -> arrays [B,...], e.g. features of the images.
      weights: the weights that `finish` needs. They are arguments of the program, so that they are not
        compiled into it as constants.
      labels: how classes are chosen, one of LABELS.
    """
    padded = -(-batch_size // mesh.size) * mesh.size

    def program(
        params: Params,
        others: tuple[Params, ...],
        seed: Array,
        first: Array,
        ts: Array,
        given: Mapping[str, Array],
    ) -> Any:
        guide, *weights = others
        indices = jax.lax.with_sharding_constraint(first + jnp.arange(padded), by_example(mesh))
        begin = samplers.start(model, seed, indices)
        if labels == 'uniform':
            begin = begin._replace(label=uniform_labels(model.num_classes, seed, indices))
        begin = begin._replace(**given)
        if sampler.guide:
            params = params, guide
        x0 = samplers.generate_from(samplers.at_levels(sampler, ts), model, params, begin)
        return finish(*weights, x0)

    jitted = jax.jit(program, out_shardings=by_example(mesh))
    guide = model.guides[sampler.guide].load() if sampler.guide else ()
    others = jax.device_put((guide, *weights), replicated(mesh))

    def generate(
        params: Params,
        seed: int,
        first: int,
        levels: Sequence[float] = sampler.levels,
        **given: np.ndarray,
    ) -> Any:
        rows = {name: np.resize(rows, (padded, *rows.shape[1:])) for name, rows in given.items()}
        outputs = jitted(params, others, seed, first, np.asarray(levels, np.float32), rows)
        return jax.tree.map(lambda leaf: to_host(leaf)[:batch_size], outputs)

    return generate
