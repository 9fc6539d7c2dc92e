"""PBS-Attn: Sparser Block-Sparse Attention via Token Permutation (Wang et al., 2025)."""
