"""The operators of the evolutionary search."""

import numpy as np

from cm_jax.lcsc import evolution
from cm_jax.lcsc.archive import Archive

K = 20


def children(pool: np.ndarray, count: int, **settings) -> np.ndarray:
    """Children of a pool [M, G, K] whose order is their rank, with next to no mutation."""
    chosen = {
        'population': count,
        'parents': len(pool),
        'mutation': 0.0,
        'scale': 1e-9,
        'touch': 1.0,
    }
    archive = Archive(pool, np.arange(len(pool), dtype=float))
    found = evolution.Settings(**(chosen | settings))
    return evolution.propose(found, archive, None, np.random.default_rng(0))


def parents(count: int, groups: int = 1, k: int = K) -> np.ndarray:
    rows = np.random.default_rng(1).normal(size=(count, groups, k))
    rows[..., 0] += 1 - rows.sum(-1)
    return rows


def test_mutation_has_the_rate_and_the_scale_it_is_given():
    pool = parents(2, k=80)
    found = children(pool, 400, crossover=0.0, mutation=0.25, scale=0.065)
    nearest = np.argmin(np.sum((found[:, None] - pool[None]) ** 2, (2, 3)), axis=1)
    steps = (found - pool[nearest])[:, 0, 1:]
    assert 0.4 < nearest.mean() < 0.6
    changed = np.abs(steps) > 1e-12
    np.testing.assert_allclose(changed.mean(), 0.25, atol=0.02)  # and one more, drawn alike
    np.testing.assert_allclose(steps[changed].std(), 0.065 / 2, rtol=0.05)  # sqrt(20 / 80)
    assert (
        np.count_nonzero(np.abs(children(pool, 50, crossover=0.0) - pool[0]) > 0, axis=2) > 0
    ).all()


def test_a_child_of_two_is_on_the_line_through_them_or_mixed_entry_by_entry():
    pool = parents(2)
    a, b = pool[:, 0]
    for child in children(pool, 50, crossover=1.0, blend=1.0)[:, 0]:
        u = (child - a) @ (b - a) / np.sum((b - a) ** 2)
        assert -0.25 - 1e-6 < u < 1.25 + 1e-6
        np.testing.assert_allclose(child, a + u * (b - a), atol=1e-7)
    mixed = children(pool, 200, crossover=1.0, blend=0.0, first=0.9)[:, 0, 1:]
    from_a, from_b = (np.abs(mixed - parent[None, 1:]) < 1e-7 for parent in (a, b))
    assert (from_a ^ from_b).all()
    share = from_a.mean(1)
    np.testing.assert_allclose(np.maximum(share, 1 - share).mean(), 0.9, atol=0.02)


def test_groups_that_are_not_touched_come_whole_from_a_parent():
    pool = parents(5, groups=6)
    found = children(pool, 100, crossover=0.5, mutation=1.0, scale=0.1, touch=0.25)
    whole = (np.abs(found[:, None] - pool[None]).max(-1) < 1e-12).any(1)  # [children, groups]
    assert not whole.all(1).any()
    np.testing.assert_allclose(1 - whole.mean(), 0.25 / (1 - 0.75**6), atol=0.05)


def test_only_the_best_are_parents():
    pool = parents(12)
    found = children(pool, 60, parents=3, crossover=0.0)
    nearest = np.argmin(np.sum((found[:, None] - pool[None]) ** 2, (2, 3)), axis=1)
    assert set(nearest) == {0, 1, 2}
