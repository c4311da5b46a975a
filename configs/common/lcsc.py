"""What the searches that rank their candidates by FID share; arXiv 2404.02241."""

from cm_jax.config import search_config


def fid_search(run, start, sampler='onestep', byte_rule='round', reference='train'):
    """Returns a search over the snapshots of the folder `run` from the step `start` on.

    The paper ranks candidates by the FID of 5,000 to 10,000 samples on fixed noise and reports the
    FID of 50,000 samples on other noise. Its window, stride and number of candidates are not known;
    ours are 125 generations, which with the profiles are 2,010 candidates. Its code truncates the
    images of consistency models to bytes, and measures those of diffusion models without rounding
    them; for these we round, which moves no mean.
    """
    c = search_config()
    c.basis.update({'workdir': run, 'start': start})
    c.budget.update({'sampler': sampler, 'generations': 125, 'samples': 5000, 'batch_size': 250})
    c.controls.landscape = 21
    c.evaluation.update({'extractor': 'inception', 'samplers': (sampler,), 'samples': 50_000})
    c.evaluation.update({'bytes': byte_rule, 'reference': reference})
    return c
