"""The fleet: hosts, edges, and the walk of a signed version through them; rooms by effect.

Imports serving.artifact, serving.triton and conf. Every room shares `inventory`, `shipment` and
`errors`; `rollout` plans and walks, `ssh` and `haproxy` reach hosts and edges, `cli` is fab's.
"""
