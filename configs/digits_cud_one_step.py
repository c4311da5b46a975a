"""The one-step stage of catch-up distillation (CUD), RK12, on scikit-learn's digits; arXiv 2305.10769.

    python -m cm_jax.train --config=configs/digits_cud_one_step.py --workdir=runs/digits/cud_one_step

It starts and learns from the run of digits_cud.py:rk12; --config.init_from.workdir and
--config.teacher.workdir name another. Its average is sampled, where the paper's code takes the
weights themselves. The global batch is 64: 500 steps see 32,000 images of noise, those of that run
not counted. `bash launch/study.sh digits-cud` starts it half way through such a run, so that both
together have seen as many images as the runs that they are compared with; the result is in its
table in docs/results.md.
"""

from configs import digits_cud
from configs.common.flow import one_step_stage


def get_config():
    c = one_step_stage(digits_cud.get_config('rk12'), 'runs/digits/cud_rk12', 500, 0.99)
    c.optimizer.update({'learning_rate': 1e-3, 'warmup_steps': 0})
    c.sampling.update({'ema': '0.99', 'every': 500})
    return c
