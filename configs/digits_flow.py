"""Rectified flow on scikit-learn's digits; arXiv 2209.03003.

    python -m cm_jax.train --config=configs/digits_flow.py --workdir=runs/digits/flow

This is the diffusion model on the process of digits_cud.py, to be compared with it. The global
batch is 64: 1,000 steps see 64,000 images. The result is in the table of
`bash launch/study.sh digits-cud` in docs/results.md.
"""

from configs.common.digits import flow_config


def get_config():
    return flow_config(name='flow')
