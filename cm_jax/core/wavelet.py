"""The finest level of the two-dimensional wavelet transform with Daubechies' filter db3.

DB3 is the low-pass filter h of analysis as PyWavelets publishes it (`pywt.Wavelet('db3').dec_lo`); the
high-pass filter is g_k = (-1)^(k+1) h_{5-k}. The filters are orthonormal to their shifts by two, sum h
is sqrt(2), and g has three vanishing moments: it gives 0 on quadratic polynomials (Daubechies,
"Orthonormal bases of compactly supported wavelets", 1988, table 1).
"""

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.types import Array

DB3 = np.array(
    [
        0.035226291882100656,
        -0.08544127388224149,
        -0.13501102001039084,
        0.4598775021193313,
        0.8068915093133388,
        0.3326705529509569,
    ]
)
DB3_HIGH = DB3[::-1] * np.array([-1, 1, -1, 1, -1, 1])


def analyse(x: Array) -> Array:
    """Returns the four bands of one level of the transform: [B,H,W,C] -> [4,B,H',W',C].

    H' = floor((H + 5) / 2), and likewise W'. The first band is low-pass in both directions; the other
    three, high-pass in one or both, are the details. The image is continued by zeros (`mode='zero'` of
    PyWavelets), so that the transform is an isometry: the sum of all squares stays.
    """
    rows = [_filtered(x, taps, axis=1) for taps in (DB3, DB3_HIGH)]
    return jnp.stack([_filtered(band, taps, axis=2) for band in rows for taps in (DB3, DB3_HIGH)])


def _filtered(x: Array, taps: np.ndarray, axis: int) -> Array:
    """Returns y_k = sum_j taps_j x_{2k+1-j} along an axis of x [B,H,W,C]; axis 1 is H, axis 2 is W."""
    moved = jnp.moveaxis(x, axis, -1)
    n, size = x.shape[axis], len(taps)
    count = (n + size - 1) // 2
    signal = moved.reshape(-1, n, 1)
    kernel = jnp.asarray(taps[::-1].reshape(size, 1, 1), x.dtype)
    filtered = jax.lax.conv_general_dilated(
        signal,
        kernel,
        window_strides=(2,),
        padding=[(size - 2, 2 * count - n)],
        dimension_numbers=('NWC', 'WIO', 'NWC'),
        precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.moveaxis(filtered.reshape(*moved.shape[:-1], count), -1, axis)
