"""The precision of convolutions and matrix products, by name: what `model.precision` means.

    name       TPU                                NVIDIA GPU from Ampere on    CPU
    default    1 product of bfloat16              TF32                         float32
    high       3 products of bfloat16             TF32                         float32
    highest    6 products of bfloat16: float32    float32                      float32

The table is of products of float32 numbers, after JAX's documentation (jax.lax.Precision). Sums are
float32 in all of them. 'default' leaves the choice to JAX, whose own setting
JAX_DEFAULT_MATMUL_PRECISION then holds.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

PRECISIONS = ('default', 'high', 'highest')
Arguments = ParamSpec('Arguments')
Result = TypeVar('Result')


def at_precision(
    function: Callable[Arguments, Result], precision: str
) -> Callable[Arguments, Result]:
    """Returns `function` with every product in it computed at `precision`, one of PRECISIONS.

    It holds wherever the function is traced: inside jit, vmap, scan and rematerialisation. The products
    of its derivatives have the precision of those that they are derivatives of. A product for which the
    function itself asks for a precision keeps that one.
    """
    if precision == 'default':
        return function

    @functools.wraps(function)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with jax.default_matmul_precision(precision):
            return function(*args, **kwargs)

    return wrapped
