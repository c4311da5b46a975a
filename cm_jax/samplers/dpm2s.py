"""DPM-Solver++(2S), the single-step solver of order 2 (arXiv 2211.01095).

It is written `dpm2s@n` and takes n evaluations; see samplers/_dpm_single_step.py.
"""

from cm_jax.samplers import _dpm_single_step, _dpm_solver

parse, sample = _dpm_single_step.solver(2)
evaluations = _dpm_solver.evaluations
