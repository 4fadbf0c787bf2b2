"""The front door: the `bert-jax` command, planning and launchers."""
