"""Datasets: prepared from pinned sources, schema-checked, content-addressed, never changed after."""
