"""What the configs on CIFAR-10 share: 50,000 images of 32x32 pixels; all but two ignore the classes."""

from cm_jax.config import base_config
from cm_jax.models.presets import PRESETS
from configs.common.flow import rectified_flow

# One and two steps as in the code of Consistency Models (consistency_models_cifar10, the notebook
# editing_multistep_sampling: ts = [0, 11, 17] of 18 levels, x0 clipped).
CM_TWO_STEPS = ('onestep', 'multistep@idx:0,11,17/18,clip')


def cifar10_config(network):
    """Returns a config with the data and a published network, a name of `cm_jax/models/presets.py`.

    Pictures and scores are those of a few-step model. Products are float32's own on every device: the
    code of EDM and of ECT turns TF32 off, and consistency training compares nearly equal outputs.
    """
    c = base_config()
    c.dataset.update({'source': 'tfds', 'name': 'cifar10', 'data_dir': ''})
    c.model.update(PRESETS[network].settings)
    c.model.update({'dtype': 'float32', 'precision': 'highest'})
    c.objective.sigma_data = 0.5
    c.train.resume_every = 2000
    c.trajectory.every = 1000
    c.sampling.update({'sampler': 'onestep', 'every': 5000})
    c.evaluation.samplers = ('onestep', 'multistep@80,0.821')
    c.evaluation.update({'extractor': 'inception', 'samples': 50_000, 'reference': 'train'})
    return c


def flow_config(**objective):
    """Returns the training of DDPM++ on rectified flow with an objective, as in the code of CUD."""
    c = rectified_flow(cifar10_config('ddpmpp_cifar10'), **objective)
    c.dataset.flip = True
    c.steps = 500_000
    c.batch_size = 128
    c.ema_rates = (0.9999,)
    c.model.update({'augment_dim': 0, 'dropout': 0.13, 'skip_scaling': 0.75})
    c.optimizer.update({'name': 'adam', 'learning_rate': 2e-4, 'warmup_steps': 5000})
    c.sampling.ema = '0.9999'
    return c
