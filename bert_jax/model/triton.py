"""Pallas' Triton backend, where this JAX has it: from 0.11.2 on it is announced that a later one will not."""

try:
  from jax.experimental.pallas.triton import CompilerParams, dot, load, store
except ImportError:
  AVAILABLE = False
else:
  AVAILABLE = True

__all__ = ['AVAILABLE', 'CompilerParams', 'dot', 'load', 'steps', 'store']


def steps(count: int, programs: int) -> int:
  """How many of `count` steps each program takes, so that there are about so many programs, or more."""
  return next(each for each in range(max(count // programs, 1), 0, -1) if count % each == 0)
