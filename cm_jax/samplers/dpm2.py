"""DPM-Solver++(2M), of order 2 (arXiv 2211.01095, algorithm 2).

Written `dpm2@n`: n evaluations. Spacings and options in samplers/dpm_solver.py.
"""

from cm_jax.samplers import _dpm_solver

parse, sample = _dpm_solver.solver(2)
evaluations, options = _dpm_solver.evaluations, _dpm_solver.options
