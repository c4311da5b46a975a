"""The report: which rows, which refusals, and its pictures."""

import io
import json

import numpy as np
import PIL.Image
import pytest

from cm_jax.errors import UserError
from cm_jax.reports import opinions, plots
from cm_jax.reports import rows as report_rows
from tests.helpers import commands
from tests.helpers.reports import PIXEL, entries, record, scored, teacher, two_searches


def test_the_rows_and_the_best_average_of_each_sampler():
    found = opinions.results(entries())
    assert json.loads(json.dumps(found)) == found
    shown = [(r['model'], r['steps'], r['evaluations'], r['fd_lenet']) for r in found]
    assert shown == [
        ('teacher', 18, 35, 2.0),
        ('teacher', 1, 1, 180.0),
        ('ect', 1, 1, 18.0),
        ('ema', 1, 1, 4.0),
        ('lcsc', 1, 1, 3.0),
        ('ect', 2, 2, 22.0),
        ('ema', 2, 2, 3.2),
        ('lcsc', 2, 2, 2.4),
    ]
    for row in found:
        assert row['samples'] == 5000 and row['seeds'] == [1000, 1001]
        assert row['fd_lenet_std'] == 0.05
    assert [e.weights for e in entries() if e.model == 'ema'] == ['ema 0.99', 'uniform']


def test_the_teacher_row_is_of_its_average_and_measured_like_the_others():
    like = scored(0.0, 'onestep')
    rows = [
        scored(1.0, 'heun@18', ema=''),
        scored(1.1, 'heun@18', ema='0.995', step=6),
        scored(1.2, 'heun@18', ema='0.995', samples=2000),
        scored(1.3, 'heun@18', ema='0.995', seeds=(5,)),
        scored(1.4, 'heun@3', ema='0.995'),
        scored(1.5, 'heun@18', ema='0.995'),
        scored(180.0, 'onestep', ema='0.995', seeds=(5,)),
    ]
    for order in (rows, rows[::-1]):
        many, one = report_rows.teacher_entries(teacher(*order), like)
        assert (many.value, many.steps, many.weights) == (1.5, 18, '0.995')
        assert (one.value, one.score) == (180.0, '180.00')


@pytest.mark.parametrize(
    'rows, sampler',
    [
        ([], 'heun@18'),
        ([scored(1.0, 'onestep', ema='0.995')], 'heun@18'),
        ([scored(1.0, 'heun@18', ema='0.995')], 'onestep'),
    ],
)
def test_a_missing_score_names_the_command_that_makes_it(rows, sampler):
    text = f"cm_jax.evaluate --workdir=runs/teacher --ema='0.995' --sampler={sampler}"
    with pytest.raises(UserError, match=text):
        report_rows.teacher_entries(teacher(*rows), scored(0.0, 'onestep'))


def test_scores_of_different_protocols_are_refused_by_name():
    mixed = entries()
    report_rows.check_comparable(mixed)
    mixed[0] = mixed[0]._replace(row=scored(2.0, 'heun@18', ema='0.995', samples=2000))
    with pytest.raises(UserError, match=r'Teacher .* samples: 2000 there, 5000 here'):
        report_rows.check_comparable(mixed)


def test_second_opinions_are_compared_by_their_own_protocols():
    """A row need not have them; of two that do, both were measured alike."""
    mixed = entries(*two_searches())
    report_rows.check_comparable(mixed)
    like = [e for e in mixed if e.model == 'lcsc'][-1].row
    rows = [scored(2.0, spec, ema='0.995', pixel=1.0) for spec in ('heun@18', 'onestep')]
    plain = [scored(1.0, spec, ema='0.995') for spec in ('heun@18', 'onestep')]
    for order in (rows + plain, plain + rows):
        measured = report_rows.teacher_entries(teacher(*order), like)
        assert [e.value for e in measured] == [2.0, 2.0]
    report_rows.check_comparable(measured + mixed)
    other = record('heun@18', ema='0.995', extractor=PIXEL._replace(checksum='bad'))
    wrong = rows[0] | {'others': {'fd_pixel': {'values': [1.0] * 2, 'protocol': other}}}
    with pytest.raises(UserError, match=r"Teacher .* extractor.checksum: 'bad' there, 'f00d' here"):
        report_rows.check_comparable([measured[0]._replace(row=wrong), *mixed])


def test_grids_are_enlarged_pixel_by_pixel():
    images = np.arange(3 * 2 * 2).reshape(3, 2, 2, 1).astype(np.uint8)
    grid = plots.tile(images, columns=2, scale=3, gap=1)
    assert grid.shape == (13, 13, 4)
    np.testing.assert_array_equal(grid[:6:3, :6:3, 0], images[0, :, :, 0])
    np.testing.assert_array_equal(grid[2:6:3, 9:13:3, 0], images[1, :, :, 0])
    np.testing.assert_array_equal(grid[7::3, :6:3, 1], images[2, :, :, 0])
    assert (grid[:6, :6, 3] == 255).all()
    assert not grid[6, :, 3].any() and not grid[7:, 7:, 3].any()


def test_the_picture_is_as_wide_as_a_readme_and_shows_the_very_pixels():
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), np.uint8)
    panel = plots.Panel(images, 'LCSC', '1 evaluation', 'fd_lenet 3.00', '#d55e00')
    png = plots.comparison([panel] * 5, 5)
    picture = np.asarray(PIL.Image.open(io.BytesIO(png)).convert('RGB'))
    assert picture.shape[1] == 1200
    grid = plots.tile(images, 5, 5, gap=2)
    shown = picture[24 : 24 + len(grid), 24 : 24 + grid.shape[1]]
    white = np.where(grid[..., 3:] == 255, grid[..., :3], 255)
    np.testing.assert_array_equal(shown, white)


@pytest.mark.parametrize('side, scale', [(28, 2), (32, 2), (64, 1)])
def test_panels_of_any_images_have_room_for_their_texts(side, scale):
    panel = plots.Panel(np.zeros((5, side, side, 1), np.uint8), 'LCSC (evolution)', '', '', 'k')
    (width, _) = PIL.Image.open(io.BytesIO(plots.comparison([panel] * 2, 5))).size
    assert width == 2 * (5 * side * scale + 4 * 2) + 2 * 24 + 28


def test_a_missing_run_names_the_command_that_makes_it(tmp_path):
    line = commands.error('report', f'--workdir={tmp_path}')
    assert f'{tmp_path}/teacher has no config.json' in line
    assert f'cm_jax.train --config=configs/digits_edm.py --workdir={tmp_path}/teacher' in line
    for model in ('teacher', 'other'):
        (tmp_path / model / 'trajectory').mkdir(parents=True)
        for name in ('config.json', 'data_card.json'):
            (tmp_path / model / name).write_text('{}')
    line = commands.error('report', f'--workdir={tmp_path}', f'--ect={tmp_path}/other')
    assert f'{tmp_path}/lcsc has no search.json' in line and 'cm_jax.search' in line
