"""EDM diffusion teacher on LSUN at 256x256, with ADM, as in Consistency Models; arXiv 2303.01469.

    python -m cm_jax.train --config=configs/lsun256_edm.py:bedroom \
        --workdir=runs/lsun256/edm_bedroom --config.dataset.path=PATH
    python -m cm_jax.convert import --from=edm_bedroom256_ema.pt --network=cm_lsun256 \
        --workdir=runs/lsun256/edm_bedroom

PATH is a folder of images of 256x256 of one category; the variants are bedroom (the default) and
cat. The second command imports the public weights in place of training (edm_cat256_ema.pt for cat).
The network (526,304,771 parameters) and the training are those of the paper's public command: the
global batch is 256, the learning rate 1e-4, dropout is 0.1, and images are flipped at random. The
command names no number of steps; the 1,000,000 here, which see 256 million images, are ours, and so
is bfloat16 in place of float16. As there, x0 is clipped in each step of sampling, and samples
truncate to bytes. The paper's numbers on LSUN are not repeated here, as we could not check them.
Ours: not run.
"""

from cm_jax.errors import check_name
from configs.common.lsun256 import lsun256_config

VARIANTS = ('bedroom', 'cat')  # the category


def get_config(variant='bedroom'):
    check_name('variant', variant, VARIANTS)
    c = lsun256_config(variant)
    c.steps = 1_000_000
    c.model.dropout = 0.1
    c.objective.update({'name': 'edm', 'p_mean': -1.2, 'p_std': 1.2})
    c.optimizer.update({'name': 'radam', 'learning_rate': 1e-4})
    c.sampling.sampler = 'heun@40,clip'
    c.evaluation.samplers = ('heun@40,clip',)
    return c
