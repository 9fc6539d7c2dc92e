"""GPU kernels, a package for each: a public function that checks and dispatches, a plain PyTorch reference, a Triton kernel."""
