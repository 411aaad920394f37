from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isl_jax.data.binning import bin_average, bin_labels


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(4, 17), st.integers(4, 17), st.integers(0, 2**16))
def test_binning_matches_brute_force(factor, height, width, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (height, width)).astype(np.int32)
    image = rng.integers(0, 65536, (height, width)).astype(np.uint16)
    binned, means = bin_labels(labels, factor), bin_average(image, factor)
    assert binned.shape == means.shape == (height // factor, width // factor)
    for y, x in np.ndindex(*binned.shape):
        block = np.s_[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
        # Counter keeps the order of first appearance, and most_common is stable.
        assert binned[y, x] == Counter(labels[block].ravel().tolist()).most_common(1)[0][0]
        assert abs(means[y, x] - image[block].mean()) <= 0.5
