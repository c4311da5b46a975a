"""DPM-Solver++ of order 1 (arXiv 2211.01095): DDIM's step, x at t_min the result.

Written `dpm1@n`: n evaluations. Spacings and options in samplers/dpm_solver.py.
"""

from cm_jax.samplers import _dpm_solver

parse, sample = _dpm_solver.solver(1)
evaluations, options = _dpm_solver.evaluations, _dpm_solver.options
