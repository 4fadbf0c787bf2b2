"""The subcommands of `bert-jax`: table.py names them, and each has its flags in a file by theme: it parses, calls and prints."""
