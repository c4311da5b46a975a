"""Extractors by one text, several beside each other, and an evaluation with other ones."""

import jax
import numpy as np
import pytest

from cm_jax.evaluation import extractors
from cm_jax.evaluation.extractors import check_spec, open_spaces, open_spec, override
from cm_jax.metrics import named
from cm_jax.metrics.precision_recall import RealFeatures
from cm_jax.models import lenet, pixels
from cm_jax.settings import Evaluation
from cm_jax.weights import vgg16
from tests.helpers.lpips_weights import made_up
from tests.helpers.refusals import refusal

PACKAGED = ['lenet_digits', 'lenet_digits_2', 'lenet_fashion_mnist', 'pixel', 'pixel_rgb']
PUBLIC = {  # the file of an extractor's weights, and where it is published
    'inception': (
        'pt_inception-2015-12-05-6726825d.pth',
        'https://github.com/mseitzer/pytorch-fid/',
    ),
    'dinov2_vitl14': ('dinov2_vitl14_pretrain.pth', 'https://dl.fbaipublicfiles.com/'),
    'vgg16': ('', ''),
}
FROM_FILES = list(PUBLIC)


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    """A file of made-up weights of VGG-16, with '=' in its name."""
    path = tmp_path_factory.mktemp('vgg') / 'seed=0.npz'
    np.savez(path, **made_up('vgg')[0])
    return str(path)


@pytest.mark.parametrize('name', PACKAGED)
def test_packaged_extractors_by_their_names(name):
    check_spec(name)
    opened = open_spec(name)
    assert opened.name == extractors.open_extractor(Evaluation(extractor=name)).name == name
    channels = 3 if name == 'pixel_rgb' else 1
    assert jax.eval_shape(opened.features, np.zeros((2, 9, 9, channels))).shape == (2, opened.dim)


@pytest.mark.parametrize('name', FROM_FILES)
def test_a_check_opens_no_file(name):
    check_spec(f'{name}=none.pth')
    extractors.check_extractor(Evaluation(extractor=name, weights='none.pth'))
    assert refusal(open_spec, f'{name}=none.pth') == 'no weights file none.pth'


def test_one_text_is_a_name_and_a_file(file):
    wanted = vgg16.load(file)
    for evaluation in (
        Evaluation(extractor=f'vgg16={file}'),
        Evaluation(extractor='vgg16', weights=file),
    ):
        assert extractors.open_extractor(evaluation).checksum == wanted.checksum
    opened = open_spec(f'vgg16={file}')
    assert opened._replace(params=None) == wanted._replace(params=None)


@pytest.mark.parametrize('name', FROM_FILES)
def test_missing_files_are_refused(name):
    """With the public name of the file and where it is, and how to give it."""
    file, url = PUBLIC[name]
    for spec in (name, f'{name}='):
        for check in (check_spec, open_spec):
            said = refusal(check, spec)
            assert f'the extractor {name!r} needs the file of its weights' in said
            assert file in said and url in said and ('--download' in said) == bool(url)
            assert f'{name}=FILE or config.evaluation.weights' in said and 'docs/' in said
    missing = Evaluation(extractor=name)
    assert refusal(extractors.check_extractor, missing) == refusal(check_spec, name)
    extractors.check_unscored(missing)  # a training run that scores nothing needs no file


def test_no_extractor_is_refused_where_something_is_scored():
    for check in (extractors.check_extractor, extractors.open_extractor):
        said = refusal(check, Evaluation())
        assert 'no extractor is named: give config.evaluation.extractor' in said
        assert all(name in said for name in PACKAGED + FROM_FILES)
    extractors.check_unscored(Evaluation())
    for wrong in (Evaluation(extractor='lenet'), Evaluation(extractor='pixel', weights='x.pth')):
        said = refusal(extractors.check_extractor, wrong)
        assert refusal(extractors.check_unscored, wrong) == said


def test_files_of_others_and_unknown_names_are_refused():
    assert "is 'x.pth': 'inception'" in refusal(check_spec, 'pixel=x.pth')
    text = refusal(check_spec, 'vgg=x.pth')
    assert "unknown extractor 'vgg' (did you mean 'vgg16'?); legal: dinov2_vitl14, incept" in text
    assert all(name in text for name in PACKAGED + FROM_FILES)
    two = Evaluation(extractor='vgg16=a.pth', weights='b.pth')
    assert "'vgg16=a.pth' and weights='b.pth' name two files" in refusal(
        extractors.check_extractor, two
    )


