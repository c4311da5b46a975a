"""Zero-shot editing with a consistency model (arXiv 2303.01469, algorithm 4 and appendix D).

What is known of an image are some coordinates of it after an orthogonal transform A: pixels
(inpainting), the luma of each pixel (colourisation), the mean of each patch (super-resolution). With
the image y that has the known coordinates, and 0 for the others, multistep sampling goes

    x0 = keep(D(a(t_1) y + t_1 z, t_1));   then for i = 2 .. n:   x0 = keep(D(a(t_i) x0 + t_i z, t_i)),
    keep(x) = A^-1 [known A y + (1 - known) A x],   z ~ N(0, I)

No network is trained for it. (Noise of standard deviation t_i: see samplers/multistep.py.) Where the
levels descend slowly, below the data's own scale, this is Langevin's walk in what is not known, and
its law that of the data given what is known; with few levels it stays nearer the data's mean.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from cm_jax.core.process import Process, expand
from cm_jax.editing.tasks import Task
from cm_jax.samplers import multistep
from cm_jax.types import Array


def measured(task: Task, images: Array) -> Array:
    """y: what is known of images [B,H,W,C], as images; the other coordinates are 0."""
    return task.inverse(jnp.where(task.known, task.transform(images), 0.0))


def keep(task: Task, images: Array, x: Array) -> Array:
    """x [B,H,W,C] with the known coordinates of `images`."""
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
    """Images [B,H,W,C] that agree with `images` in what the task knows, and are drawn otherwise.

    The rest as in `multistep.sample`, which this is where nothing is known: x_T is noise at ts[0],
    ts [n] descend, keys [B] draw the noise of the later levels. Only `measured(task, images)` is used.
    """
    y = measured(task, images)
    start = expand(process.signal(jnp.full(len(y), ts[0], y.dtype)), y) * y + x_T
    return multistep.sample(lambda x, t: keep(task, y, denoise(x, t)), process, start, ts, keys)
