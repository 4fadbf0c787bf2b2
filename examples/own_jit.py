"""The encoder inside a program of your own: which words of a text does its vector depend on?

python examples/own_jit.py CHECKPOINT [TEXT]

`encoder.apply(params, batch)` is a pure function, and the parameters are its argument: jit, grad and vmap it.
"""

import sys

import jax
import jax.numpy as jnp

import bert_jax


def main(checkpoint: str, text: str = 'The old bridge over the river was built of stone.') -> None:
  encoder = bert_jax.load(checkpoint)

  @jax.jit
  def influence(params, batch):
    """How much each token's place moves the vector of [CLS]: the norm of a gradient. [B T] -> [B T]"""
    def of_cls(places):  # [B T D], added to the hidden states as they come in
      positions = params['encoder']['position_embeddings']['embedding'][:places.shape[1]] + places[0]
      moved = params | {'encoder': params['encoder'] | {'position_embeddings': {'embedding': positions}}}
      return jnp.square(encoder.apply(moved, batch)[:, 0]).sum()
    shape = (*batch['input_ids'].shape, encoder.settings.hidden_size)
    return jnp.linalg.norm(jax.grad(of_cls)(jnp.zeros(shape)), axis=-1)

  batch = encoder.batch([text])  # {name: int32 [B T]}
  for token, size in zip(batch['input_ids'][0], influence(encoder.params, batch)[0]):
    if token != encoder.tokenizer.pad_id:
      print(f'{encoder.tokenizer.tokens[token]:>15} {float(size):8.4f}')


if __name__ == '__main__':
  main(*sys.argv[1:])
