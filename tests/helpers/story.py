"""The search of the whole story that tests/commands/conftest.py tells."""

SCANNED = ('--config.controls.windows=2', '--config.controls.bema=(0.2,)')


def search_arguments(runs, *, controls=SCANNED):
    return [
        '--config=tests/helpers/tiny_search.py',
        f'--workdir={runs}/lcsc',
        f'--config.basis.workdir={runs}/ect',
        *controls,
    ]
