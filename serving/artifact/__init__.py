"""What both planes agree on about a package: its files, its manifest, its signature, its store."""
