"""DPM-Solver++(3M), of order 3 (arXiv 2211.01095), which LCSC samples diffusion models with.

Written `dpm3@n`: n evaluations; the paper's are dpm3@15 and dpm3@9. Spacings and options in
samplers/dpm_solver.py.
"""

from cm_jax.samplers import dpm_solver

parse, sample = dpm_solver.solver(3)
evaluations, options = dpm_solver.evaluations, dpm_solver.options
