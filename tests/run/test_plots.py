"""The pictures of an opened run: what they draw is what the run has, and their axes are labelled."""

import json

import numpy as np
from etils import epath

from cm_jax import run_folder
from cm_jax.config import to_plain
from cm_jax.core.curriculum import ect_r, ict_num_scales
from cm_jax.run import open_run
from cm_jax.run.averages import POSTHOC
from cm_jax.run_folder import DATA_CARD
from tests.helpers import tiny
from tests.helpers.averages import averaged
from tests.helpers.refusals import refusal
from tests.helpers.run_folders import DIGITS
from tests.run.test_open import write_run


def without_weights(folder, config):
    """A run whose training has only begun."""
    run_folder.write_config(epath.Path(folder), to_plain(config))
    (folder / DATA_CARD).write_text(json.dumps(DIGITS))
    return open_run(folder)


def labelled(figure, panels):
    """The panels of a figure, each with the labels of its axes."""
    axes = [each for each in figure.axes if each.get_label() != '<colorbar>'][:panels]
    assert len(axes) == panels
    assert any(each.get_xlabel() for each in axes) and all(
        each.get_ylabel() or each.get_title() for each in axes
    )
    assert figure._repr_png_().startswith(b'\x89PNG')
    return axes


def test_metrics_are_drawn_as_they_were_logged(trained):
    rows = trained.metrics()
    loss, gradient = labelled(trained.plot.metrics(), 2)
    for axes, name in ((loss, 'loss'), (gradient, 'grad_norm')):
        line = axes.lines[0]
        np.testing.assert_array_equal(line.get_xdata(), rows.column('step'))
        np.testing.assert_array_equal(line.get_ydata(), rows.column(name))
    labelled(trained.plot.metrics('learning_rate'), 1)
    assert "unknown column 'los'" in refusal(trained.plot.metrics, 'los')


def test_norms_are_a_map_of_blocks_and_steps(trained):
    growth, moved = labelled(trained.plot.norms(), 2)
    table = trained.norms()
    blocks = list(dict.fromkeys(row['block'] for row in table))
    assert [text.get_text() for text in growth.get_yticklabels()] == ['all blocks', *blocks[1:]]
    values = growth.collections[0].get_array()
    assert values.shape == (len(blocks), 3) and np.all(values[:, 0] == 1)
    assert moved.collections[0].get_array().shape == (len(blocks), 2)


def test_samples_stand_in_a_row_for_each_snapshot(opened):
    (axes,) = labelled(opened.plot.samples(count=3, seed=4), 1)
    picture = np.asarray(axes.images[0].get_array())
    images = opened.sample_each(count=3, seed=4)[..., 0]
    assert picture.shape == (17, 26)
    np.testing.assert_array_equal(picture[9:, 18:], images[1, 2])
    assert [text.get_text() for text in axes.get_yticklabels()] == ['0', '3']


def test_profiles_are_the_weights_of_the_training_steps_in_an_average(tmp_path):
    """Summed with them, the walk's steps are the average that training keeps."""
    weights = write_run(tmp_path / 'run', range(50, 201, 50))
    run = open_run(tmp_path / 'run')
    names = 'power0.05', f'{POSTHOC}0.07'
    (axes,) = labelled(run.plot.averages(*names, step=200), 1)
    for line, sigma_rel, close in zip(axes.lines, (0.05, 0.07), (1e-3, 0.3)):
        assert len(line.get_ydata()) == 200
        found = line.get_ydata() @ weights[:200]
        np.testing.assert_allclose(found, averaged(weights, sigma_rel)[199], atol=close)
    fixed = run.plot.averages('0.9', step=50).axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(fixed, 0.1 * 0.9 ** np.arange(49, -1, -1))
    assert 'unknown average' in refusal(run.plot.averages, '0.5')
    assert run.steps_with(names[1]) == [100, 150, 200]  # at 50 there are too few
    assert 'out of the range' in refusal(run.steps_with, f'{POSTHOC}0.005')


def test_the_schedule_of_ect_is_its_r_of_t(opened):
    double_every = opened.settings.objective['double_every']
    first, second, third = labelled(opened.plot.schedules([0, 2 * double_every]), 3)
    t, r = first.lines[1].get_xdata(), first.lines[1].get_ydata()
    assert len(t) > 1000
    np.testing.assert_allclose(r, ect_r(t, np.int32(2), q=2.0), rtol=1e-5)
    assert np.all(second.lines[0].get_ydata() <= 1)
    means = third.lines[0].get_ydata()
    assert means[0] > means[-1] > 0


def test_the_schedule_of_ict_is_the_number_of_levels(tmp_path):
    config = tiny.get_config('ict')
    config.objective.update({'total_steps': 12, 's0': 2, 's1': 8})
    run = without_weights(tmp_path / 'ict', config)
    third = labelled(run.plot.schedules([0]), 3)[2]
    steps, levels = third.lines[0].get_data()
    assert list(levels) == [int(ict_num_scales(k, 12, 2, 8)) for k in steps]
    assert third.get_ylabel().endswith('N(k)') and levels[-1] > levels[0]


def test_what_cannot_be_drawn_is_said(opened, tmp_path):
    teacher = without_weights(tmp_path / 'edm', tiny.get_config('edm'))
    assert 'compares no pairs' in refusal(teacher.plot.schedules)
    assert 'no metrics yet' in refusal(opened.plot.metrics)
    assert 'at these steps: 3' in refusal(opened.plot.norms, '0.9')
    assert 'no average' in refusal(opened.plot.averages, step=0)
