"""LCSC on the end of the trajectory of cifar10_ct.py, a consistency model; arXiv 2404.02241.

    python -m cm_jax.search --config=configs/cifar10_ct_lcsc.py --workdir=runs/cifar10/ct_lcsc \
        --config.evaluation.weights=pt_inception-2015-12-05-6726825d.pth

It searches over 41 snapshots, one every 1,000 steps of the last 40,000, with 2,010 candidates of
5,000 samples. (The paper searches over 30,000 steps beyond the 800,000.) Ours: not run.
"""

from configs.common.lcsc import fid_search


def get_config():
    return fid_search('runs/cifar10/ct', start=760_000, byte_rule='truncate')
