"""The one-step stage of catch-up distillation (CUD), RK12, on CIFAR-10; arXiv 2305.10769.

    python -m cm_jax.train --config=configs/cifar10_cud_one_step.py --workdir=runs/cifar10/cud_one_step

It starts and learns from the run of cifar10_cud.py:rk12, unconditional; no image of the data is
used, so none is flipped. As in the paper's code, Adam trains three phases at 2e-4, the student has
no scaling of the skips (the teacher has; --config.model.skip_scaling=0.75 gives it to both), and
the weights themselves are sampled, not their average. Unlike there, the noise never repeats, where
the paper has 50,000 pairs with estimates rounded to bytes. Products are float32's own; the code
names no precision. The global batch is 128: 120,000 steps see 15.4 million images of noise. With
the 500,000 steps of that run these are the 620,000 steps of the paper's abstract. The paper's
FID-50k in one step: 3.37. Ours: not run.
"""

from configs import cifar10_cud
from configs.common.flow import one_step_stage


def get_config():
    c = one_step_stage(cifar10_cud.get_config('rk12'), 'runs/cifar10/cud_rk12', 120_000, 0.9999)
    c.optimizer.warmup_steps = 0
    c.dataset.flip = False
    return c
