"""What the searches on the digits that `bash launch/study.sh lcsc` compares share: their methods."""

from cm_jax.errors import check_name

TWO_SPACES = 'fd_lenet+fd_pixel'  # the features of a LeNet, and pooled pixels


def with_method(c, variant, generations):
    """Returns the search `c` with the method of a variant, at the cost of the others.

    `generations` has, for each variant, the generations or, down the derivative, the steps.
    """
    check_name('variant', variant, generations)
    c.evaluation.second = ('lenet_digits_2', 'lenet_fashion_mnist', 'pixel')
    c.budget.generations = generations[variant]
    c.search.method = 'gradient' if variant == 'gradient_two' else variant
    if c.search.method == 'gradient':
        c.gradient.batch_size = c.budget.samples
    if variant == 'gradient_two':
        c.budget.update({'metric': TWO_SPACES, 'units': 'relative'})
    return c
