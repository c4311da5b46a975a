"""A run folder: whose run it is, how it is claimed and set aside, and the card of its data."""

import dataclasses

import pytest
from etils import epath

from cm_jax import data, run_folder
from cm_jax.errors import UserError
from cm_jax.run_folder import CONFIG

ONE = {'seed': 0, 'batch_size': 64, 'model': {'name': 'song_unet', 'channel_mult': [1, 2]}}
OTHER = {'seed': 0, 'batch_size': 128, 'model': {'name': 'adm_unet', 'channel_mult': [1, 2]}}


@pytest.fixture
def folder(tmp_path):
    """Where a run could be; nothing is there yet."""
    return epath.Path(tmp_path) / 'runs' / 'ect'


# Whose run it is


def test_a_folder_is_new_until_its_config_is_written(folder):
    assert run_folder.is_new(folder, ONE)
    assert not folder.exists()  # asking writes nothing
    folder.mkdir(parents=True)
    assert run_folder.is_new(folder, ONE)
    run_folder.write_config(folder, ONE)
    assert not run_folder.is_new(folder, ONE)
    assert run_folder.read_config(folder) == ONE


def test_a_config_with_tuples_is_the_one_that_was_written_with_lists(folder):
    run_folder.write_config(folder, ONE)
    model = {'name': 'song_unet', 'channel_mult': (1, 2)}
    assert not run_folder.is_new(folder, ONE | {'model': model})


def test_a_run_of_an_earlier_version_has_the_default_precision(folder):
    run_folder.write_config(folder, ONE)
    with_default = ONE | {'model': ONE['model'] | {'precision': 'default'}}
    assert not run_folder.is_new(folder, with_default)
    with_high = ONE | {'model': ONE['model'] | {'precision': 'high'}}
    with pytest.raises(UserError, match=r"model\.precision: 'default' there, 'high' here"):
        run_folder.is_new(folder, with_high)


def test_another_run_is_refused_by_the_keys_that_differ(folder):
    run_folder.write_config(folder, ONE)
    for config, texts in (
        (
            OTHER,
            ('batch_size: 64 there, 128 here', "model.name: 'song_unet' there, 'adm_unet' here"),
        ),
        (ONE | {'steps': 3}, ("steps: 'absent' there, 3 here",)),
        ({k: v for k, v in ONE.items() if k != 'seed'}, ("seed: 0 there, 'absent' here",)),
    ):
        with pytest.raises(UserError, match='holds another run') as raised:
            run_folder.is_new(folder, config)
        assert all(text in str(raised.value) for text in (*texts, '--fresh'))
        assert 'channel_mult' not in str(raised.value)
    assert run_folder.read_config(folder) == ONE


def test_a_folder_whose_config_was_cut_short_is_new(folder):
    folder.mkdir(parents=True)
    (folder / f'{CONFIG}.writing').write_text('{"se')
    assert run_folder.is_new(folder, ONE)
    (folder / 'thesis.txt').write_text('mine')
    with pytest.raises(UserError, match='is not empty'):
        run_folder.is_new(folder, ONE)


def test_a_run_of_another_command_is_not_taken_for_ones_own(folder):
    run_folder.write_config(folder, ONE, run_folder.SEARCH)
    assert not run_folder.is_new(folder, ONE, run_folder.SEARCH)
    with pytest.raises(UserError, match=rf'holds no {CONFIG}: it is no run of this command'):
        run_folder.is_new(folder, ONE)


def test_a_search_of_an_earlier_version_is_that_without_the_baselines_of_today(folder):
    """Its config has no key of them; a training run's missing key is a difference as before."""
    earlier = {'seed': 0, 'controls': {'random': True}}
    run_folder.write_config(folder, earlier, run_folder.SEARCH)
    same = {'seed': 0, 'controls': {'random': True, 'windows': 0, 'bema': ()}}
    assert not run_folder.is_new(folder, same, run_folder.SEARCH)
    other = {'seed': 0, 'controls': same['controls'] | {'windows': 5}}
    with pytest.raises(UserError, match=r'controls\.windows: 0 there, 5 here'):
        run_folder.is_new(folder, other, run_folder.SEARCH)


