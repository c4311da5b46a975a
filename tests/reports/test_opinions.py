"""Second opinions: columns, stars, and a flag for a winner that loses where it did not search."""

import json

import pytest

from cm_jax.reports import opinions
from cm_jax.reports import rows as report_rows
from tests.helpers.reports import ONE, entries, scored, searched, two_searches


def test_the_best_average_is_the_best_of_all_searches_and_each_average_is_there_once():
    one, two = two_searches()
    averages = report_rows.average_entries([one, two])
    assert len(averages) == 6 and {e.search for e in averages} == {'evolution'}
    better = searched(one=ONE | {'ema* 0.9': 3.9}, name='gradient')
    averages = report_rows.average_entries([one, better])
    assert len(averages) == 7 and averages[-1].search == 'gradient'
    found = [e for e in entries(one, better) if e.model == 'ema']
    assert [(e.weights, e.search) for e in found] == [
        ('ema* 0.9', 'gradient'),
        ('uniform', 'evolution'),
    ]


def test_every_space_has_a_column_and_a_star_where_the_search_of_the_row_used_it():
    found = entries(*two_searches())
    shown = opinions.columns(found)
    assert [c.name for c in shown] == ['fd_lenet', 'fd_pixel', 'recall_pixel']
    cells = {(e.name, e.steps): [opinions.cell(e, c) for c in shown] for e in found}
    assert cells['Teacher', 18] == ['2.00 ± 0.05', '–', '–']
    assert cells['ECT', 1] == ['18.00 ± 0.05', '0.500 ± 0.050', '0.500 ± 0.000']
    assert cells['LCSC (evolution)', 1] == ['3.00 ± 0.05*', '0.400 ± 0.050', '0.500 ± 0.000']
    assert cells['LCSC (gradient)', 1] == ['3.50 ± 0.05*', '0.200 ± 0.050*', '0.500 ± 0.000*']
    assert [c.name for c in opinions.columns(entries())] == ['fd_lenet']
    lowest = opinions.best([e for e in found if e.steps == 1], shown[1])
    assert lowest.name == 'LCSC (gradient)'
    assert opinions.best(found[:2], shown[1]) is None
    assert opinions.words(found) == [
        'LCSC (evolution) searched in fd_lenet, and did not use fd_pixel.',
        'LCSC (gradient) searched in fd_lenet and fd_pixel; nothing else was measured.',
    ]


def opinion(value, pixel, used=(), model='lcsc'):
    """A row whose seeds have these values by the LeNet, and by the pixels."""
    row = scored(value[0], 'onestep', pixel=pixel[0])
    row['values'], row['others']['fd_pixel']['values'] = value, pixel
    report = report_rows.Report('evolution', used, 'onestep', 41, [row])
    return report_rows.Entry(model, 'ema 0.99', row, report)


@pytest.mark.parametrize(
    'value, pixel, used, flagged',
    [
        ([3.0, 3.2], [0.75, 0.25], ('fd_lenet',), True),  # gains, and loses by the mean
        ([3.0, 3.2], [0.5, 0.25], ('fd_lenet',), False),  # the mean is the same
        ([3.0, 3.2], [0.2, 0.2], ('fd_lenet',), False),
        ([4.0, 4.2], [0.5, 0.5], ('fd_lenet',), False),  # loses everywhere: it gained nothing
        ([3.0, 3.2], [0.5, 0.5], ('fd_lenet', 'fd_pixel'), False),  # it used both
        ([4.5, 4.6], [0.1, 0.1], ('fd_pixel',), True),
        ([3.0, 3.2], [0.5, None], ('fd_lenet',), False),  # not finite
    ],
)
def test_a_winner_that_loses_where_it_did_not_search_is_flagged(value, pixel, used, flagged):
    average = opinion([4.0, 4.2], [0.375, 0.375], model='ema')
    text = opinions.loses_elsewhere(opinion(value, pixel, used), average)
    assert bool(text) == flagged
    if flagged:
        gained, lost = used[0], ({'fd_lenet', 'fd_pixel'} - {*used}).pop()
        assert 'LCSC (evolution) is better than the best average, ema 0.99' in text
        assert f'where it searched, in {gained} (' in text and f'in {lost} (' in text
        assert text.startswith('With 1 evaluation, ')


def test_a_space_that_the_average_was_not_measured_in_flags_nobody():
    average = report_rows.Entry('ema', 'ema 0.99', scored(4.0, 'onestep'))
    assert opinions.loses_elsewhere(opinion([3.0], [9.0], ('fd_lenet',)), average) is None


def test_the_results_name_the_search_its_spaces_and_who_lost():
    found = opinions.results(entries(*two_searches()))
    assert json.loads(json.dumps(found)) == found
    lcsc = [row for row in found if row['model'] == 'lcsc']
    assert [row['search'] for row in lcsc] == ['evolution', 'gradient'] * 2
    assert [row['searched'] for row in lcsc[:2]] == [['fd_lenet'], ['fd_lenet', 'fd_pixel']]
    assert 'worse where it did not, in fd_pixel (0.4 against 0.3)' in lcsc[0]['flag']
    assert lcsc[1]['flag'] is None and found[0]['fd_pixel'] is None
    assert (lcsc[1]['fd_pixel'], lcsc[1]['recall_pixel']) == (0.2, 0.5)
    assert all(row['search'] is row['searched'] is row['flag'] is None for row in found[:4])


def test_the_terminal_table_is_aligned_and_says_below_it_what_was_searched():
    lines = opinions.table(entries(*two_searches())).split('\n')
    assert lines[0].split() == [
        'model',
        'steps',
        'evaluations',
        'fd_lenet',
        'fd_pixel',
        'recall_pixel',
    ]
    assert len(lines) == 11 + 1 + 1 + 2 + 2 and not lines[11]
    assert lines[5].startswith('LCSC (evolution) ') and '  3.00 ± 0.05*  ' in lines[5]
    assert lines[4].startswith('Best average, ema 0.99 ')
    column = lines[0].index('fd_pixel')
    assert all(line[column - 2 : column] == '  ' and line[column] != ' ' for line in lines[:11])
    assert lines[12].startswith('* in a space') and lines[13].startswith(
        'LCSC (evolution) searched'
    )
    assert all('is better than the best average' in line for line in lines[-2:])


@pytest.mark.parametrize('used, flagged', [(('fd_lenet',), True), (('fd_pixel',), False)])
def test_a_winner_that_loses_with_a_sampler_that_it_did_not_search_is_flagged(used, flagged):
    """It loses in fd_lenet and gains in fd_pixel, where it counts only if the search used fd_lenet."""
    found = opinion([4.5, 4.6], [0.1, 0.1], used)
    average = opinion([4.0, 4.2], [0.375, 0.375], model='ema')
    assert opinions.loses_with_another_sampler(found, average) is None
    another = found.report._replace(sampler='multistep@80,0.8')
    text = opinions.loses_with_another_sampler(found._replace(report=another), average)
    sentence = (
        'LCSC (evolution) searched with multistep@80,0.8. With onestep it is worse than the best '
        'average, ema 0.99, in fd_lenet (4.55 against 4.1).'
    )
    assert text == (sentence if flagged else None)
