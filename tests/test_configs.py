"""Every config builds what it describes, and starts from what its docstring says."""

import dataclasses
import functools
import importlib
import json

import jax
import jax.numpy as jnp
import pytest

from cm_jax import models, objectives, samplers
from cm_jax.config import base_config, search_config, to_plain
from cm_jax.core import process
from cm_jax.errors import UserError, build_from
from cm_jax.evaluation import references
from cm_jax.evaluation.extractors import check_extractor, check_unscored
from cm_jax.lcsc import evolution, job
from cm_jax.lcsc.session import cost
from cm_jax.models.presets import PRESETS
from cm_jax.settings import parse_run
from cm_jax.training import optim
from cm_jax.weights import published
from cm_jax.wiring import OF_TRAINING, wire
from tests.helpers.paths import ROOT
from tests.helpers.refusals import refusal
from tests.helpers.tiny import search_settings_of, settings_of
from tests.helpers.trained import trained

CONFIGS = ROOT / 'configs'
VARIANTS = {  # of the files that are families; configs/README.md is checked to list them all
    path.stem: tuple(module.VARIANTS)
    for path in sorted(CONFIGS.glob('*.py'))
    if hasattr(module := importlib.import_module(f'configs.{path.stem}'), 'VARIANTS')
}
IMAGES = {  # shape and classes of the data that a config's name begins with
    'digits': ((8, 8, 1), 10),
    'mnist': ((28, 28, 1), 10),
    'fashion_mnist': ((28, 28, 1), 10),
    'cifar10': ((32, 32, 3), 10),
    'imagenet64': ((64, 64, 3), 1000),
    'lsun256': ((256, 256, 3), 0),
    'own': ((32, 32, 3), 0),
}
IMPORTED = {  # the network of the run folders that the docstrings make with `convert`
    'runs/cifar10/edm': 'ddpmpp_cifar10',
    'runs/cifar10/edm_ve': 'ncsnpp_cifar10',
    'runs/imagenet64/edm2_s': 'edm2_imagenet64_s',
    'runs/imagenet64/edm2_m': 'edm2_imagenet64_m',
    'runs/imagenet64/edm2_l': 'edm2_imagenet64_l',
    'runs/imagenet64/edm2_xl': 'edm2_imagenet64_xl',
    'runs/lsun256/edm_bedroom': 'cm_lsun256',
    'runs/lsun256/edm_cat': 'cm_lsun256',
}
TRAINED = {  # and of those that another config trains
    'runs/digits/edm': 'digits_edm',
    'runs/fashion_mnist/edm_full': 'fashion_mnist_edm:full',
    'runs/fashion_mnist/edm_small': 'fashion_mnist_edm:small',
    'runs/own/edm': 'own_edm',
    'runs/imagenet64/adm': 'imagenet64_adm',
    'runs/digits/cud_rk12': 'digits_cud',
    'runs/fashion_mnist/cud': 'fashion_mnist_cud',
    'runs/mnist/cud_rk12': 'mnist_cud',
    'runs/cifar10/cud_rk12': 'cifar10_cud',
}


def config_of(name):
    """The config 'FILE' or 'FILE:VARIANT'."""
    file, _, variant = name.partition(':')
    get_config = importlib.import_module(f'configs.{file}').get_config
    return get_config(variant) if variant else get_config()


def _configs():
    for path in sorted(CONFIGS.glob('*.py')):
        for variant in VARIANTS.get(path.stem, ('',)):
            config = config_of(f'{path.stem}:{variant}')
            if 'model' in config:  # else it is a search: the network is the run's
                yield pytest.param(path, config, id=f'{path.stem}{variant and ":"}{variant}')


