"""The page of a report: whole, and in need of nothing but itself."""

import html.parser

import numpy as np
import pytest

from cm_jax.lcsc import plots as search_plots
from cm_jax.lcsc.identity import Identity
from cm_jax.reports import comparison_page as page
from cm_jax.reports import page_search, plots
from cm_jax.reports import rows as report_rows
from cm_jax.settings import Budget, SearchSettings
from tests.helpers.reports import ONE, entries, searched, two_searches


def search_part(name, method='evolution', **budget):
    ema_star = Identity('ema*', 'ema* 0.9')
    candidates = [
        {'generation': g, 'profile': None if g else ema_star, 'score': s}
        for g in (0, 1, 2)
        for s in (5.0 - g, None, 9.0)
    ]
    settings = SearchSettings(
        budget=Budget(samples=2000, seed=10, selection_seeds=(20, 21), finalists=8, **budget),
        search={'method': method},
    )
    coefficients = search_plots.coefficients(
        [4, 8, 12], np.array([[-0.5, 0.5, 1.0]]), ('',), [0.1, 0.3, 0.6], 'ema* 0.9', 4
    )
    progress = search_plots.progress(candidates, [], 'fd_lenet', settings.is_descent)
    return page_search.SearchPart(
        name=f'LCSC ({name})',
        settings=settings,
        metric=page_search.minimised(settings.budget, 'fd_lenet'),
        candidates=9,
        snapshots=41,
        progress=plots.to_svg(progress, f'search {name}'),
        coefficients=plots.to_svg(coefficients, f'coefficients {name}'),
    )


def make_page(*reports, **settings):
    found = entries(*reports, **settings)
    metrics = [{'step': s, 'loss': 1.0 + 1 / s, 'distance': 1 / s} for s in (4, 8, 12)]
    figures = {
        'teacher': plots.curves(metrics, ('loss', 'distance'), 'loss', 'teacher'),
        'ect': plots.curves(metrics, ('loss', 'distance'), 'loss', 'ect', 4),
    }
    picture = plots.to_png(np.zeros((4, 4, 3), np.uint8))
    return page.Page(
        dataset='<digits>',
        entries=found,
        averages=report_rows.average_entries(reports or [searched()]),
        grids=[(entry, picture) for entry in found],
        grid_note='the same noise',
        plots={name: plots.to_svg(figure, name) for name, figure in figures.items()},
        stage=4,
        searches=[
            search_part('evolution'),
            search_part('gradient', 'gradient', metric='fd_lenet+fd_pixel', units='relative'),
        ],
        facts={'ECT': '768 images'},
        settings={'ECT': {'objective': {'name': '<b>ect'}}},
    )


class Checker(html.parser.HTMLParser):
    """Collects tags with attributes, and asserts that each is closed in order."""

    VOID = ('meta', 'img', 'br', 'link', 'wbr')

    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope='module')
def rendered():
    text = page.render(make_page(*two_searches()))
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return text, checker.tags


def test_the_page_needs_nothing_but_itself(rendered):
    text, tags = rendered
    assert 'http:' not in text and 'https:' not in text and '//www' not in text
    assert '@import' not in text and 'url(' not in text.replace('url(#', '')
    assert not {'script', 'link', 'iframe', 'object'} & {tag for tag, _ in tags}
    for _, attributes in tags:
        for name in ('src', 'href', 'xlink:href'):
            assert attributes.get(name, '#').startswith(('#', 'data:image/png;base64,'))


def test_the_page_is_whole_and_escaped(rendered):
    text, tags = rendered
    names = [tag for tag, _ in tags]
    assert names.count('img') == 10 and names.count('svg') == 6
    assert all(attributes['alt'] for tag, attributes in tags if tag == 'img')
    ids = [attributes['id'] for _, attributes in tags if 'id' in attributes]
    used = {a['xlink:href'][1:] for _, a in tags if 'xlink:href' in a}
    assert len(ids) == len(set(ids)) and used <= set(ids)
    assert '&lt;digits&gt;' in text and '&lt;b&gt;ect' in text and '<b>ect' not in text
    for expected in ('seed 10, 2,000 samples', 'seeds 20, 21, as many samples', 'seeds 1000, 1001'):
        assert expected in text


def test_a_run_that_was_not_trained_here_has_no_plot():
    """Its weights were imported, and its folder has no metrics."""
    whole = make_page()
    text = page.training(whole._replace(plots={'ect': whole.plots['ect']}))
    assert text.count('<svg') == 1 and 'Loss of ECT' in text and 'Loss of the teacher' not in text


def test_the_page_says_which_spaces_were_searched_and_flags_who_lost(rendered):
    text, tags = rendered
    assert 'LCSC (evolution) searched in fd_lenet, and did not use fd_pixel.' in text
    flags = [attributes for tag, attributes in tags if attributes.get('class') == 'flag']
    assert len(flags) == 2 and text.count('is better than the best average') == 2
    assert text.count('0.400 ± 0.050</td>') == 2 and text.count('0.200 ± 0.050*</td>') == 2
    assert 'LCSC (gradient) for fd_lenet+fd_pixel, each in units of' in text
    assert text.count('scored on noise of its own') == 1
    assert 'fd_pixel: pixel, checksum f00d' in text


def test_the_summary_says_what_the_numbers_say():
    better = page.summary(make_page()).replace('\u00a0', ' ')
    assert 'the best average of its weights, ema 0.99, reaches 4.00' in better
    assert 'LCSC (evolution) reaches 3.00 ± 0.05, 25 % lower than the best average' in better
    assert 'lower on 2 of 2 noise seeds' in better and '83 % lower than the last' in better
    assert 'With 2 evaluations LCSC (evolution) reaches 2.40, 25 % lower than' in better
    assert '2.00 with 35 evaluations and 180.00 with 1 evaluation' in better
    worse = page.summary(make_page(one=ONE | {'lcsc': 5.0})).replace('\u00a0', ' ')
    assert '25 % higher than the best average' in worse and 'lower on 0 of 2' in worse
