"""Commands of a checkout: setup, site, quickstart, test.

Imports conf and serving; nothing of the product imports it, and no wheel holds it.
"""
