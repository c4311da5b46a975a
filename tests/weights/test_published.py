"""Files of each published layout, made up in its real structure: read whole, or refused in one line."""

import json
import pickle

import flax.serialization
import jax
import numpy as np
import pytest

from cm_jax import objectives, samplers
from cm_jax.config import base_config
from cm_jax.errors import UserError
from cm_jax.evaluation import references
from cm_jax.models.presets import PRESETS, Preset
from cm_jax.weights import names, published
from cm_jax.weights.write import write_safetensors
from cm_jax.wiring import wire
from tests.helpers import weight_files
from tests.helpers.networks import SHAPE, SMALL, weights
from tests.helpers.tiny import settings_of

PUBLIC = dict(PRESETS)
SMALL_PRESETS = {
    'cm_cifar10': Preset(SMALL['ncsnpp'], SHAPE, 0, 'jcm', 'consistency'),
    'cm_lsun256': Preset(SMALL['adm'] | {'scale_shift': False}, SHAPE, 0, 'openai', 'consistency'),
    'cud_cifar10': Preset(SMALL['ddpmpp'] | {'skip_scaling': 0.75}, SHAPE, 0, 'bare', 'flow'),
    'edm2_imagenet64_s': Preset(SMALL['edm2'], SHAPE, 0, 'edm2'),
    'adm_imagenet64': Preset(SMALL['adm'], SHAPE, 0, 'edm'),
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, preset in SMALL_PRESETS.items():
        monkeypatch.setitem(PRESETS, name, preset)
    monkeypatch.setitem(published.DATA, SHAPE[0], {'source': 'digits'})


def state_of(network, layout, **changes):
    preset = SMALL_PRESETS[network]
    settings = dict(preset.settings) | changes
    kind = next(k for k, v in SMALL.items() if v['name'] == settings['name'])
    kind = 'ncsnpp' if network == 'cm_cifar10' else kind
    params = weights(kind, **{k: v for k, v in settings.items() if SMALL[kind].get(k) != v})
    return names.to_state(params, settings, SHAPE, 0, layout), params


def nested(state):
    tree = {}
    for name, value in state.items():
        *outer, leaf = name.split('.')
        node = tree
        for part in outer:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree


def tensors(state, prefix=''):
    return {f'{prefix}{k}': weight_files.tensor(v) for k, v in state.items()}


def same(found, params):
    assert jax.tree.structure(found.params) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, found.params, params)


def read(path, network, **options):
    return published.read_network(path, network, **options)


def parts(found):
    """The parts of a run of what was found, wired from the config that `convert` writes."""
    config = base_config()
    config.steps = 0
    config.update(published.sections(found))
    settings = settings_of(config)
    wired = wire(settings, SHAPE, 0)
    assert settings.sampling.sampler == settings.evaluation.samplers[0]
    samplers.build(settings.sampling.sampler, wired.process)
    return wired


def protocol(found):
    """The sampler, the rule of the bytes and the reference of the code that trained the network."""
    evaluation = published.sections(found)['evaluation']
    return *evaluation['samplers'], evaluation['bytes'], evaluation['reference']


def refusal(path, network, **options):
    with pytest.raises(UserError) as error:
        read(path, network, **options)
    assert '\n' not in str(error.value)
    return str(error.value)


def test_a_checkpoint_of_jcm(tmp_path):
    state, params = state_of('cm_cifar10', 'jcm')
    other = {name: value + 1 for name, value in state.items()}
    tree = {'step': 800_000, 'lr': 4e-4, 'ema_rate': 0.9999, 'model_state': {}}
    tree |= {'params': nested(other), 'params_ema': nested(state)}
    tree |= {'opt_state': {'0': {'count': 7, 'mu': nested(other), 'nu': nested(other)}}}
    tree |= {'rng_state': np.zeros(2, np.uint32)}
    path = tmp_path / 'checkpoint_80'
    path.write_bytes(flax.serialization.to_bytes(tree))
    found = read(path, 'cm_cifar10', ema='params_ema')
    same(found, params)
    assert (found.layout, found.prefix) == ('jcm', 'params_ema.')
    assert (found.trained_as, found.file_format) == ('consistency', 'flax')
    assert protocol(found) == ('onestep', 'truncate', 'train')
    teacher = path.rename(tmp_path / 'edm_cifar10_ema')
    found = read(teacher, 'cm_cifar10', ema='params_ema')
    assert found.trained_as == 'diffusion'
    assert protocol(found) == ('heun@18', 'truncate', 'train')
    line = refusal(teacher, 'cm_cifar10')
    assert line.endswith('choose one with --ema=NAME: params, params_ema')
    tree['params_ema']['AttnBlockpp_0'].pop('NIN_1')
    teacher.write_bytes(flax.serialization.to_bytes(tree))
    line = refusal(teacher, 'cm_cifar10', ema='params_ema')
    assert '2 missing: AttnBlockpp_0.NIN_1.b, AttnBlockpp_0.NIN_1.W' in line
    assert 'unknown weights in' in refusal(teacher, 'cm_cifar10', ema='target_params')


