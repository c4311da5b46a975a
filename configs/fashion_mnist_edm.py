"""EDM diffusion teacher on Fashion-MNIST (60,000 images of 28x28, 10 classes).

    python -m cm_jax.prepare --dataset=fashion_mnist
    python -m cm_jax.train --config=configs/fashion_mnist_edm.py --workdir=runs/fashion_mnist/teacher

Global batch 128, 20,000 steps = 2,560,000 images. Result: not run to its end.
"""

from cm_jax.config import base_config


def fashion_mnist_config():
    """What the runs on Fashion-MNIST share: the data and a network of 1,259,745 parameters."""
    c = base_config()
    c.batch_size = 128
    c.class_conditional = True
    c.dataset.update({'source': 'tfds', 'name': 'fashion_mnist', 'data_dir': ''})
    c.model.update({'channels': 32, 'channel_mult': (1, 2, 2), 'num_blocks': 1})
    c.model.update({'attn_resolutions': (7,), 'dropout': 0.0, 'dtype': 'float32'})
    c.objective.sigma_data = 0.5
    c.evaluation.extractor = 'lenet_fashion_mnist'
    return c


def get_config():
    c = fashion_mnist_config()
    c.steps = 20_000
    c.ema_rates = (0.999,)
    c.objective.update({'name': 'edm', 'p_mean': -1.2, 'p_std': 1.2})
    c.optimizer.update({'name': 'adam', 'learning_rate': 1e-3, 'warmup_steps': 500})
    c.sampling.update({'sampler': 'heun@18', 'ema': '0.999', 'count': 50, 'every': 2000})
    c.evaluation.samplers = ('heun@18', 'onestep')
    return c
