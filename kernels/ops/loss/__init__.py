"""Cross entropy over logits, and over an output layer whose logits are never held all at once.
Imports kernels.launch and kernels.backend; no other operator."""
