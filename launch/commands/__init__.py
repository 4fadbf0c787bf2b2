"""The subcommands of `bert-jax`, which parse, call and print: named in table.py, and standing in files by theme."""
