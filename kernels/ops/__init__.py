"""Operators, one file each: the formula, the kernels, the launcher, the torch op, the reference;
`__all__` holds the public names. Imports kernels.launch and kernels.backend."""
