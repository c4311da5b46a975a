"""DPM-Solver++(3M), of order 3 (arXiv 2211.01095). LCSC samples diffusion models with it.

It is written `dpm3@n` and takes n evaluations; LCSC's paper has dpm3@15 and dpm3@9. For its grids and
options see samplers/_dpm_solver.py.
"""

from cm_jax.samplers import _dpm_solver

parse, sample = _dpm_solver.solver(3)
evaluations, options = _dpm_solver.evaluations, _dpm_solver.options
