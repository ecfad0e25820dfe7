"""GPU kernels in Triton. Their interfaces are those of the modules one level up."""
