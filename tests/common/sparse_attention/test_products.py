"""Products of queries and keys: every query head with its key head, at least in float32."""

import pytest
import torch

from common.sparse_attention.products import query_key_products


def inputs(dtype, device="cpu"):
    g = torch.Generator().manual_seed(0)
    return (torch.randn(2, h, n, 64, generator=g).to(dtype).to(device) for h, n in ((6, 5), (3, 11)))


def naive(q, k):
    out = torch.empty(2, 6, 5, 11, dtype=torch.float64)
    for b in range(2):
        for h in range(6):
            out[b, h] = q[b, h].double().cpu() @ k[b, h // 2].double().cpu().T
    return out


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_query_head_meets_its_key_head(dtype):
    q, k = inputs(dtype)
    products = query_key_products(q, k)
    assert products.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(products.double(), naive(q, k), atol=1e-4, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_a_gpu_is_summed_in_float32(dtype):
    q, k = inputs(dtype, "cuda")
    torch.testing.assert_close(query_key_products(q, k).double().cpu(), naive(q, k), atol=1e-4, rtol=1e-5)
