"""Every product of a network has the precision that its config names, in all that runs it."""

import jax
import jax.numpy as jnp
import pytest

from cm_jax import data, samplers, sharding
from cm_jax.core.precision import PRECISIONS, at_precision
from cm_jax.errors import UserError
from cm_jax.evaluation import scores
from cm_jax.lcsc import criterion, storage
from cm_jax.lcsc.derivative import make_derivative
from cm_jax.lcsc.fitness import make_values
from cm_jax.models import pixels
from cm_jax.run import open_run
from cm_jax.training.setup import set_up
from tests.helpers import tiny
from tests.helpers.programs import Recorder, lowered_step, precisions
from tests.helpers.run_folders import untrained_run

ALLOWED = {'high': {'high', 'highest'}, 'highest': {'highest'}}


def config_of(objective, precision, **model):
    c = tiny.get_config(objective)
    c.model.update({'num_blocks': 1, 'precision': precision, **model})
    if c.prior:
        c.prior.precision = precision
    return c


def precisions_of_step(config, folder):
    return precisions(lowered_step(config, folder).as_text('hlo'))


def assert_asked_for(found, precision):
    """At least as precise as asked for, and what was asked for is there (so that this can fail)."""
    assert precision in found <= ALLOWED[precision], found


@pytest.fixture(scope='module')
def unnamed(tmp_path_factory):
    """The folder of a run that names no precision, to teach or guide others."""
    folder = tmp_path_factory.mktemp('run') / 'edm'
    return untrained_run(folder, config_of('edm', 'default'), steps=(1,)).workdir


def test_the_step_of_ect_with_attention_and_rematerialisation_in_micro_batches(tmp_path):
    config = config_of('ect', 'high', attn_resolutions=(8,), remat=(8,), dropout=0.1)
    config.train.accumulate = 2
    assert_asked_for(precisions_of_step(config, tmp_path), 'high')


def test_the_step_of_cd_with_a_teacher_that_names_none(unnamed, tmp_path):
    config = config_of('cd', 'highest')
    config.teacher.workdir = str(unnamed)
    assert_asked_for(precisions_of_step(config, tmp_path), 'highest')


def test_the_step_of_cud_with_a_prior(tmp_path):
    config = config_of('catch_up', 'highest', heads=1)
    config.objective.update({'order': 1, 'head': 1})
    assert_asked_for(precisions_of_step(config, tmp_path), 'highest')


def test_the_step_of_edm2_with_its_estimate_of_the_uncertainty(tmp_path):
    config = config_of('edm', 'highest', name='edm2_unet', attn_resolutions=(8,))
    config.objective.uncertainty = True
    assert_asked_for(precisions_of_step(config, tmp_path), 'highest')


def test_samplers_with_a_guide_that_names_none_and_searches(unnamed, tmp_path, monkeypatch):
    source = data.open_source('digits', 'test')
    extractor = pixels.extractor('pixel')
    space = scores.FeatureSpace(extractor, scores.reference(source, extractor, 297))
    built = criterion.build([space], {space.extractor.score: 1.0}, 40)
    run = untrained_run(tmp_path, config_of('ect', 'high'))
    params, model = run.params(), run.parts.generative_model
    placed = storage.place(storage.store(run.params, run.steps()), sharding.make_mesh())
    one, two = (samplers.build(spec, model.process) for spec in ('onestep', 'multistep@80,1'))
    settings = {'samples': 40, 'batch_size': 20}
    recorder = Recorder()
    monkeypatch.setattr(jax, 'jit', recorder.jit)
    jobs = (
        lambda: run.sample(params, f'euler@2+auto1.5={unnamed}', count=4),
        lambda: make_values(model, two, built, placed, **settings)(jnp.eye(2), 3),
        lambda: make_derivative(model, one, built, placed, **settings)(jnp.array([0.5, 0.5]), 3, 0),
    )
    for job in jobs:
        recorder.texts.clear()
        job()
        assert_asked_for(recorder.precisions(), 'high')


def test_it_holds_inside_every_transformation_and_an_inner_name_wins():
    def product(a):
        return a @ a

    def scanned(a):
        return jax.lax.scan(lambda x, _: (product(x), None), a, None, 2)[0]

    transformations = (
        jax.jit(product),
        jax.checkpoint(product),
        jax.vmap(product),
        scanned,
        lambda a: jax.vjp(product, a)[1](a)[0],
        lambda a: jax.jvp(product, (a,), (a,))[1],
    )
    for number, function in enumerate(transformations):
        a = jnp.eye(3) if number != 2 else jnp.ones((2, 3, 3))
        for precision in PRECISIONS:
            hlo = jax.jit(at_precision(function, precision)).lower(a).as_text('hlo')
            assert precisions(hlo) == {precision}, (number, precision)
    # The products of a derivative are made outside, as training makes them.
    gradient = jax.grad(lambda a: at_precision(product, 'high')(a).sum())
    assert precisions(jax.jit(gradient).lower(jnp.eye(3)).as_text('hlo')) == {'high'}
    inner = at_precision(at_precision(product, 'high'), 'highest')
    assert precisions(jax.jit(inner).lower(jnp.eye(3)).as_text('hlo')) == {'high'}


def test_an_unknown_precision_and_training_in_float16_are_refused(tmp_path):
    message = "model.precision 'low'.*legal: default, high, highest"
    with pytest.raises(UserError, match=message):
        set_up(tiny.settings_of(config_of('ect', 'low')), tmp_path / 'run')
    with pytest.raises(UserError, match=r"'float16' .* does not train.*'float32'.*'bfloat16'"):
        config = config_of('ect', 'default', dtype='float16')
        set_up(tiny.settings_of(config), tmp_path / 'run')
    run = untrained_run(tmp_path / 'half', config_of('ect', 'default', dtype='float16'))
    images = open_run(run.workdir).sample(run.params(), 'multistep@80,1', count=4)
    assert images.std() > 1
    assert not (tmp_path / 'run').exists()
