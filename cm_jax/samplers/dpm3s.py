"""DPM-Solver++(3S), the single-step solver of order 3 (arXiv 2211.01095).

It is written `dpm3s@n` and takes n evaluations; see samplers/_dpm_single_step.py.
"""

from cm_jax.samplers import _dpm_single_step, _dpm_solver

parse, sample = _dpm_single_step.solver(3)
evaluations = _dpm_solver.evaluations
