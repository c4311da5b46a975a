"""The images that an evaluation keeps: whole or under another name, so that it can be started again."""

import numpy as np
import PIL.Image
import pytest

from cm_jax.evaluation import images
from tests.helpers.faults import no_file_beyond
from tests.helpers.refusals import refusal

PROTOCOLS = [{'score': 'fd_lenet_40', 'seeds': (7,)}, None]
BATCH = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)


def place(tmp_path):
    return images.folder(str(tmp_path), 4, '0.9', 'multistep@80,1')


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


def test_a_folder_has_its_name_when_all_images_are_there(tmp_path):
    folder = place(tmp_path)
    with images.saving(folder, PROTOCOLS) as save:
        save(7, 0, BATCH)
        save(7, 3, BATCH[:1])
        assert not folder.exists()
    assert files(folder) == ['protocols.json', *(f'seed7/{i:06d}.png' for i in range(4))]
    np.testing.assert_array_equal(PIL.Image.open(folder / 'seed7' / '000001.png'), BATCH[1, ..., 0])
    assert place(tmp_path) == folder and images.are_saved(folder, PROTOCOLS)


def test_an_evaluation_that_was_stopped_is_started_again(tmp_path):
    folder = place(tmp_path)
    with pytest.raises(KeyError), images.saving(folder, PROTOCOLS) as save:
        save(8, 0, BATCH)
        raise KeyError
    assert not images.are_saved(place(tmp_path), PROTOCOLS)
    with images.saving(folder, PROTOCOLS) as save:
        save(7, 0, BATCH)
    assert files(tmp_path) == [f'{folder.name}/{name}' for name in files(folder)]
    assert len(files(folder)) == 4


def test_images_of_another_protocol_or_of_nobody_knows_what_are_left_alone(tmp_path):
    folder = place(tmp_path)
    with images.saving(folder, PROTOCOLS) as save:
        save(7, 0, BATCH)
    said = refusal(images.are_saved, folder, PROTOCOLS[:1])
    assert 'has the images of another protocol; choose another folder' in said
    (folder / images.RECORD).write_text('[{"score"')
    assert 'protocols.json, line 1, is damaged' in refusal(images.are_saved, folder, PROTOCOLS)
    (folder / images.RECORD).unlink()
    assert f'{folder} is not empty' in refusal(place, tmp_path)


def test_a_full_disk_is_told_with_the_folder(tmp_path):
    folder = place(tmp_path)
    with (
        pytest.raises(OSError, match=f'{folder}.writing/seed7'),
        images.saving(folder, PROTOCOLS) as save,
        no_file_beyond(10),
    ):
        save(7, 0, BATCH)
    assert not folder.exists()
