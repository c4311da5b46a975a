"""The rules by which images are cropped and resized: their pixels, and what a config may demand."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from cm_jax import data
from cm_jax.data import card, images
from cm_jax.data.prepare import prepare
from cm_jax.errors import UserError
from tests.helpers.data_files import everything, made_up, pairs, png
from tests.helpers.paths import FIXTURES


def fixture_cases():
    """(image, size, what ADM's crop makes of it) of each entry of the fixture."""
    with np.load(FIXTURES / 'crop_adm.npz') as stored:
        for name in stored.files:
            number, _, target = name.partition('/to_')
            if target:
                yield stored[f'{number}/image'], int(target), stored[name]


def test_adm_crop_is_that_of_the_public_code_byte_for_byte():
    cases = list(fixture_cases())
    assert len(cases) == 8
    for image, size, expected in cases:
        found = images.adm_crop(image, size)
        assert found.dtype == np.uint8 and found.shape == (size, size, 3)
        assert np.array_equal(found, expected), (image.shape, size)
        grey = images.adm_crop(image[..., :1], size)
        assert np.array_equal(grey, expected[..., :1]), (image.shape, size)


def test_the_rules_differ_but_leave_images_of_the_right_size_alone():
    image = made_up(1, (50, 70, 3))[0][0]
    assert not np.array_equal(images.adm_crop(image, 16), images.resized(image, 16, 'lanczos'))
    assert np.array_equal(images.resized(image, 16), images.resized(image, 16, 'lanczos'))
    square = image[:50, :50]
    for crop in images.CROPS:
        assert np.array_equal(images.resized(square, 50, crop), square), crop


def test_adm_takes_the_pixels_as_stored_and_lanczos_turns_them_upright(tmp_path):
    pixels = made_up(1, (40, 40, 3))[0][0]
    exif = Image.Exif()
    exif[0x0112] = 3  # the camera was upside down
    Image.fromarray(pixels).save(tmp_path / 'a.png', exif=exif)
    stored = images.pixels(tmp_path / 'a.png', 'a', 3, 16, 'adm')
    assert np.array_equal(stored, images.adm_crop(pixels, 16))
    upright = images.pixels(tmp_path / 'a.png', 'a', 3, 16, 'lanczos')
    assert np.array_equal(upright, images.resized(pixels[::-1, ::-1], 16, 'lanczos'))


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """Images prepared by both rules, and without one: (the input, its images, the data_dir)."""
    base = tmp_path_factory.mktemp('crops')
    pixels = [made_up(1, (40 + n, 30), n)[0][0] for n in range(4)]
    (base / 'raw/train').mkdir(parents=True)
    for number, image in enumerate(pixels):
        (base / f'raw/train/{number}.png').write_bytes(png(image))
    prepare('by_adm', str(base / 'raw'), str(base / 'tfds'), size=8, crop='adm')
    prepare('by_default', str(base / 'raw'), str(base / 'tfds'), size=8)
    small, _ = made_up(3, (8, 8))
    (base / 'small').mkdir()
    for number, image in enumerate(small):
        (base / f'small/{number}.png').write_bytes(png(image))
    prepare('as_it_is', str(base / 'small'), str(base / 'tfds'))
    return base / 'raw', pixels, base / 'tfds'


def test_prepare_crops_by_the_rule_and_its_card_says_which(prepared):
    _, pixels, data_dir = prepared
    for name, rule in (('by_adm', 'adm'), ('by_default', 'lanczos')):
        source, found = everything(name, data_dir)
        assert found == pairs([images.resized(p[..., None], 8, rule) for p in pixels], [0] * 4)
        assert source.card['crop'] == source.crop == rule
        assert f'cropped by {rule}, mean' in card.line(source.card)
        part, _ = everything(name, data_dir, 'train[:2]')  # a slice has no card of its own
        assert part.card is None and part.crop == rule
    source, _ = everything('as_it_is', data_dir)
    assert source.card['crop'] == source.crop == '' and 'cropped' not in card.line(source.card)


def test_a_config_refuses_images_by_another_rule(prepared):
    _, _, data_dir = prepared

    def opened(name, **settings):
        return data.open_source('tfds', 'train', name=name, data_dir=str(data_dir), **settings)

    for name in ('by_adm', 'by_default', 'as_it_is'):
        assert opened(name, crop='').count == opened(name).count
    assert opened('by_adm', crop='adm').crop == 'adm'
    assert opened('as_it_is', crop='adm').crop == ''  # nobody knows by which rule
    for name, crop, other in (('by_adm', 'lanczos', 'adm'), ('by_default', 'adm', 'lanczos')):
        with pytest.raises(
            UserError, match=f"'{crop}', and those of {name} are by '{other}'"
        ) as error:
            opened(name, crop=crop)
        assert '\n' not in str(error.value) and f'--crop={crop}' in str(error.value)
    with pytest.raises(UserError, match=r"config.dataset.crop 'amd'.*legal: adm, lanczos"):
        opened('by_adm', crop='amd')


def test_a_path_to_a_prepared_set_opens_it_with_its_rule(prepared):
    _, _, data_dir = prepared
    path = str(data_dir / 'by_adm/1.0.0')
    source = data.open_source('folder', 'train', path=path, crop='adm')
    expected, _ = everything('by_adm', data_dir)
    indices = np.arange(source.count)
    assert np.array_equal(source.get(indices)[0], expected.get(indices)[0])
    assert source.card == expected.card
    with pytest.raises(UserError, match=r"are by 'adm'"):
        data.open_source('folder', 'train', path=path, crop='lanczos')
    with pytest.raises(UserError, match=r"split 'test' of by_adm"):
        data.open_source('folder', 'test', path=path)


def test_cards_without_a_rule_open_and_are_by_the_only_rule_of_then(prepared, tmp_path):
    raw, _, data_dir = prepared
    shutil.copytree(data_dir / 'by_default', tmp_path / 'by_default')
    file = tmp_path / 'by_default/1.0.0/data_card_train.json'
    stored = json.loads(file.read_text())
    del stored['crop']
    file.write_text(json.dumps(stored))
    again = prepare('by_default', str(raw), str(tmp_path), size=8)
    assert not again.is_new and again.cards['train'] == stored
    source, _ = everything('by_default', tmp_path)
    card.check(source.card, source)
    assert source.crop == 'lanczos'
    with pytest.raises(UserError, match=r"are by 'lanczos'"):
        data.open_source('tfds', 'train', name='by_default', data_dir=str(tmp_path), crop='adm')
    assert card.crop_rule({'made_from': {'size': 0}}) == card.crop_rule({}) == ''


def test_a_rule_needs_a_size_and_does_not_replace_another(prepared, tmp_path):
    raw, _, data_dir = prepared
    for settings, says in (
        ({'crop': 'adm'}, r'--crop=adm needs --size=N'),
        ({'crop': 'center', 'size': 8}, r"unknown rule --crop 'center'; legal: adm, lanczos"),
    ):
        with pytest.raises(UserError, match=says):
            prepare('x', str(raw), str(tmp_path / 'tfds'), **settings)
    assert not (tmp_path / 'tfds').exists()
    with pytest.raises(
        UserError, match=r"by the rule 'adm', and the input is .* by the rule 'lanczos'"
    ):
        prepare('by_adm', str(raw), str(data_dir), size=8, crop='lanczos')
    assert not prepare('by_adm', str(raw), str(data_dir), size=8, crop='adm').is_new