def test_a_run_of_an_earlier_version_goes_on_unflipped_whatever_crop_is_asked_for(folder):
    dataset = {'source': 'tfds', 'name': 'cifar10'}
    run_folder.write_config(folder, ONE | {'dataset': dataset})
    for crop in ('', 'adm'):
        assert not run_folder.is_new(
            folder, ONE | {'dataset': dataset | {'flip': False, 'crop': crop}}
        )
    with pytest.raises(UserError, match=r'keys: dataset\.flip: False there, True here\. '):
        run_folder.is_new(folder, ONE | {'dataset': dataset | {'flip': True, 'crop': ''}})
    run_folder.write_config(folder, ONE | {'dataset': dataset | {'flip': True, 'crop': ''}})
    for flip, crop in ((False, ''), (True, 'adm')):
        with pytest.raises(UserError, match=r'differing keys: dataset\.'):
            run_folder.is_new(folder, ONE | {'dataset': dataset | {'flip': flip, 'crop': crop}})


def test_the_byte_rule_of_an_earlier_version_is_rounding_and_binds_a_search_alone(folder):
    """Nothing in a training run depends on it, as on the extractors of a second opinion."""
    run_folder.write_config(folder, {'seed': 0, 'evaluation': {'samples': 9}})
    now = {'seed': 0, 'evaluation': {'samples': 9, 'second': ['pixel'], 'bytes': 'truncate'}}
    assert not run_folder.is_new(folder, now)
    with pytest.raises(UserError, match=r'evaluation\.samples: 9 there, 8 here'):
        run_folder.is_new(folder, now | {'evaluation': now['evaluation'] | {'samples': 8}})
    search = folder.parent / 'search'
    run_folder.write_config(search, {'seed': 0, 'evaluation': {'samples': 9}}, run_folder.SEARCH)
    rounding = {'seed': 0, 'evaluation': {'samples': 9, 'bytes': 'round'}}
    assert not run_folder.is_new(search, rounding, run_folder.SEARCH)
    with pytest.raises(UserError, match=r"evaluation\.bytes: 'round' there, 'truncate' here"):
        run_folder.is_new(search, now, run_folder.SEARCH)


def test_a_run_of_an_earlier_version_was_not_scored_during_training(folder):
    run_folder.write_config(folder, {'seed': 0, 'train': {'log_every': 50}})
    train = {'log_every': 50, 'evaluate_every': 0, 'evaluate_samples': 7}
    assert not run_folder.is_new(folder, {'seed': 0, 'train': train})
    with pytest.raises(UserError, match=r'keys: train\.evaluate_every: 0 there, 5 here\. Choose'):
        run_folder.is_new(folder, {'seed': 0, 'train': train | {'evaluate_every': 5}})


# Claimed and set aside


def test_claiming_writes_the_config_once_and_refuses_another(folder):
    with run_folder.claim(folder, ONE):
        written = (folder / CONFIG).stat().mtime
    with run_folder.claim(folder, ONE):
        assert (folder / CONFIG).stat().mtime == written
    with pytest.raises(UserError, match='holds another run'), run_folder.claim(folder, OTHER):
        pass
    assert run_folder.read_config(folder) == ONE


def test_claiming_afresh_keeps_the_old_folder_and_says_where(folder, capsys):
    with run_folder.claim(folder, ONE, fresh=True):
        pass
    assert capsys.readouterr().out == ''  # there was none
    (folder / 'metrics.jsonl').write_text('{"step": 1}\n')
    with run_folder.claim(folder, OTHER, fresh=True):
        pass
    assert run_folder.read_config(folder) == OTHER
    assert [path.name for path in folder.iterdir()] == [CONFIG]
    aside = folder.parent / 'ect.old1'
    assert run_folder.read_config(aside) == ONE
    assert (aside / 'metrics.jsonl').read_text() == '{"step": 1}\n'
    assert str(aside) in capsys.readouterr().out