def test_a_state_dict_of_lcsc(tmp_path, monkeypatch):
    state, params = state_of('cm_cifar10', 'bare')
    path = tmp_path / 'ema_0.9999_840000.pt'
    path.write_bytes(weight_files.zip_file(tensors(state)))
    found = read(path, 'cm_cifar10')
    same(found, params)
    assert (found.layout, found.prefix, found.trained_as) == ('bare', '', 'consistency')
    sections = published.sections(found)
    assert sections['sampling'] == {'sampler': 'onestep'}
    assert 'boundary' not in sections['objective'] and sections['evaluation']['samples'] == 50_000
    assert protocol(found) == ('onestep', 'truncate', 'train')
    assert sections['model'] == {**found.settings, 'precision': 'highest'}
    monkeypatch.setitem(published.PRECISIONS, SHAPE[0], 'high')
    assert published.sections(found)['model']['precision'] == 'high'
    assert parts(found).process.name == 've'
    path.write_bytes(weight_files.zip_file(tensors(state) | {'init_kwargs.sigma_data': 'half'}))
    assert 'has a sigma_data that is no number' in refusal(path, 'cm_cifar10')


def test_the_state_dicts_of_catch_up_distillation(tmp_path):
    """The network, in a wrapper or not, its further heads in another file, and a training state."""
    state, params = state_of('cud_cifar10', 'bare', heads=3)
    net = {k: v for k, v in state.items() if not k.startswith('generator_list.')}
    own = {k.removeprefix('generator_list.'): v for k, v in state.items() if k not in net}
    lists = [
        {f'module.{k.partition(".")[2]}': v for k, v in own.items() if k.startswith(f'{i}.')}
        for i in range(2)
    ]
    path, heads = tmp_path / 'flow_model_500000.pth', tmp_path / 'generator_list_500000_ema.pth'
    heads.write_bytes(weight_files.legacy_file([tensors(one) for one in lists]))
    for prefix in ('', 'module.'):
        path.write_bytes(weight_files.legacy_file(tensors(net, prefix)))
        found = read(path, 'cud_cifar10', heads=heads)
        same(found, params)
        assert (found.trained_as, found.settings['heads']) == ('flow', 3)
        assert protocol(found) == ('euler@16', 'round', 'train')
        assert len(parts(found).generative_model.heads) == 3
        alone = read(path, 'cud_cifar10')
        assert 'head2_conv' not in alone.params
        process = parts(alone).process
        assert (process.name, process.t_min, process.t_max) == ('rf', 1e-5, 1.0)
    training = {'model_state_dict': [tensors(net), tensors(net)], 'iter': 5}
    (tmp_path / 'training_state_latest.pth').write_bytes(weight_files.legacy_file(training))
    line = refusal(tmp_path / 'training_state_latest.pth', 'cud_cifar10')
    assert line.endswith('--ema=NAME: model_state_dict.0, model_state_dict.1')
    read(tmp_path / 'training_state_latest.pth', 'cud_cifar10', ema='model_state_dict.1')
    assert 'holds no heads of Catch-Up' in refusal(path, 'cud_cifar10', heads=path)
    assert 'and no diffusion model' in refusal(path, 'cud_cifar10', trained_as='diffusion')


def test_openais_networks_on_lsun(tmp_path):
    """All eight files have one layout; those called edm_... are diffusion models."""
    state, params = state_of('cm_lsun256', 'openai')
    content = weight_files.zip_file(tensors(state))
    for category in ('bedroom256', 'cat256'):
        for kind in ('edm_{}_ema', 'cd_{}_l2', 'cd_{}_lpips', 'ct_{}'):
            path = tmp_path / f'{kind.format(category)}.pt'
            path.write_bytes(content)
            found = read(path, 'cm_lsun256')
            same(found, params)
            assert found.trained_as == ('diffusion' if kind[0] == 'e' else 'consistency'), path.name
            sampler = 'heun@40,clip' if kind[0] == 'e' else 'onestep'
            assert protocol(found) == (sampler, 'truncate', 'train'), path.name
    assert read(path, 'cm_lsun256', trained_as='diffusion').trained_as == 'diffusion'
    wide = {k: np.concatenate([v, v]) if '.emb_layers.' in k else v for k, v in state.items()}
    path.write_bytes(weight_files.zip_file(tensors(wide)))
    line = refusal(path, 'cm_lsun256')
    assert 'of the wrong shape' in line and '.emb_layers.1.' in line and 'ct_cat256.pt' in line


