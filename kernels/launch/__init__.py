"""Launch of a kernel: its config from the generated table, the layout of its tensors, the device
code that operators share. Imports kernels.backend; no operator."""
