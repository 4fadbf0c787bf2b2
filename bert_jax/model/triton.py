"""Pallas' Triton backend, where this JAX has it: from 0.11.2 on it is announced that a later one will not."""

try:
  from jax.experimental.pallas.triton import CompilerParams, dot, load, store
except ImportError:
  AVAILABLE = False
else:
  AVAILABLE = True

__all__ = ['AVAILABLE', 'CompilerParams', 'dot', 'load', 'store']
