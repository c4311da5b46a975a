"""The pictures of a search."""

import numpy as np
from etils import epath

from cm_jax.lcsc import plots
from cm_jax.lcsc.identity import Identity
from cm_jax.plotting import save_figure
from tests.helpers.quadratic_search import K


def test_the_plane_goes_through_its_three_snapshots():
    grid = plots.plane(5, 5)
    grid = grid._replace(x=np.array([0.0, 1.0, 2.0]), y=np.array([0.0, 1.0]))
    rows = grid.coefficients(5, 2)
    assert rows.shape == (6, 10)
    np.testing.assert_allclose(rows[:, :5], rows[:, 5:])
    eye = np.eye(5)
    np.testing.assert_array_equal(rows[[0, 1, 3], :5], eye[[0, 2, 4]])
    np.testing.assert_array_equal(rows[2, :5], 2 * eye[2] - eye[0])
    np.testing.assert_allclose(rows.sum(1), 2)


def test_the_best_so_far_never_rises_and_counts_candidates():
    scores = [None, 5.0, 7.0, 4.0, 6.0]
    rows = [{'generation': g, 'score': s} for g, s in zip((0, 0, 1, 1, 2), scores)]
    counts, best = plots.best_so_far(rows)
    assert counts.tolist() == [2, 4, 5] and best.tolist() == [5.0, 4.0, 4.0]


def test_a_running_mean_leaves_out_what_is_not_finite():
    values = plots.running_mean(np.array([1.0, 3.0, np.nan, 5.0, np.nan, np.nan]), 2)
    np.testing.assert_array_equal(values, [1.0, 2.0, 3.0, 5.0, 5.0, np.nan])


def test_a_descent_is_the_best_average_and_then_a_mean_of_steps():
    scores = [None, 5.0, 7.0, 4.0, 6.0]
    rows = [{'generation': g, 'score': s} for g, s in zip((0, 0, 0, 1, 2), scores)]
    counts, values = plots.descent(rows)
    assert counts.tolist() == [3, 4, 5] and values.tolist() == [5.0, 4.0, 5.0]


def test_a_plane_without_a_score_is_drawn_too(tmp_path):
    grid = plots.plane(K, 3)
    figure = plots.landscape(grid, np.full((3, 3), np.nan), range(K), 'fd_lenet')
    save_figure(epath.Path(tmp_path) / 'landscape.png', figure)
    assert (tmp_path / 'landscape.png').stat().st_size > 1000


def test_pictures_are_drawn_whatever_is_missing(tmp_path):
    profile = Identity('ema*', 'ema* 0.5')
    rows = [{'generation': 0, 'score': s, 'profile': profile} for s in (None, -1.0)]
    folder, steps = epath.Path(tmp_path), [10, 20, 30]
    save_figure(folder / 'progress.png', plots.progress(rows, [], 'is', is_descent=False))
    one, two = np.ones((1, 3)), np.ones((2, 3))
    for found in (one, two):
        figure = plots.coefficients(steps, found, ('a', ''), np.ones(3) / 3, 'ema* 0.5')
        save_figure(folder / f'coefficients{len(found)}.png', figure)
    scores = np.array([[1.0, np.nan], [2.0, 3.0]])
    grid = plots.plane(3, 2)
    save_figure(folder / 'landscape.png', plots.landscape(grid, scores, steps, 'fd'))
    assert len(list(folder.glob('*.png'))) == 4


def test_each_of_several_runs_has_a_line_of_its_coefficients():
    profile, runs = np.arange(4) / 6, ['a', 'b', 'a', 'b']
    for groups in (('',), ('in', '')):
        rows = np.arange(4 * len(groups)).reshape(len(groups), 4)
        figure = plots.coefficients([1, 1, 2, 2], rows, groups, profile, 'ema* 0.5', runs=runs)
        lines = [line for line in figure.axes[0].lines if line.get_label().startswith('LCSC')]
        expected = [row[first::2].tolist() for row in rows for first in (0, 1)]
        assert [list(line.get_ydata()) for line in lines] == expected
        assert all(list(line.get_xdata()) == [1, 2] for line in lines)
        assert [line.get_label()[-3:] for line in lines] == [', a', ', b'] * len(groups)


def test_many_groups_are_rows_of_a_map_by_their_names():
    rows, profile = np.arange(15.0).reshape(5, 3), np.ones(3) / 3
    groups = [*(f'^block{i}(/|$)' for i in range(4)), '']
    figure = plots.coefficients([2, 4, 8], rows, groups, profile, 'ema* 0.5')
    axes = figure.axes[0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ['ema* 0.5', 'block0', 'block1', 'block2', 'block3', 'rest']
    drawn = axes.collections[0].get_array()
    np.testing.assert_array_equal(drawn, np.vstack([profile, rows]))
