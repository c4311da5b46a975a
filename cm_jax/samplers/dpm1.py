"""DPM-Solver++ of order 1 (arXiv 2211.01095): DDIM's step, x at t_min the result.

Written `dpm1@n`: n evaluations. Spacings and options in samplers/dpm_solver.py.
"""

from cm_jax.samplers import dpm_solver

parse, sample = dpm_solver.solver(1)
evaluations, options = dpm_solver.evaluations, dpm_solver.options
