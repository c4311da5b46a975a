"""The processes and the samplers that the tests of samplers go through."""

from cm_jax.core import process

VE = process.build('ve', 0.002, 80.0)
RF = process.build('rf', 1e-3, 1.0)
SHAPE = (4, 4, 2)
SPECS = (
    'onestep',
    'multistep@80,0.8',
    'multistep@80,10,1,0.002',
    'multistep@idx:0,22,39/40,clip',
    'euler@7',
    'ddim@8',
    'heun@1',
    'heun@18',
    'heun@9,clip',
    'churn@1',
    'churn@9,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003',
    'adams2@1',
    'adams2@9',
    'adams3@1',
    'adams3@2',
    'adams3@9',
    'cud3@3',
    'cud3@9',
    'jump@1',
    'jump@3',
    'jump@1,0.4',
    'dpm1@9',
    'dpm2@9,karras',
    'dpm3@1',
    'dpm3@2',
    'dpm3@9',
    'dpm3@9,lower_order_final',
    'dpm3@15,karras,lower_order_final',
    'dpm3@9,official',
    'dpm2s@1',
    'dpm2s@9',
    'dpm3s@2',
    'dpm3s@9',
    'dpm3s@10,karras',
)


def home(spec):
    """A process that a sampler is defined on."""
    return RF if spec.startswith(('cud3', 'jump')) else VE
