"""Dense kernels by name are causal attention."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from common.errors import InputError
from common.sparse_attention import structured_inputs
from common.sparse_attention.dense_kernels import dense_attention


def inputs(N):
    return structured_inputs(
        N, heads=4, key_heads=2, head_dim=64, topic_chunk=32, locality_period=128, heavy_hitter_period=8
    )  # fmt: skip


def test_the_math_kernel_is_causal_attention():
    q, k, v = inputs(70)
    expected = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(dense_attention("math", q, k, v)(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["flash", "cudnn", "flex"])
def test_kernels_of_the_gpu_are_causal_attention(name):
    q, k, v = (x.cuda().bfloat16() for x in inputs(512))
    expected = scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True, enable_gqa=True)
    error = (dense_attention(name, q, k, v)().double() - expected).norm() / expected.norm()
    assert error < 1e-2


def test_an_unknown_kernel():
    with pytest.raises(InputError, match="'fastest' is not known; there are: flash, cudnn, math, flex"):
        dense_attention("fastest", *inputs(16))
