"""What a refusal says."""

from collections.abc import Callable
from typing import Any

from cm_jax.errors import UserError


def refusal(function: Callable, *arguments: Any, **settings: Any) -> str:
    """The text of the UserError that a call raises; fails if it raises none."""
    try:
        function(*arguments, **settings)
    except UserError as error:
        return str(error)
    raise AssertionError(f'{function.__name__}{arguments} is not refused')