def test_spaces_have_scores_of_their_own(file):
    main = lenet.extractor('lenet_digits')
    specs = ['lenet_fashion_mnist', 'pixel', 'pixel_rgb', f'vgg16={file}']
    spaces = open_spaces(main, specs)
    assert [space.score for space in spaces] == [
        *('fd_lenet_fashion_mnist', 'fd_pixel', 'fd_pixel_rgb', 'fd_vgg16')
    ]
    assert spaces[0]._replace(score='fd_lenet', params=0) == lenet.extractor(
        'lenet_fashion_mnist'
    )._replace(params=0)
    beside = open_spaces(pixels.extractor('pixel'), ['lenet_fashion_mnist', 'lenet_digits'])
    assert [space.score for space in beside] == ['fd_lenet', 'fd_lenet_digits']
    assert open_spaces(main, []) == []


def test_spaces_are_refused_before_a_file_is_opened():
    main = lenet.extractor('lenet_digits')
    for specs, name in (
        (['lenet_digits'], 'lenet_digits'),
        (['pixel', 'lenet_fashion_mnist', 'pixel'], 'pixel'),
        (['vgg16=a.pth', 'vgg16=b.pth'], 'vgg16'),
    ):
        assert f'the extractor {name!r} is named twice' in refusal(open_spaces, main, specs)
    assert "unknown extractor 'pixels'" in refusal(open_spaces, main, ['vgg16=a.pth', 'pixels'])


def test_metrics_of_two_lenets_have_names_of_their_own():
    main = lenet.extractor('lenet_digits')
    (other,) = open_spaces(main, ['lenet_fashion_mnist'])
    metrics = [f'{kind}_lenet_fashion_mnist' for kind in ('fd', 'kd', 'is', 'pr')]
    assert list(named.names(other)) == metrics
    parts = [f'{part}_lenet_fashion_mnist' for part in named.PARTS]
    numbers = ['kd_lenet_fashion_mnist', 'is_lenet_fashion_mnist', *parts]
    assert named.keys(other, metrics) == numbers
    assert not set(numbers) & set(named.keys(main, named.names(main)))
    rng = np.random.default_rng(0)
    real, samples = (np.float32(rng.uniform(0, 1, (n, other.dim))) for n in (40, 30))
    found = named.measure(other, metrics, RealFeatures(real), samples)
    plain = lenet.extractor('lenet_fashion_mnist')
    wanted = named.measure(plain, list(named.names(plain)), RealFeatures(real), samples)
    assert list(found) == numbers and list(found.values()) == list(wanted.values())
    assert list(named.names(pixels.extractor('pixel_rgb'))) == [
        *('fd_pixel_rgb', 'kd_pixel_rgb', 'pr_pixel_rgb')
    ]


def test_flags_take_the_place_of_an_evaluations_extractor():
    inception = Evaluation(extractor='inception', weights='i.pth')
    for evaluation, given, wanted in (
        (inception, {'extractor': None, 'weights': None}, ('inception', 'i.pth')),
        (inception, {'weights': 'j.pth'}, ('inception', 'j.pth')),
        (inception, {'extractor': 'inception'}, ('inception', 'i.pth')),
        (inception, {'extractor': 'inception=j.pth'}, ('inception', 'j.pth')),
        (inception, {'extractor': 'pixel'}, ('pixel', '')),
        (inception, {'extractor': 'vgg16=v.pth'}, ('vgg16', 'v.pth')),
        (Evaluation(extractor='vgg16=v.pth'), {'samples': 7}, ('vgg16', 'v.pth')),
        (Evaluation(extractor='vgg16=v.pth'), {'weights': 'w.pth'}, ('vgg16', 'w.pth')),
    ):
        changed = override(evaluation, given, fetch=False)
        assert (changed.extractor, changed.weights) == wanted
        assert changed.samples == given.get('samples', evaluation.samples)


def test_what_flags_may_not_ask_for():
    def refused(fetch=False, **given):
        return refusal(override, Evaluation(), given, fetch=fetch)

    for name in FROM_FILES:
        assert refused(extractor=name) == refusal(check_spec, name)
    assert 'no extractor is named' in refused() and 'no extractor is named' in refused(True)
    assert 'name two files' in refused(extractor='vgg16=a.pth', weights='b.pth')
    assert "download 'vgg16'; legal: dinov2_vitl14, inception" in refused(True, extractor='vgg16')
    without = {'weights': ''}
    given = Evaluation(extractor='vgg16', weights='v.pth')
    assert refusal(override, given, without, fetch=False) == refusal(check_spec, 'vgg16')


def test_second_opinions_are_those_that_suit_what_was_given():
    own = Evaluation(extractor='lenet_digits', second=('lenet_digits_2', 'pixel'))

    def second(**given):
        return override(own, given, fetch=False).second

    assert second() == second(samples=7) == ('lenet_digits_2', 'pixel')
    assert second(extractor='pixel') == ('lenet_digits_2',)
    assert second(reference='train.npz') == ()
    assert second(reference='train.npz', second=('pixel',)) == ('pixel',)
    assert second(second=()) == ()
