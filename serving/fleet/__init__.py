"""The fleet: hosts and edges, and how a signed version walks through them."""
