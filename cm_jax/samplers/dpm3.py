"""DPM-Solver++(3M), of order 3 (arXiv 2211.01095), which LCSC samples diffusion models with.

Written `dpm3@n`: n evaluations; the paper's are dpm3@15 and dpm3@9. Spacings and options in
samplers/dpm_solver.py.
"""

from cm_jax.samplers import _dpm_solver

parse, sample = _dpm_solver.solver(3)
evaluations, options = _dpm_solver.evaluations, _dpm_solver.options
