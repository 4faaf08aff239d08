"""Datasets: prepared from pinned sources, schema-checked, content-addressed, then frozen."""
