"""Models: a torch-free config dataclass, and the network that its `build` makes.

What a YAML names (`model._target_`) is the config; any `torch.nn.Module` class can be named too.
Imports conf, and in a network torch and kernels; no task and no loop.
"""
