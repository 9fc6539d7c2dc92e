"""ProxyAttn: block-sparse prefill guided by representative heads."""
