"""The `lockgate` command: thin verbs that parse, call one function, and print."""