CONFIGS_OF_RUNS = list(_configs())  # (file, config) of every training run in configs/
SEARCHES = {  # the training run of each search: its config, and what the docstrings change in it
    'digits_lcsc': ('digits_ect', {}),
    'digits_ect_lcsc': ('digits_ect', {'sigma_rels': (0.05, 0.1)}),
    'digits_edm_lcsc': ('digits_edm', {'every': 20, 'sigma_rels': (0.05, 0.1)}),
    'fashion_mnist_lcsc': ('fashion_mnist_ect', {}),
    'fashion_mnist_lcsc:small': ('fashion_mnist_ect:small', {}),
    'fashion_mnist_lcsc:small_descent': ('fashion_mnist_ect:small', {}),
    'fashion_mnist_edm_lcsc': ('fashion_mnist_edm', {'every': 250}),
    'cifar10_cd_lcsc:enhance': ('cifar10_cd', {'steps': 40_000}),
    'cifar10_cd_lcsc:reduce': ('cifar10_cd', {'steps': 100_000}),
    'cifar10_ct_lcsc': ('cifar10_ct', {}),
    'cifar10_edm_lcsc': ('cifar10_edm', {'start': 340_000, 'every': 1000}),
    'imagenet64_cd_lcsc:enhance': ('imagenet64_cd', {'steps': 20_000, 'every': 500}),
    'imagenet64_cd_lcsc:reduce': (
        'imagenet64_cd',
        {'steps': 100_000, 'start': 60_000, 'every': 1000},
    ),
    'imagenet64_ct_lcsc': ('imagenet64_ct', {'start': 750_000, 'every': 1000}),
    'imagenet64_edm2_lcsc': ('imagenet64_edm2', {'every': 8192}),
}
SEARCH_FILES = dict.fromkeys(name.partition(':')[0] for name in SEARCHES)
SEARCH_NAMES = [
    f'{file}{variant and ":"}{variant}'
    for file in SEARCH_FILES
    for variant in VARIANTS.get(file, ('',))
]


def images_of(path):
    return next(v for k, v in IMAGES.items() if path.stem.startswith(k))


@functools.cache
def output_shape(settings, image_shape, classes):
    """Of the network, without allocating its weights."""
    model = models.build(json.loads(settings), image_shape, classes)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    x, cond = jnp.zeros((2, *image_shape)), jnp.zeros((2, model.times))
    return jax.eval_shape(model.net, shapes, x, cond).shape


@pytest.mark.parametrize('path, config', CONFIGS_OF_RUNS)
def test_every_config_builds_what_it_describes(path, config):
    image_shape, classes = images_of(path)
    wire(settings_of(config), image_shape, classes)
    optim.build(config.optimizer)
    p = build_from('process', process.build, config.process)
    for spec in (config.sampling.sampler, *config.evaluation.samplers):
        samplers.build(spec, p)
    averages = [str(r) for r in config.ema_rates] + [f'power{r}' for r in config.ema_sigma_rels]
    assert config.sampling.ema in ['', *averages]
    # Many configs have one network; tracing a large one takes seconds.
    model = {k: v for k, v in to_plain(config.model).items() if k not in OF_TRAINING}
    settings = json.dumps(model, sort_keys=True)
    labels = classes if config.class_conditional else 0
    *size, channels = image_shape
    heads = config.objective.get('order', 1)
    assert output_shape(settings, image_shape, labels) == (2, *size, heads * channels)


@pytest.mark.parametrize('path, config', CONFIGS_OF_RUNS)
def test_a_config_starts_from_a_network_that_fits(path, config):
    for section in (config.init_from, config.teacher):
        if not section.workdir:
            continue
        if section.workdir in IMPORTED:
            theirs, averages = PRESETS[IMPORTED[section.workdir]].settings, ['']
            height = images_of(path)[0][0]
            assert config.model.precision == published.PRECISIONS.get(height, 'highest')
        else:
            trained = config_of(TRAINED[section.workdir])
            theirs, averages = trained.model, map(str, trained.ema_rates)
        assert section.ema in averages
        if section is config.init_from:
            ours, theirs = (models.with_defaults(dict(m)) for m in (config.model, theirs))
            free = {*OF_TRAINING}
            if not ours.get('skip_scaling'):
                free.add('skip_scaling')  # a scaling may be left behind
            assert not [k for k in ours if k not in free and ours[k] != theirs[k]]


@pytest.mark.parametrize('name', ('imagenet64_cd', 'imagenet64_ct:teacher'))
def test_the_papers_own_teacher_fits_with_the_option_that_the_docstring_names(name):
    config = config_of(name)
    config.model.noise_scale = 1000.0
    ours, theirs = map(
        models.with_defaults, (config.model.to_dict(), PRESETS['cm_imagenet64'].settings)
    )
    assert not [k for k in ours if k not in OF_TRAINING and ours[k] != theirs[k]]


