"""Flights: will it arrive more than 15 minutes late? From what is known before departure."""

from hpc.tasks.flights.data import batches
from hpc.tasks.flights.evaluate import evaluate
from hpc.tasks.flights.export import export
from hpc.tasks.flights.network import loss, model

__all__ = ["batches", "evaluate", "export", "loss", "model"]
