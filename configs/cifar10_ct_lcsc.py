"""LCSC on the end of the trajectory of cifar10_ct.py, a consistency model; arXiv 2404.02241.

    python -m cm_jax.search --config=configs/cifar10_ct_lcsc.py --workdir=runs/cifar10/ct_lcsc \
        --config.evaluation.weights=pt_inception-2015-12-05-6726825d.pth

The last 40,000 steps, a snapshot every 1,000: 41, 2,010 candidates of 5,000 samples. (The paper
searches 30,000 steps beyond the 800,000.) Ours: not run.
"""

from configs.cifar10_cd_lcsc import fid_search


def get_config():
    return fid_search('runs/cifar10/ct', start=760_000)
