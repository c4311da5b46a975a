"""One mesh over all devices. Batches are split over it; weights are copied to each device or split."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cm_jax.errors import UserError, check_name

AXIS = 'data'
WEIGHTS = ('replicated', 'fsdp')


def make_mesh() -> Mesh:
    """Returns a one-dimensional mesh over jax.devices()."""
    kinds = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=kinds)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first dimension over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def for_weights(shapes: Any, mesh: Mesh, weights: str) -> Any:
    """Returns the shardings of the leaves of a state, as a tree like `shapes`.

    `weights` is one of WEIGHTS. 'replicated' keeps every leaf whole on every device. 'fsdp' splits each
    leaf along the largest of its dimensions that the number of devices divides, and keeps a leaf whole
    that has no such dimension. Raises UserError on another value.
    """
    check_name('weights', weights, WEIGHTS)

    def leaf_sharding(leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        divisible = [
            axis
            for axis, size in enumerate(leaf.shape)
            if size >= mesh.size and size % mesh.size == 0
        ]
        if weights == 'replicated' or not divisible:
            return replicated(mesh)
        largest = max(divisible, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, AXIS))

    return jax.tree.map(leaf_sharding, shapes)


def to_devices(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Returns the global batch, split by example, from the part of it that each process holds."""
    split = by_example(mesh)
    return {
        name: jax.make_array_from_process_local_data(split, array) for name, array in batch.items()
    }


def to_host(x: jax.Array) -> np.ndarray:
    """Returns the whole array as numpy, on every process."""
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def is_primary() -> bool:
    """Returns whether this is the one process that writes logs, configs and pictures."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Waits until every process has made this call. `what` names the point in the code."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def in_any_process(flag: bool) -> bool:
    """Returns whether `flag` is true in any process. Every process must make this call."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def check_batch(batch_size: int, accumulate: int, mesh: Mesh) -> None:
    """Raises UserError unless a batch splits evenly into `accumulate` parts on every device."""
    if batch_size < 1 or accumulate < 1 or batch_size % (accumulate * mesh.size):
        unit = max(1, accumulate) * mesh.size
        below = max(unit, batch_size // unit * unit)
        raise UserError(
            f'config.batch_size {batch_size} is not divisible by {mesh.size} devices x '
            f'accumulate {accumulate}; nearest: {below} or {below + unit}'
        )
