"""The source tfds: slices of a split, how to prepare what is not there, files that are damaged."""

import shutil

import numpy as np
import pytest

from cm_jax import data
from cm_jax.errors import UserError
from tests.helpers.data_files import everything, png


def test_plain_tfds_reads_it_too(idx_set):
    import tensorflow_datasets as tfds

    records = tfds.data_source('small', split='train', data_dir=idx_set[2])
    assert len(records) == 200 and records[0]['image'].shape == (7, 5, 1)
    assert tfds.builder('small', data_dir=idx_set[2]).info.features['label'].names == [
        '0',
        '1',
        '2',
    ]


def test_slices_of_a_split(idx_set):
    whole, _ = everything('small', idx_set[2])
    part, _ = everything('small', idx_set[2], 'train[10%:25%]')
    assert part.count == 30 and part.card is None
    everywhere = np.arange(30)
    np.testing.assert_array_equal(part.get(everywhere)[0], whole.get(everywhere + 20)[0])
    assert everything('small', idx_set[2], 'train+test')[0].count == 220
    assert everything('small:1.0.0', idx_set[2])[0].count == 200


@pytest.mark.parametrize(
    'split', ['valid', 'train[:0%]', 'train[9:3]', 'train[abc]', 'all[:3]', '']
)
def test_a_wrong_split_lists_the_legal_ones(idx_set, split):
    with pytest.raises(UserError, match=r'legal: train \(200\), test \(20\), all, and slices'):
        data.open_source('tfds', split, name='small', data_dir=str(idx_set[2]))


def test_a_set_that_is_not_prepared_says_how_to(idx_set, tmp_path):
    cases = {
        'fashion_mnist': f'--dataset=fashion_mnist --data_dir={tmp_path}',
        'cifar10:3.0.2': f'--dataset=cifar10 --from=PATH --data_dir={tmp_path}',
    }
    for name, command in cases.items():
        with pytest.raises(UserError) as error:
            data.open_source('tfds', 'train', name=name, data_dir=str(tmp_path))
        assert str(error.value).endswith(f'python -m cm_jax.prepare {command}')
    with pytest.raises(UserError, match=r'small:2.0.0 is not prepared'):
        data.open_source('tfds', 'train', name='small:2.0.0', data_dir=str(idx_set[2]))
    with pytest.raises(UserError, match=r'legal: dataset, dataset/config'):
        data.open_source('tfds', 'train', name='../small', data_dir=str(idx_set[2]))


def test_images_that_differ_in_size_say_what_to_do(tmp_path):
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():

        class Varying(tfds.core.GeneratorBasedBuilder):
            name, VERSION = 'varying', tfds.core.Version('1.0.0')

            def _info(self):
                features = tfds.features.FeaturesDict({'image': tfds.features.Image()})
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, dl_manager):
                return {'same': self._generate_examples(4, 4), 'odd': self._generate_examples(4, 5)}

            def _generate_examples(self, first, second):
                for index, side in enumerate((first, second)):
                    yield index, {'image': png(np.zeros((side, 4, 3), np.uint8))}

    Varying(data_dir=tmp_path).download_and_prepare(file_format='array_record')
    source, _ = everything('varying', tmp_path, 'same')
    assert (source.image_shape, source.num_classes) == ((4, 4, 3), 0)
    with pytest.raises(
        UserError, match=r'different sizes.*--dataset=varying_64 --from=PATH --size=64'
    ):
        data.open_source('tfds', 'odd', name='varying', data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ('file', 'change', 'says'),
    [
        ('features.json', lambda text: text[: len(text) // 2], 'is truncated or damaged'),
        ('dataset_info.json', lambda text: text[: len(text) // 2], 'is truncated or damaged'),
        ('dataset_info.json', lambda text: text.replace('array_record', 'other'), 'damaged'),
        (
            'data_card_train.json',
            lambda text: text[:40],
            r'data_card_train.json, line \d+, is damaged',
        ),
        (
            'features.json',
            lambda text: text.replace('tensorflow_datasets.core', 'mine'),
            'asks for',
        ),
        ('features.json', lambda text: text.replace('"7",', '"7", "7",'), r'\(7, 7, 5, 1\); legal'),
    ],
)
def test_damaged_files_of_a_data_set_are_one_line(
    idx_set, tmp_path, monkeypatch, file, change, says
):
    folder = shutil.copytree(idx_set[2] / 'small', tmp_path / 'small') / '1.0.0'
    (tmp_path / 'mine.py').write_text('raise SystemExit("it ran")')
    monkeypatch.syspath_prepend(tmp_path)
    path = folder / file
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=says) as error:
        data.open_source('tfds', 'train', name='small', data_dir=str(tmp_path))
    assert '\n' not in str(error.value)


def test_damaged_records_are_one_line(idx_set, tmp_path):
    folder = shutil.copytree(idx_set[2] / 'small', tmp_path / 'small') / '1.0.0'
    (records,) = folder.glob('*train.array_record*')
    records.write_bytes(records.read_bytes()[:-3000])
    with pytest.raises(UserError, match='is truncated or damaged'):
        everything('small', tmp_path)