@pytest.mark.parametrize('path, config', CONFIGS_OF_RUNS)
def test_a_docstring_says_command_batch_and_images(path, config):
    text = ' '.join(importlib.import_module(f'configs.{path.stem}').__doc__.split())
    assert f'--config=configs/{path.stem}.py' in text
    assert f'{config.batch_size}' in text and 'images' in text
    if path.stem.startswith(('cifar10', 'imagenet64', 'lsun256')):
        assert 'Ours: not run' in text
    elif 'digits' not in path.stem:
        assert 'not run' in text


@pytest.mark.parametrize('path, config', CONFIGS_OF_RUNS)
def test_a_docstring_says_whether_images_are_flipped_and_by_which_crop(path, config):
    text = ' '.join(importlib.import_module(f'configs.{path.stem}').__doc__.split())
    assert config.dataset.flip == ('flipped at random' in text)
    if path.stem.startswith(('cifar10', 'imagenet64', 'lsun256')):
        assert config.dataset.flip or any(f'{no} flipped' in text for no in ('not', 'none is'))
    assert {'adm': "by ADM's crop", 'lanczos': 'crop, `lanczos`', '': ''}[
        config.dataset.crop
    ] in text
    assert path.stem.startswith('imagenet64') or not config.dataset.crop


@pytest.mark.parametrize('path, config', CONFIGS_OF_RUNS)
def test_a_paper_s_config_says_what_it_computes_in_and_compares_in_float32(path, config):
    if path.stem.startswith(('digits', 'fashion_mnist')):
        return
    text = ' '.join(importlib.import_module(f'configs.{path.stem}').__doc__.split())
    how = (config.model.dtype, config.model.precision)
    says = {
        ('float32', 'highest'): "float32's own",
        ('float32', 'high'): 'computes in float32 at precision high',
        ('bfloat16', 'default'): 'bfloat16',
    }
    assert says[how] in text
    if config.objective.name in objectives.names_with_pairs():
        assert how[0] == 'float32'
    assert config.prior.get('precision', how[1]) == how[1]


def test_photographs_are_scored_by_the_inception_as_in_the_papers():
    """FID on 50,000 samples, against the statistics that the papers' code took: CIFAR-10's training
    images; of LSUN ADM's file of the category; of ImageNet-64 ADM's, EDM's, or, in the code of EDM2 and
    ECT, the training images."""
    files = {'imagenet64_adm': 'imagenet-64x64.npz'} | dict.fromkeys(
        ('imagenet64_cd', 'imagenet64_ct', 'imagenet64_cud', 'imagenet64_ict'),
        'VIRTUAL_imagenet64_labeled.npz',
    )
    configs = [(p.id, p.values[1]) for p in CONFIGS_OF_RUNS]
    configs += [(name, config_of(name)) for name in SEARCH_NAMES]
    for name, config in configs:
        evaluation = config.evaluation
        file, _, variant = name.partition(':')
        if not file.startswith(('cifar10', 'imagenet64', 'lsun256')):
            check_extractor(parse_run({'evaluation': evaluation.to_dict()}).evaluation)
            continue
        assert (evaluation.extractor, evaluation.samples) == ('inception', 50_000), name
        expected = files.get(file.removesuffix('_lcsc'), 'train')
        if file.startswith('lsun256'):
            expected = f'VIRTUAL_lsun_{variant.partition("_")[0]}256.npz'
        assert evaluation.reference == expected, name
        assert expected == 'train' or expected in references.PUBLISHED
        parsed = parse_run({'evaluation': evaluation.to_dict()}).evaluation
        assert 'pt_inception-2015-12-05-6726825d.pth' in refusal(check_extractor, parsed)
        check_unscored(parsed)


def test_where_a_run_starts_and_its_teacher_are_set_apart():
    config = base_config()
    config.init_from.step = 500
    assert config.teacher.step is None


