"""Checks that a state dict has the tensors that a network needs, in one line of error."""

from collections.abc import Mapping

import numpy as np

from cm_jax.errors import UserError

SHOWN = 3  # an error names at most this many tensors of each kind


def check_shapes(
    state: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
    optional: Mapping[str, tuple[int, ...]],
    network: str,
) -> None:
    """Raises UserError, in one line, if a tensor is missing, unexpected or of the wrong shape.

    `expected` and `optional` give the shapes of the tensors that must and may be in `state`;
    `network` says in the error what the weights do not fit.
    """
    shapes = {**expected, **optional}
    wrong = [
        f'{name} is {_text(np.shape(state[name]))}, not {_text(shape)}'
        for name, shape in shapes.items()
        if name in state and np.shape(state[name]) != shape
    ]
    problems = {
        'missing': [name for name in expected if name not in state],
        'unexpected': [name for name in state if name not in shapes],
        'of the wrong shape': wrong,
    }
    if any(problems.values()):
        texts = [_summary(kind, tensors) for kind, tensors in problems.items() if tensors]
        raise UserError(f'the weights do not fit {network}: {"; ".join(texts)}')


def _text(shape: tuple[int, ...]) -> str:
    """Returns a shape as text, such as '16x3x3x3'."""
    return 'x'.join(map(str, shape)) or 'a scalar'


def _summary(kind: str, tensors: list[str]) -> str:
    """Returns the number of tensors with one kind of problem and the names of the first few."""
    rest = f' and {len(tensors) - SHOWN} more' if len(tensors) > SHOWN else ''
    return f'{len(tensors)} {kind}: {", ".join(tensors[:SHOWN])}{rest}'
