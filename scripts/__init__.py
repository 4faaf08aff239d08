"""Commands of a checkout: setup, site, quickstart, test."""
