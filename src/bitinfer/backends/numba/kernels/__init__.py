"""The compiled kernels; contracts are those of csrc/kernels/*/*.h, for one sample."""
