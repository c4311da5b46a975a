"""EDM2's reference statistics: a pickle, read without running it, with a part for each extractor."""

import pickle

import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.evaluation import extractors, references
from cm_jax.metrics import moments
from cm_jax.settings import Evaluation
from cm_jax.types import Extractor
from tests.helpers import weight_files


def extractor(name, score, dim):
    return Extractor(name, score, dim, lambda params, x: x, (), None, 'c0ffee')


FID = extractor('inception', 'fid', 4)
DINO = extractor('dinov2_vitl14', 'fd_dinov2', 6)


def statistics(dim, seed):
    features = np.random.default_rng(seed).normal(size=(50, dim))
    return {'mu': features.mean(0), 'sigma': np.cov(features, rowvar=False)}


def load(path, extractor, keep=False):
    return references.load(str(path), extractor, 8, keep)


def test_each_extractor_gets_its_own_part(tmp_path):
    stats = {'fid': statistics(4, 0), 'fd_dinov2': statistics(6, 1)}
    path = tmp_path / 'img64.pkl'
    for protocol in (2, 4, 5):
        path.write_bytes(pickle.dumps(stats, protocol))
        for one in (FID, DINO):
            found = load(path, one).moments
            np.testing.assert_array_equal(found.mean, stats[one.score]['mu'])
            np.testing.assert_array_equal(moments.covariance(found), stats[one.score]['sigma'])
    assert references.is_file('img64.pkl') and not references.is_of_one_extractor('img64.pkl')


def test_one_file_serves_a_second_opinion_too():
    evaluation = Evaluation(extractor='pixel', second=('lenet_digits',))
    for reference, kept in (('img64.pkl', ('lenet_digits',)), ('train.npz', ())):
        found = extractors.override(evaluation, {'reference': reference}, fetch=False)
        assert found.second == kept, reference


def test_what_is_wrong_is_one_line(tmp_path):
    path, marker = tmp_path / 'img64.pkl', tmp_path / 'marker'
    with pytest.raises(UserError, match=r'it is published at https://.*/dataset-refs/img64\.pkl$'):
        load(path, FID)
    whole = {'fid': statistics(4, 0), 'fd_dinov2': statistics(6, 1)}
    for content, one, message in (
        ({'fid': whole['fid']}, DINO, "for the extractor 'dinov2_vitl14' 'fd_dinov2'; legal: fid"),
        (whole, FID._replace(dim=2048), 'is of 4 features, and the extractor inception has 2048'),
        (
            {'fid': {'mu': np.zeros(4)}},
            FID,
            'no reference statistics mu and sigma: it holds fid.mu',
        ),
        ({'fid': {'mu': np.zeros(4), 'sigma': -np.eye(4)}}, FID, 'no covariance'),
    ):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=message) as error:
            load(path, one)
        assert '\n' not in str(error.value)
    path.write_bytes(pickle.dumps(whole))
    with pytest.raises(UserError, match='mu and sigma alone'):
        load(path, FID, keep=True)
    bad = {'fid': {'mu': weight_files.Command(marker)}}
    path.write_bytes(weight_files.plain_pickle(bad))
    with pytest.raises(UserError, match=r'refused: .* asks for os\.system'):
        load(path, FID)
    assert not marker.exists()
