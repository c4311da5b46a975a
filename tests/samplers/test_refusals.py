"""A sampler that is misspelt, or that its process does not take, is refused in one line."""

import re

import pytest

from cm_jax import samplers
from cm_jax.errors import UserError
from tests.helpers.refusals import refusal
from tests.helpers.samplers import RF, VE

LEGAL = (
    'legal: adams2, adams3, churn, cud3, ddim, dpm1, dpm2, dpm2s, dpm3, dpm3s, euler, heun, jump, '
    'multistep, onestep'
)


WRONG = [  # (what is written, what the refusal says)
    ('', f"unknown sampler ''; {LEGAL}"),
    ('edit@10', f"unknown sampler 'edit'.*{LEGAL}"),
    ('onestp', r"unknown sampler 'onestp' \(did you mean 'onestep'"),
    ('onestep@3', "onestep takes no arguments, got '3'"),
    ('heun', 'write heun@n with n >= 1'),
    ('heun@', 'write heun@n with n >= 1'),
    ('heun@0', 'write heun@n with n >= 1'),
    ('heun@-3', 'write heun@n with n >= 1'),
    ('heun@x', 'write heun@n with n >= 1'),
    ('heun@2.5', 'write heun@n with n >= 1'),
    ('heun@²', 'write heun@n with n >= 1'),
    ('euler@0', 'write euler@n with n >= 1'),
    ('ddim@0', 'write ddim@n with n >= 1'),
    ('adams2@0', 'write adams2@n with n >= 1'),
    ('adams3', 'write adams3@n with n >= 1'),
    ('dpm3', 'write dpm3@n with n >= 1'),
    ('dpm3@karras', 'write dpm3@n with n >= 1'),
    ('dpm3@9,cosine', 'one of logsnr, karras and lower_order_final and official behind commas'),
    ('dpm2@9,official', 'one of logsnr, karras and lower_order_final behind commas'),
    ('dpm3@9,official,official', 'write dpm3@n'),
    ('dpm3s@9,lower_order_final', 'write dpm3s@n, with one of logsnr, karras behind commas'),
    ('dpm2s@0', 'write dpm2s@n with n >= 1'),
    ('churn', 'write churn@n with n >= 1'),
    ('churn@0,S_churn=1', 'write churn@n with n >= 1'),
    ('churn@9,40', r'churn@9,40: write churn@n.* S_churn >= 0'),
    ('churn@9,s_churn=40', 'S_churn >= 0'),
    ('churn@9,S_churn=', 'S_churn >= 0'),
    ('churn@9,S_churn=nan', 'S_churn >= 0'),
    ('churn@9,S_churn=inf', 'S_churn >= 0'),
    ('churn@9,S_churn=-1', 'S_churn >= 0'),
    ('churn@9,S_churn=1,S_churn=2', 'each once'),
    ('churn@9,S_min=2,S_max=1', 'S_min <= S_max'),
    ('churn@9,S_noise=0', 'S_noise > 0'),
    ('dpm2@9,logsnr,karras', 'write dpm2@n, with one of logsnr, karras'),
    ('dpm2@9,karras,karras', 'write dpm2@n, with one of logsnr, karras'),
    ('dpm_solver@9', "unknown sampler 'dpm_solver'"),
    ('cud3@8', "cud3 takes equal steps, of process rf; this one is 've': use adams3"),
    ('multistep', 'as multistep@80,0.8'),
    ('multistep@', 'as multistep@80,0.8'),
    ('multistep@80,,1', 'as multistep@80,0.8'),
    ('multistep@80;1', 'as multistep@80,0.8'),
    ('multistep@80,1,2', 'must descend strictly, got 80, 1, 2'),
    ('multistep@80,80', 'must descend strictly, got 80, 80'),
    ('multistep@80,1,1', 'must descend strictly, got 80, 1, 1'),
    ('multistep@81,1', r'must lie in \[0.002, 80\], got 81, 1'),
    ('multistep@80,0.001', r'must lie in \[0.002, 80\], got 80, 0.001'),
    ('multistep@80,0', r'must lie in \[0.002, 80\], got 80, 0'),
    ('multistep@0', r'must lie in \[0.002, 80\], got 0'),
    ('multistep@80,-1', r'must lie in \[0.002, 80\], got 80, -1'),
    ('multistep@clip', 'as multistep@80,0.8'),
    ('heun@clip', 'heun@n with n >= 1'),
    ('heun@8,clip,clip', 'heun@n with n >= 1'),
    ('multistep@80,0.8,clip,clip', 'as multistep@80,0.8'),
    ('multistep@idx:0,22,39', r'idx:0,22,39: write indices .* as multistep@idx:0,22,39/40'),
    ('multistep@idx:0,22/40', 'from 0, that of t_max, to n - 1'),
    ('multistep@idx:1,39/40', 'from 0, that of t_max, to n - 1'),
    ('multistep@idx:0,22,22,39/40', 'indices that ascend'),
    ('multistep@idx:0/1', 'indices that ascend'),
    ('multistep@idx:0,x,39/40', 'indices that ascend'),
    ('multistep@nan', r'must lie in \[0.002, 80\], got nan'),
    ('multistep@80,nan', 'got 80, nan'),
    ('multistep@inf,1', r'must lie in \[0.002, 80\], got inf'),
    ('multistep@40,0.8', 'must start at t_max = 80, where the noise is, got 40, 0.8'),
    ('heun@18+cfg', r"guidance of 'heun@18\+cfg': write .* as heun@18\+cfg1.5"),
    ('heun@18+cfgx', 'one weight >= 0'),
    ('heun@18+cfg-1', 'one weight >= 0'),
    ('heun@18+cfgnan', 'one weight >= 0'),
    ('heun@18+cfginf', 'one weight >= 0'),
    ('heun@18+cfg2+cfg2', 'one weight >= 0'),
    ('+cfg2', "unknown sampler ''"),
    ('heun@18+auto', r"autoguidance of 'heun@18\+auto': write .* as heun@18\+auto1.7=runs/small"),
    ('heun@18+auto2', 'the folder of the run that guides'),
    ('heun@18+auto2=', 'the folder of the run that guides'),
    ('heun@18+auto=runs/small', 'one weight >= 0'),
    ('heun@18+auto-1=runs/small', 'one weight >= 0'),
    ('heun@18+autonan=runs/small', 'one weight >= 0'),
    ('heun@18+auto2=runs/a+auto2=runs/b', 'one weight >= 0'),
    ('heun@18+auto2=runs/small,last', "guide 'runs/small,last': write the folder"),
    ('heun@18+auto2=runs/small,8,0.9,1', 'perhaps a step and an average'),
    ('heun@18+cfg2+auto2=runs/small', 'two kinds of guidance'),
    ('heun@0+auto2=runs/small', 'write heun@n with n >= 1'),
    ('heun@18+head', r"head of 'heun@18\+head': write .* as heun@18\+head1"),
    ('heun@18+head0', 'its number from 1'),
    ('heun@18+head1+head1', 'its number from 1'),
    ('heun@18+cfg2+head1', 'one weight >= 0 at the end'),
    ('heun+cfg2', 'write heun@n with n >= 1'),
    ('heun@18+cg2', 'write heun@n with n >= 1'),
    ('onestep+cg2', r"unknown sampler 'onestep\+cg2' \(did you mean 'onestep'"),
    ('onestep+cfg2@3', 'one weight >= 0'),
]


def test_logsnr_needs_a_signal_at_t_max():
    with pytest.raises(UserError, match=r't_max = 1 is 0.*write karras'):
        samplers.build('dpm3@9,logsnr', RF)


def test_samplers_that_rectified_flow_lacks():
    with pytest.raises(UserError, match="churn raises the noise of process ve; this one is 'rf'"):
        samplers.build('churn@9', RF)
    for spec in ('dpm2s@9', 'dpm3s@9,logsnr'):
        with pytest.raises(UserError, match=f'{spec} needs a signal at t_max.*below 1, or dpm'):
            samplers.build(spec, RF)


def test_wrong_spec_is_one_line_with_what_is_legal():
    for spec, message in WRONG:
        said = refusal(samplers.build, spec, VE)
        assert re.search(message, said), f'{spec!r} must say {message!r}, says {said!r}'
        assert '\n' not in said, spec


def test_cud3_takes_three_steps_at_least():
    with pytest.raises(UserError, match='cud3@2: it takes at least 3 steps'):
        samplers.build('cud3@2', RF)