def test_two_steps_bytes_and_boundary_are_those_of_the_papers_code():
    for name, second, clips, rule, boundary in (
        ('cifar10_cd', 0.585, True, 'truncate', None),
        ('cifar10_ct', 0.585, True, 'truncate', None),
        ('cifar10_ect', 0.821, False, 'round', 0.003),
        ('cifar10_ect_1hour', 0.821, False, 'round', 0.003),
        ('cifar10_ict', 0.821, False, 'round', None),
        ('imagenet64_cd', 1.382, True, 'truncate', None),
        ('imagenet64_ct', 1.913, True, 'truncate', None),
        ('imagenet64_ect:s', 1.526, False, 'round', 0.0),
        ('imagenet64_ict', 1.526, False, 'round', None),
        ('lsun256_cd:bedroom_lpips', 4.366, True, 'truncate', None),
        ('lsun256_cd:bedroom_l2', 3.520, True, 'truncate', None),
        ('lsun256_ct:bedroom', 3.991, True, 'truncate', None),
        ('lsun256_ct:cat', 5.249, True, 'truncate', None),
    ):
        config = config_of(name)
        onestep, two_steps = config.evaluation.samplers
        sampler = samplers.build(two_steps, build_from('process', process.build, config.process))
        assert onestep == 'onestep' and sampler.evaluations == 2, name
        assert sampler.levels == pytest.approx((80, second), rel=1e-3), name
        assert sampler.clips == clips, name
        assert config.evaluation.bytes == rule, name
        assert config.objective.get('boundary') == boundary, name


def test_unknown_variant_of_a_config_is_refused():
    for name in VARIANTS:
        get_config = importlib.import_module(f'configs.{name}').get_config
        with pytest.raises(UserError, match='legal: '):
            get_config('xxs')


def run_of(search):
    """A run folder's stand-in for a search config, of its file or of its variant."""
    file = search.partition(':')[0]
    name, changed = SEARCHES.get(search) or SEARCHES[file]
    return trained(config_of(name), *images_of(CONFIGS / f'{file}.py'), **changed)


@pytest.mark.parametrize('name', SEARCH_NAMES)
def test_every_search_config_opens_on_the_run_that_it_names(name, monkeypatch):
    file, _, variant = name.partition(':')
    module, config = importlib.import_module(f'configs.{file}'), config_of(name)
    if config.evaluation.extractor == 'inception':
        config.evaluation.weights = 'inception.pth'
    run = run_of(name)
    monkeypatch.setattr(job, 'open_run', lambda workdir: run)
    opened = job.open_job(search_settings_of(config))
    candidates = 10 + config.budget.generations * config.search.population
    amount = f'{candidates:,} candidates'
    if config.search.method == 'gradient':
        amount = f'{config.budget.generations} steps'
    text = ' '.join(module.__doc__.split())
    assert f'{len(opened.steps)} snapshots' in text or f'{len(opened.steps)},' in text
    assert amount in text
    assert f'--config=configs/{file}.py' in text and variant in text and '2404.02241' in text
    if config.controls.random and config.search.method != 'gradient':
        assert (
            opened.states['random'].settings.population
            == opened.states['search'].settings.population
        )
        assert len(opened.steps) >= 30
    assert bool(opened.posthoc) == bool(run.emas(0) and config.controls.posthoc)
    config.budget.sampler = 'heun@2'
    assert job.open_job(search_settings_of(config)).evaluation.samplers[0] == 'heun@2'
    if 'digits' not in name:
        assert 'not run' in text


@pytest.mark.parametrize('name', ('digits_ect_lcsc', 'digits_edm_lcsc'))
def test_the_methods_of_a_search_cost_what_the_docstring_says(name, monkeypatch):
    module, run = importlib.import_module(f'configs.{name}'), run_of(name)
    monkeypatch.setattr(job, 'open_run', lambda workdir: run)
    opened = [job.open_job(search_settings_of(module.get_config(v))) for v in VARIANTS[name]]
    costs = [cost(each)['search'] for each in opened]
    assert max(costs) <= 1.05 * min(costs)
    lines = module.__doc__.splitlines()
    rows = [line for line in lines if line.split() and line.split()[0] in VARIANTS[name]]
    assert len(rows) == len(costs)
    for row, total in zip(rows, costs):
        assert f' {total:,}' in row


def test_every_search_config_is_in_the_table():
    files = {path.stem for path in CONFIGS.glob('*.py')}
    assert set(SEARCH_FILES) == files - {p.values[0].stem for p in CONFIGS_OF_RUNS}


def test_a_search_config_has_the_keys_that_are_read():
    config = search_config()
    parsed = search_settings_of(config)
    for section in ('basis', 'budget', 'controls', 'evaluation'):
        assert dataclasses.asdict(getattr(parsed, section)) == config[section].to_dict()
    settings = {*config.search, *config.evolution} - {'method'}
    assert settings == set(evolution.Settings._fields)
    defaults = evolution.Settings._field_defaults
    assert all(value == defaults[k] for k, value in {**config.evolution}.items())
