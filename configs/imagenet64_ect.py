"""Easy consistency tuning (ECT) on ImageNet at 64x64, from EDM2; arXiv 2406.14548.

    python -m cm_jax.convert import --from=edm2-img64-s-1073741-0.075.pkl \
        --network=edm2_imagenet64_s --workdir=runs/imagenet64/edm2_s
    python -m cm_jax.train --config=configs/imagenet64_ect.py:s --workdir=runs/imagenet64/ect_s \
        --config.dataset.path=PATH

PATH is a folder of images of 64x64 with one folder for each class, by ADM's crop (docs/data.md), as
EDM2's dataset tool makes them. The variants are the sizes of EDM2; s is the default:

    variant  parameters     rate    dropout
    s        280,209,381    0.0010  0.4
    m        497,803,173    0.0009  0.5
    l        777,492,325    0.0008  0.5
    xl       1,119,276,837  0.0007  0.5

The global batch is 128: 100,000 steps see 12.8 million images, those of the teacher not counted.
There are four stages of 25,000 steps, with q = 4. As in the paper's code, images are not flipped,
samplers see the denoiser that is trained, without a boundary, and the middle level of two steps is
1.526. It computes in float32 at precision high: on a GPU that is TF32, as in that code, and on a
TPU it is finer. The paper's FID-50k of xl with global batch 1024 (`--config.batch_size=1024`; its
code does not say whether anything else changed), 102.4 million images, 1 and 2 steps: 2.49 and
1.67; of this length not confirmed. Ours: not run.

The paper's code starts s from edm2-img64-s-1073741-0.075.pkl; for m, l and xl it names no file, and
EDM2's own best ones are edm2-img64-m-2147483-0.060.pkl, edm2-img64-l-1073741-0.040.pkl and
edm2-img64-xl-0671088-0.040.pkl. ECT's own networks have no log variance: a run that starts from one
needs `--config.model.logvar_channels=0`.
"""

from cm_jax.errors import check_name
from configs.common.imagenet64 import comparing, imagenet64_config

VARIANTS = {  # the size: learning rate, dropout
    's': (0.0010, 0.4),
    'm': (0.0009, 0.5),
    'l': (0.0008, 0.5),
    'xl': (0.0007, 0.5),
}


def get_config(variant='s'):
    check_name('variant', variant, VARIANTS)
    rate, dropout = VARIANTS[variant]
    c = comparing(imagenet64_config(f'edm2_imagenet64_{variant}', 'train'))
    c.dataset.crop = 'adm'
    c.steps = 100_000
    c.batch_size = 128
    c.ema_rates = (0.9999,)
    c.ema_sigma_rels = (0.01, 0.05, 0.1)
    c.model.update({'dropout': dropout, 'dropout_resolution': 16, 'logvar_channels': 128})
    c.objective.update({'name': 'ect', 'p_mean': -0.8, 'p_std': 1.6, 'q': 4.0, 'k': 8.0, 'b': 1.0})
    c.objective.update({'double_every': 25_000, 'c': 0.06, 'weight': 'karras'})
    c.objective.boundary = 0.0
    c.optimizer.update({'name': 'adam', 'learning_rate': rate, 'b2': 0.99})
    c.optimizer.update({'decay': 'inverse_sqrt', 'decay_steps': 2000})
    c.init_from.workdir = f'runs/imagenet64/edm2_{variant}'
    c.trajectory.every = 1000
    c.sampling.update({'sampler': 'onestep', 'ema': '0.9999', 'every': 5000})
    c.evaluation.samplers = ('onestep', 'multistep@80,1.526')
    return c
