"""What the papers share: kernels, sparse attention, language models, data, metrics, and the bookkeeping of results."""