def test_setting_aside_never_overwrites(folder):
    assert run_folder.set_aside(folder) is None
    for n in (1, 2, 3):
        folder.mkdir(parents=True)
        (folder / 'which').write_text(str(n))
        assert run_folder.set_aside(folder) == folder.parent / f'ect.old{n}'
        assert not folder.exists()
    kept = {path.name: (path / 'which').read_text() for path in folder.parent.iterdir()}
    assert kept == {'ect.old1': '1', 'ect.old2': '2', 'ect.old3': '3'}


def test_a_folder_that_is_no_run_says_which_was_meant(folder):
    with pytest.raises(UserError, match=rf'is no run folder: it has no {CONFIG}$'):
        run_folder.read_config(folder)
    run_folder.write_config(folder, ONE)
    with pytest.raises(UserError, match=r'ectt is no run folder.*did you mean .*runs/ect\?'):
        run_folder.read_config(folder.parent / 'ectt')


# The names of its files


def test_names_say_which_weights_and_which_search():
    assert run_folder.item_name('') == 'params' and run_folder.item_name('0.9') == 'ema_0.9'
    assert run_folder.weights_label('') == run_folder.weights_file_label('') == 'weights'
    assert run_folder.weights_label('0.9') == 'ema 0.9'
    assert run_folder.weights_file_label('0.9') == 'ema0.9'
    assert run_folder.candidates_file('random') == 'random.jsonl'
    assert run_folder.state_file('random') == 'random_state.json'


# The card of its data


def test_the_text_of_many_levels_is_a_name_that_a_file_can_have(folder):
    """That of --sampler=tuned may have a thousand."""
    specs = [
        'multistep@80,' + ','.join(f'{80 * q**n:.10g}' for n in range(1, 200)) for q in (0.9, 0.8)
    ]
    specs += [f'heun@18+auto2=runs/{"ä" * 300}', 'multistep@80,0.8']
    labels = [run_folder.sampler_file_label(spec) for spec in specs]
    assert len(set(labels)) == 4 and labels[-1] == 'multistep@80-0.8'
    folder.mkdir(parents=True, exist_ok=True)
    for label in labels:
        name = f'{label}_step12345678_ema posthoc0.12345_seed{2**31 - 1}.json'
        run_folder.write_json(folder / name, {})


def test_the_card_of_the_data_is_stored_once_and_refuses_other_data(folder):
    folder.mkdir(parents=True)
    train, test = (data.open_source('digits', split) for split in ('train', 'test'))
    stored = run_folder.store_card(folder, train)
    assert run_folder.read_card(folder) == stored
    assert stored['count'] == 1500 and stored['image_shape'] == [8, 8, 1]
    assert run_folder.store_card(folder, train) == stored
    assert stored['crop'] == ''
    with pytest.raises(UserError, match='count'):
        run_folder.store_card(folder, test)
    assert run_folder.read_card(folder) == stored


def test_a_source_that_is_not_what_its_own_card_says_is_refused(folder):
    folder.mkdir(parents=True)
    source = data.open_source('digits', 'train')
    card = run_folder.store_card(folder, source) | {'checksum': '0' * 64}
    with pytest.raises(UserError, match='checksum'):
        run_folder.store_card(folder, dataclasses.replace(source, card=card))


def test_a_run_of_an_earlier_version_had_the_networks_of_the_defaults(folder):
    """Configs name some of them now, so that options can change them."""
    run_folder.write_config(folder, {'model': {'name': 'adm_unet', 'precision': 'high'}})
    now = {'name': 'adm_unet', 'precision': 'high', 'noise_scale': 1.0, 'skip_scaling': None}
    now['times'] = 1
    assert not run_folder.is_new(folder, {'model': now})
    with pytest.raises(UserError, match=r'model.noise_scale: 1.0 there, 1000.0 here'):
        run_folder.is_new(folder, {'model': now | {'noise_scale': 1000.0}})
