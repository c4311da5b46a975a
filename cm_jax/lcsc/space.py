"""Groups of weights, each with coefficients of its own."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cm_jax.core import tree
from cm_jax.errors import UserError
from cm_jax.types import Array, Params

PATH = re.compile(r'^\^(.*?)(?:\(/\|\$\)|\$)$')  # a pattern that is a path, and what is below it
TOP_LEVEL, LEAVES = 'top_level', 'leaves'


class Space(NamedTuple):
    """G groups of weights, each with coefficients of its own, by regular expressions.

    A leaf belongs to the first group whose pattern matches somewhere in its path, which is written
    'params/encoder/conv1/kernel'. The pattern '' matches every leaf. A candidate is the coefficients of
    the groups one after another, [G K]; the K of each group sum to 1.
    """

    patterns: tuple[str, ...] = ('',)

    @property
    def groups(self) -> int:
        return len(self.patterns)

    def indices(self, params: Params) -> Params:
        """Returns the group of each leaf. Raises UserError if a leaf has none."""
        paths = ['/'.join(path) for path in tree.flatten(params)]
        groups = [self._index(path) for path in paths]
        if missing := [path for path, group in zip(paths, groups) if group is None]:
            raise UserError(
                f'no pattern of the groups {", ".join(self.patterns)} is found in '
                f'{len(missing)} of {len(paths)} weights, such as {missing[0]}; a last pattern '
                "'' takes the rest"
            )
        return jax.tree.unflatten(jax.tree.structure(params), groups)

    def _index(self, path: str) -> int | None:
        return next((i for i, p in enumerate(self.patterns) if re.search(p, path)), None)


ONE = Space()


def build(groups: str | Sequence[str], params: Params) -> Space:
    """Returns the space of the setting `groups`, checked against weights.

    () is one group of all weights; 'top_level' makes a group of each part at the level where the
    weights first part, and 'leaves' one of each array of weights; anything else is patterns (see
    Space). Raises UserError on a pattern that is no regular expression, on a leaf without a group and
    on a group without a leaf.
    """
    if groups == TOP_LEVEL:
        return Space(tuple(f'^{re.escape(path)}(/|$)' for path in tree.top_level(params)))
    if groups == LEAVES:
        paths = ['/'.join(path) for path in tree.flatten(params)]
        return Space(tuple(f'^{re.escape(path)}$' for path in paths))
    if isinstance(groups, str):
        raise UserError(
            f'groups must be {TOP_LEVEL!r}, {LEAVES!r} or a sequence of patterns, got {groups!r}'
        )
    for pattern in groups:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f'{pattern!r} is no regular expression: {error}') from error
    space = Space(tuple(groups)) if len(groups) else ONE
    used = set(jax.tree.leaves(space.indices(params)))
    if empty := [p for i, p in enumerate(space.patterns) if i not in used]:
        paths = ['/'.join(path) for path in tree.flatten(params)]
        raise UserError(
            f'the group {empty[0]!r} holds no weights: none of its pattern, or all of them in a '
            f'group before it; weights are named {paths[0]} to {paths[-1]}'
        )
    return space


def names(patterns: Sequence[str]) -> list[str]:
    """Returns the names of groups for people: a pattern that is a path, as in 'leaves', is the path.

    The pattern '' is 'all' if there is no other group, and else 'rest'.
    """
    paths = (re.sub(r'\\(.)', r'\1', PATH.sub(r'\1', pattern)) for pattern in patterns)
    return [path or ('rest' if len(patterns) > 1 else 'all') for path in paths]


def add(space: Space, weights: Params, differences: Params, coefficients: Array) -> Params:
    """Returns weights + sum_k c_k d_k of each candidate, with the c of each group.

    It is computed in the dtype of the weights.

    Leaves [devices, T, ...], leaves [K, ...] of any dtype and [devices, T, G, K] -> leaves
    [devices, T, ...].
    """

    def one(weight: Array, each: Array, group: int) -> Array:
        rows = each.reshape(len(each), -1).astype(weight.dtype)
        moved = jnp.matmul(coefficients[:, :, group], rows, precision='highest')
        return weight + moved.reshape(weight.shape)

    return jax.tree.map(one, weights, differences, space.indices(weights))


def products(space: Space, weights: Params, differences: Params) -> Array:
    """Returns the inner products <w, d_k> over the weights of each group, in the dtype of the weights.

    Leaves [...], leaves [K, ...] of any dtype -> [G, K].
    """
    groups = jax.tree.leaves(space.indices(weights))
    pairs = zip(groups, jax.tree.leaves(weights), jax.tree.leaves(differences))
    totals = [jnp.zeros(()) for _ in range(space.groups)]
    for group, weight, each in pairs:
        rows = each.reshape(len(each), -1).astype(weight.dtype)
        totals[group] = totals[group] + jnp.matmul(rows, weight.reshape(-1), precision='highest')
    return jnp.stack(totals)
