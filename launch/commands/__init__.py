"""The subcommands of `bert-jax`, each parses, calls and prints."""
