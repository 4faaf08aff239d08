"""Datasets: prepared from pinned sources, schema-checked, content-addressed, then frozen.

One folder per kind (`tabular`, `text`, `arrays`, `labelled_text`); imports `conf`,
`serving.artifact` and `serving.runtime`, and torch never.
"""
