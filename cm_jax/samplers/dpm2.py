"""DPM-Solver++(2M), of order 2 (arXiv 2211.01095, algorithm 2).

It is written `dpm2@n` and takes n evaluations. For its grids and options see samplers/_dpm_solver.py.
"""

from cm_jax.samplers import _dpm_solver

parse, sample = _dpm_solver.solver(2)
evaluations, options = _dpm_solver.evaluations, _dpm_solver.options
