"""BERT in JAX: the encoder and how it learns. Importing any of it never imports TensorFlow.

    import bert_jax
    encoder = bert_jax.load('runs/base')        # or a Hugging Face directory
    vectors = encoder.encode(['a text', 'another'])  # float32 [2 D]
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from bert_jax.text_encoder import TextEncoder as TextEncoder, load as load

__all__ = ['TextEncoder', 'load']


def __getattr__(name: str) -> Any:
  """The front door is imported when it is first used: `import bert_jax` itself brings nothing, not even JAX."""
  if name in __all__:
    from bert_jax import text_encoder
    return getattr(text_encoder, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
