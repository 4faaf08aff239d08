"""What a person types at a checkout: setup, site, quickstart, test, bench."""
