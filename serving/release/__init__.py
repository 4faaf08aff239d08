"""From a run's candidate to a signed version: gates, number, signature, store."""
