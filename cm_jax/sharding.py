"""One mesh over every device there is: batches split over it, weights on all of it or split too."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cm_jax.errors import UserError, check_name

AXIS = 'data'
WEIGHTS = ('replicated', 'fsdp')


def make_mesh() -> Mesh:
    """A one-dimensional mesh over jax.devices()."""
    kinds = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=kinds)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """The first dimension split over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def for_weights(shapes: Any, mesh: Mesh, weights: str) -> Any:
    """Shardings of a state's leaves: 'replicated', or 'fsdp', which splits each leaf along its
    largest dimension that the devices divide and replicates what has none."""
    check_name('weights', weights, WEIGHTS)

    def of(leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        legal = [d for d, n in enumerate(leaf.shape) if n >= mesh.size and n % mesh.size == 0]
        if weights == 'replicated' or not legal:
            return replicated(mesh)
        widest = max(legal, key=lambda d: leaf.shape[d])
        return NamedSharding(mesh, PartitionSpec(*[None] * widest, AXIS))

    return jax.tree.map(of, shapes)


def to_devices(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's part of a batch -> the global batch, split by example."""
    place = by_example(mesh)
    return {k: jax.make_array_from_process_local_data(place, v) for k, v in batch.items()}


def to_host(x: jax.Array) -> np.ndarray:
    """The whole array as numpy, on every process."""
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def is_primary() -> bool:
    """Whether this process writes what is written once: logs, configs, pictures."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def check_batch(batch_size: int, accumulate: int, mesh: Mesh) -> None:
    """Raises UserError unless each of `accumulate` micro-batches divides over the devices."""
    if batch_size < 1 or accumulate < 1 or batch_size % (accumulate * mesh.size):
        unit = max(1, accumulate) * mesh.size
        below = max(unit, batch_size // unit * unit)
        raise UserError(
            f'config.batch_size {batch_size} is not divisible by {mesh.size} devices x '
            f'accumulate {accumulate}; nearest: {below} or {below + unit}'
        )
