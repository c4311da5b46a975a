"""Zero-shot editing with a consistency model (arXiv 2303.01469, algorithm 4 and appendix D).

Some coordinates of an image after an orthogonal transform A are known, see tasks.py. Let y be the image
with these coordinates, and 0 for all others. Editing is multistep sampling that puts the known
coordinates back after every evaluation:

    x0 = keep(D(a(t_1) y + t_1 z, t_1));   then for i = 2 .. n:   x0 = keep(D(a(t_i) x0 + t_i z, t_i)),
    keep(x) = A^-1 [known A y + (1 - known) A x],   z ~ N(0, I)

`known` is 1 for the known coordinates and 0 for the others. No network has to be trained for this. For
the standard deviation t_i of the noise see samplers/multistep.py.

If there are many levels that descend slowly, and that lie below the scale of the data, this becomes a
Langevin walk over the unknown coordinates, whose law is that of the data given what is known. With few
levels the results stay nearer to the mean of the data.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from cm_jax.core.process import Process, expand
from cm_jax.editing.tasks import Task
from cm_jax.samplers import multistep
from cm_jax.types import Array


def measured(task: Task, images: Array) -> Array:
    """Returns y: images [B,H,W,C] with their known coordinates, and 0 for all other coordinates."""
    return task.inverse(jnp.where(task.known, task.transform(images), 0.0))


def keep(task: Task, images: Array, x: Array) -> Array:
    """Returns x [B,H,W,C] with its known coordinates replaced by those of `images` [B,H,W,C]."""
    mixed = jnp.where(task.known, task.transform(images), task.transform(x))
    return task.inverse(mixed)


def edit(
    denoise: Callable[[Array, Array], Array],
    process: Process,
    task: Task,
    images: Array,
    x_T: Array,
    ts: np.ndarray | Array,
    keys: Array,
) -> Array:
    """Returns images [B,H,W,C] with the known coordinates of `images`, and all others sampled.

    x_T [B,H,W,C] is noise at ts[0], ts [n] are levels in descending order, and keys [B] draw the noise
    of the later levels, as in `multistep.sample`; if nothing is known, this is the same as that. Of
    `images` only `measured(task, images)` is used.
    """
    y = measured(task, images)
    start = expand(process.signal(jnp.full(len(y), ts[0], y.dtype)), y) * y + x_T
    return multistep.sample(lambda x, t: keep(task, y, denoise(x, t)), process, start, ts, keys)