def test_ects_networks_on_imagenet_have_no_log_variance(tmp_path):
    for changes, kind in (({}, 'diffusion'), ({'logvar_channels': 0}, 'consistency')):
        state, params = state_of('edm2_imagenet64_s', 'edm2', **changes)
        net = weight_files.module('Precond', state)
        path = tmp_path / 'network-snapshot-102400-0.050.pkl'
        path.write_bytes(weight_files.plain_pickle({'ema': net}))
        found = read(path, 'edm2_imagenet64_s')
        same(found, params)
        assert found.trained_as == kind
        sampler = 'heun@32' if kind == 'diffusion' else 'onestep'
        assert protocol(found) == (sampler, 'round', 'train')
    assert published.sections(found)['objective']['boundary'] == 0  # ECT's there is its denoiser
    state.pop('unet.out_gain')
    path.write_bytes(weight_files.zip_file(tensors(state, 'ema_state.emas.0.')))
    assert '1 missing: unet.out_gain' in refusal(path, 'edm2_imagenet64_s')


def test_networks_of_64_pixels_have_the_reference_of_their_paper():
    for network, reference in (
        ('adm_imagenet64', 'imagenet-64x64.npz'),
        ('edm2_imagenet64_xl', 'img64.pkl'),
        ('cm_imagenet64', 'VIRTUAL_imagenet64_labeled.npz'),
    ):
        preset = PUBLIC[network]
        found = published.Published(
            params={},
            preset=preset,
            settings=preset.settings,
            layout=preset.layout,
            prefix='',
            trained_as=preset.trained_as,
            config={},
            file_format='npz',
        )
        assert protocol(found)[2] == reference and reference in references.PUBLISHED


def test_an_exported_file_says_what_no_tensor_reveals(tmp_path):
    """Another noise input, and a consistency model on another process, in a layout of EDM."""
    assert {*published.TRAINED_AS, 'mean_flow'} == {*objectives.names()}
    state, params = state_of('adm_imagenet64', 'edm')
    told = {'objective': {'name': 'ict', 'sigma_data': 0.5}, 'model': {'noise_scale': 1000.0}}
    told |= {'process': {'name': 've', 't_min': 0.01, 't_max': 60.0}}
    metadata = {'made_by': published.EXPORTED, 'process': 've', 'config': json.dumps(told)}
    path = tmp_path / 'weights.safetensors'
    write_safetensors(path, state, metadata)
    found = read(path, 'adm_imagenet64')
    same(found, params)
    assert (found.trained_as, found.settings['noise_scale']) == ('consistency', 1000.0)
    assert 'boundary' not in published.sections(found)['objective']  # t_min, and not ECT's 0.003
    process = parts(found).process
    assert (process.t_min, process.t_max) == (0.01, 60.0)
    told['objective'] |= {'name': 'ect', 'boundary': 0.02}
    write_safetensors(path, state, metadata | {'config': json.dumps(told)})
    assert published.sections(read(path, 'adm_imagenet64'))['objective']['boundary'] == 0.02
    told['objective']['sigma_data'] = 1.0
    write_safetensors(path, state, metadata | {'config': json.dumps(told)})
    assert 'has sigma_data 1.0' in refusal(path, 'adm_imagenet64')
    told['objective']['sigma_data'] = 0.5
    write_safetensors(path, state, metadata | {'config': json.dumps(told), 'process': 'rf'})
    assert "was trained on process 'rf'" in refusal(path, 'adm_imagenet64')


def test_weights_of_another_network_are_one_line(tmp_path):
    state, _ = state_of('edm2_imagenet64_s', 'edm2')
    path = tmp_path / 'weights.pt'
    path.write_bytes(weight_files.zip_file(tensors(state)))
    for network, marker in (
        ('cm_cifar10', 'has no ResnetBlockBigGANpp_0'),
        ('cud_cifar10', 'has no map_layer0.weight'),
        ('cm_lsun256', 'has no time_embed.0.weight'),
    ):
        assert marker in refusal(path, network)
    assert "unknown network 'ddpm'" in refusal(path, 'ddpm')
    assert 'only those of Catch-Up' in refusal(path, 'edm2_imagenet64_s', heads=path)


def test_nothing_in_a_file_is_run(tmp_path):
    marker, path = tmp_path / 'marker', tmp_path / 'flow_model_1.pth'
    for write in (pickle.dumps, weight_files.plain_pickle):
        tree = {'map_layer0.weight': weight_files.Command(marker)}
        if write is pickle.dumps:
            tree = {'map_layer0.weight': json.dumps}
        path.write_bytes(write(tree))
        assert 'refused: ' in refusal(path, 'cud_cifar10')
    assert not marker.exists()
