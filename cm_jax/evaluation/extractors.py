"""The extractor of an evaluation, by its name: packaged, or with the file of its weights."""

import dataclasses
from collections.abc import Callable
from typing import Any

from cm_jax.errors import UserError, check_name
from cm_jax.models import lenet
from cm_jax.settings import Evaluation
from cm_jax.types import Extractor
from cm_jax.weights import dinov2, download, inception

# The extractors whose weights come in a file.
FROM_FILES: dict[str, Callable[[str], Extractor]] = {
    inception.NAME: inception.load,
    dinov2.NAME: dinov2.load,
}


def check_extractor(evaluation: Evaluation) -> None:
    """Raises UserError on an unknown extractor, and unless `weights` is set where it takes a file."""
    check_name('extractor', evaluation.extractor, [*FROM_FILES, *lenet.names()])
    if bool(evaluation.weights) != (evaluation.extractor in FROM_FILES):
        raise UserError(
            f'config.evaluation.weights is {evaluation.weights!r}: the extractors '
            f'{" and ".join(map(repr, FROM_FILES))}, and no others, take the file of their weights '
            f'there; the extractor is {evaluation.extractor!r}'
        )


def open_extractor(evaluation: Evaluation) -> Extractor:
    """Returns the extractor of an evaluation, with its weights."""
    check_extractor(evaluation)
    if evaluation.extractor in FROM_FILES:
        return FROM_FILES[evaluation.extractor](evaluation.weights)
    return lenet.extractor(evaluation.extractor)


def override(evaluation: Evaluation, given: dict[str, Any], fetch: bool) -> Evaluation:
    """Returns an evaluation with the settings of `given` that are not None in place of its own.

    The weights of an evaluation are those of its own extractor: with another one they are dropped.
    With `fetch` the weights of the extractor are downloaded if they are not at their place. Raises
    UserError if an extractor lacks the file of its weights.
    """
    given = {name: value for name, value in given.items() if value is not None}
    extractor = given.get('extractor', evaluation.extractor)
    if extractor != evaluation.extractor:
        given.setdefault('weights', '')
    weights = given.get('weights', evaluation.weights)
    if fetch:
        weights = given['weights'] = str(download.place(extractor, weights))
    if extractor in FROM_FILES and not weights:
        raise UserError(
            f'the extractor {extractor!r} needs the file of its weights: --weights=FILE, or '
            '--download, which fetches it'
        )
    changed = dataclasses.replace(evaluation, **given)
    check_extractor(changed)
    if fetch:
        download.fetch(changed.extractor, changed.weights)
    return changed
