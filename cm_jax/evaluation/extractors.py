"""Extractors by name: packaged, or with the file of their weights.

One text names an extractor with its file:

    NAME         lenet_digits, lenet_fashion_mnist, pixel, pixel_rgb, which need no file
    NAME=FILE    inception=FILE, dinov2_vitl14=FILE, vgg16=FILE

An evaluation may also have the name and the file apart, as `extractor` and `weights`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from cm_jax.errors import UserError, check_name
from cm_jax.evaluation.references import is_of_one_extractor
from cm_jax.models import lenet, pixels
from cm_jax.settings import Evaluation
from cm_jax.types import Extractor
from cm_jax.weights import dinov2, download, inception, vgg16

# The extractors whose weights come in a file.
FROM_FILES: dict[str, Callable[[str], Extractor]] = {
    inception.NAME: inception.load,
    dinov2.NAME: dinov2.load,
    vgg16.NAME: vgg16.load,
}


def names() -> list[str]:
    """Returns the names of all extractors."""
    return [*FROM_FILES, *lenet.names(), *pixels.SPACES]


def split(extractor: str, weights: str = '') -> tuple[str, str]:
    """Returns (name, file) of an extractor's text; the file is `weights` where the text has none.

    Raises UserError if both name a file.
    """
    name, _, file = extractor.partition('=')
    if file and weights:
        raise UserError(
            f'the extractor {extractor!r} and weights={weights!r} name two files; give one'
        )
    return name, file or weights


def check_spec(spec: str, weights: str = '') -> None:
    """Raises UserError on no or an unknown extractor, and unless it names a file where it takes one.

    `spec` and `weights` are those of `split`. No file is opened.
    """
    name, file = split(spec, weights)
    if not name:
        raise UserError(
            'no extractor is named: give config.evaluation.extractor, or --extractor where the command '
            f'has it; legal: {", ".join(sorted(names()))} (docs/evaluation.md)'
        )
    check_name('extractor', name, names())
    if file and name not in FROM_FILES:
        raise UserError(
            f"the file of the extractor's weights is {file!r}: {', '.join(map(repr, FROM_FILES))}, and "
            f'no others, take one; the extractor is {name!r}'
        )
    if not file and name in FROM_FILES:
        raise UserError(_missing(name))


def _missing(name: str) -> str:
    """Returns what is said of an extractor without the file of its weights: where to get it."""
    published = download.PUBLISHED.get(name)
    source, fetch = '', ''
    if published is not None:
        source = f', {published.url.split("/")[-1]} ({published.url})'
        fetch = ', or --download, which fetches it'
    return (
        f'the extractor {name!r} needs the file of its weights{source}: give {name}=FILE or '
        f'config.evaluation.weights=FILE; for evaluate also --weights=FILE{fetch} (docs/evaluation.md)'
    )


def open_spec(spec: str, weights: str = '') -> Extractor:
    """Returns an extractor, with its weights. Raises UserError as `check_spec` and its loader do."""
    check_spec(spec, weights)
    name, file = split(spec, weights)
    if name in FROM_FILES:
        return FROM_FILES[name](file)
    return pixels.extractor(name) if name in pixels.SPACES else lenet.extractor(name)


def open_spaces(main: Extractor, specs: Sequence[str]) -> list[Extractor]:
    """Returns the extractors of `specs`, to be used beside the extractor `main`.

    The scores of all of them have different names: an extractor whose `score` is that of `main` or of
    one before it has the score 'fd_<its name>' instead. Beside 'lenet_digits', whose score is
    'fd_lenet', 'lenet_fashion_mnist' has the score 'fd_lenet_fashion_mnist'.

    Raises UserError, before a file is opened, if an extractor is named twice, be it with two files, or
    is `main`, and as `check_spec` does; then as the loaders do.
    """
    taken = [main.name]
    for spec in specs:
        check_spec(spec)
        name, _ = split(spec)
        if name in taken:
            raise UserError(
                f'the extractor {name!r} is named twice; legal: each once, beside {main.name!r}'
            )
        taken.append(name)
    scores, spaces = {main.score}, []
    for extractor in map(open_spec, specs):
        if extractor.score in scores:
            extractor = extractor._replace(score=f'fd_{extractor.name}')
        scores.add(extractor.score)
        spaces.append(extractor)
    return spaces


def check_extractor(evaluation: Evaluation) -> None:
    """Raises UserError as `check_spec` does, for the extractor of an evaluation."""
    check_spec(evaluation.extractor, evaluation.weights)


def check_unscored(evaluation: Evaluation) -> None:
    """Raises UserError as `check_extractor`, but not on an extractor or a file that is not given.

    A training run that scores nothing needs neither.
    """
    name, file = split(evaluation.extractor, evaluation.weights)
    if name and (file or name not in FROM_FILES):
        check_extractor(evaluation)


def open_extractor(evaluation: Evaluation) -> Extractor:
    """Returns the extractor of an evaluation, with its weights."""
    return open_spec(evaluation.extractor, evaluation.weights)


def override(evaluation: Evaluation, given: dict[str, Any], fetch: bool) -> Evaluation:
    """Returns an evaluation with the settings of `given` that are not None in place of its own.

    Its `extractor` is then a name, and its `weights` the file. The weights of an evaluation are
    those of its own extractor: with another one they are dropped. Of its own `second`, the
    extractor itself is left out, and all of them with a file of one extractor as the reference.
    With `fetch` the weights of the extractor are downloaded if they are not at their place. Raises
    UserError as `check_extractor` does.
    """
    given = {name: value for name, value in given.items() if value is not None}
    own, own_file = split(evaluation.extractor, evaluation.weights)
    extractor, weights = split(given.get('extractor', own), given.get('weights', ''))
    if not weights and extractor == own and 'weights' not in given:
        weights = own_file
    if fetch and extractor:
        weights = str(download.place(extractor, weights))
    if 'second' not in given:
        alone = is_of_one_extractor(given.get('reference', evaluation.reference))
        second = () if alone else evaluation.second
        given['second'] = tuple(spec for spec in second if split(spec)[0] != extractor)
    changed = dataclasses.replace(
        evaluation, **given | {'extractor': extractor, 'weights': weights}
    )
    check_extractor(changed)
    if fetch:
        download.fetch(changed.extractor, changed.weights)
    return changed
