"""Vectors of texts from a checkpoint: which two sentences are nearest to each other?

python examples/features.py CHECKPOINT [TEXT …]     (a run, one of its steps, or a Hugging Face directory of a BERT)
"""

import sys

import numpy as np

import bert_jax

TEXTS = ('He was born in the spring of 1872.', 'The city lies on a river.', 'She was born in the winter of 1905.',
         'The town stands beside a lake.')


def main(checkpoint: str, *texts: str) -> None:
  texts = texts or TEXTS
  encoder = bert_jax.load(checkpoint)
  vectors = encoder.encode(texts, pooling='mean')  # float32 [n D]
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  alike = vectors @ vectors.T  # [n n] cosines
  for i, text in enumerate(texts):
    others = [j for j in range(len(texts)) if j != i]
    nearest = max(others, key=lambda j: alike[i, j])
    print(f'{alike[i, nearest]:.3f}  {text}  ~  {texts[nearest]}')

  each_token = encoder.encode(texts, pooling='none')  # a list of [t D], [CLS] and [SEP] among them
  print('tokens:', ', '.join(str(len(vectors)) for vectors in each_token))


if __name__ == '__main__':
  main(*sys.argv[1:])
