"""EDM diffusion teacher on ImageNet at 64x64, class-conditional, with ADM; arXiv 2206.00364.

    python -m cm_jax.train --config=configs/imagenet64_adm.py --workdir=runs/imagenet64/adm \
        --config.dataset.path=PATH

PATH is a folder of images of 64x64 with one folder for each class, by EDM's crop, `lanczos`
(docs/data.md). The network (295,899,267 parameters) and the training are the paper's: the global
batch is 4096, 610,352 steps see 2,500 million images, the learning rate is 1e-4 after 10 million
images of warm-up, dropout is 0.1, and there is no augmentation: images are not flipped. The average
has a half-life of 50 million images, which is 0.999943 for one step. It computes in bfloat16, which
needs no loss scale, in place of the paper's float16. The teacher of the paper on CD had flipped
images by the other crop, RAdam and no warm-up: `--config.dataset.flip=True
--config.dataset.crop=adm --config.optimizer.name=radam --config.optimizer.warmup_steps=0`.

The paper's FID-50k with the second sampler here, its stochastic one at 511 network evaluations
(table 5): 1.36. Ours: not run.
"""

from configs.common.imagenet64 import EDM_REFERENCE, imagenet64_config


def get_config():
    c = imagenet64_config('adm_imagenet64', EDM_REFERENCE)
    c.dataset.crop = 'lanczos'
    c.steps = 610_352
    c.batch_size = 4096
    c.ema_rates = (0.999943,)
    c.model.dropout = 0.1
    c.objective.update({'name': 'edm', 'p_mean': -1.2, 'p_std': 1.2})
    c.optimizer.update({'name': 'adam', 'learning_rate': 1e-4, 'warmup_steps': 2441})
    c.sampling.ema = '0.999943'
    stochastic = 'churn@256,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003'
    c.evaluation.samplers = ('heun@40', stochastic)
    return c
