"""DPM-Solver++(3M), of order 3 (arXiv 2211.01095). LCSC samples diffusion models with it.

It is written `dpm3@n` and takes n evaluations. The coefficients of the paper's code, which LCSC's code
has too, are those of `dpm3@n,official`; LCSC's paper has n = 15 and 9. For its grids and options see
samplers/_dpm_solver.py.
"""

from cm_jax.samplers import _dpm_solver

parse, sample = _dpm_solver.solver(3)
evaluations, options = _dpm_solver.evaluations, _dpm_solver.options
