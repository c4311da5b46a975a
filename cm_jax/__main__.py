"""Lists the commands of the package: `python -m cm_jax`.

A command is a file in this folder that can be run; the first line of its docstring says what it does.
The files are read and not imported, so that the list appears at once.
"""

import ast
import pathlib


def commands() -> dict[str, str]:
    """Returns the first line of the docstring of each command, by the command's name."""
    summaries = {}
    for path in sorted(pathlib.Path(__file__).parent.glob('*.py')):
        module = ast.parse(path.read_text())
        if path.stem != '__main__' and any(map(_runs_as_script, module.body)):
            summaries[path.stem] = (ast.get_docstring(module) or '').partition('\n')[0]
    return summaries


def _runs_as_script(statement: ast.stmt) -> bool:
    """Returns whether a statement is `if __name__ == '__main__': ...`."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "__name__ == '__main__'"


def main() -> None:
    summaries = commands()
    width = max(map(len, summaries))
    print('python -m cm_jax.COMMAND --help lists the options of a command. The commands:\n')
    for name, summary in summaries.items():
        print(f'  {name:<{width}}  {summary}')


if __name__ == '__main__':
    main()
