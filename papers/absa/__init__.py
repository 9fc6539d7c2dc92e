"""Progressive self-supervised attention learning for aspect-based sentiment (Tang et al., ACL 2019; Su et al., AIJ 2021)."""
