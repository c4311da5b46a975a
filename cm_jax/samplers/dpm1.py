"""DPM-Solver++ of order 1 (arXiv 2211.01095), whose step is DDIM's; the result is x at t_min.

It is written `dpm1@n` and takes n evaluations. For its grids and options see samplers/_dpm_solver.py.
"""

from cm_jax.samplers import _dpm_solver

parse, sample = _dpm_solver.solver(1)
evaluations, options = _dpm_solver.evaluations, _dpm_solver.options
