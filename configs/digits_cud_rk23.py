"""Catch-up distillation (CUD), RK23, on scikit-learn's digits; arXiv 2305.10769.

    python -m cm_jax.train --config=configs/digits_cud_rk23.py --workdir=runs/digits/cud_rk23

No teacher: two heads, of which the second samples. A prior over the noise is learned beside the
network. Global batch 64, 1,000 steps = 64,000 images.
"""

from configs.digits_cud_rk12 import cud_config


def get_config():
    return cud_config(2)
