"""How likely the second text of a pair is what follows the first (arXiv:1810.04805 section 3.1, task 2).

B rows.
"""

from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp

from bert_jax.errors import require
from bert_jax.model.heads import PairClasses, Pooler
from bert_jax.rows import BATCH_ROWS, Output, Placed, in_batches, windows

IS_NEXT = 0  # run_pretraining.py: 1 is random


def pair_probabilities(model, batch):  # {[B T]} -> [B]
  first = jnp.zeros((len(batch['input_ids']), 1), jnp.int32)
  scores = model.pair_classes(model.pooler(model.encoder(batch), first))[:, 0]
  return jax.nn.softmax(scores.astype(jnp.float32), axis=-1)[:, IS_NEXT]


PROBABILITIES = Output(pair_probabilities, (('pooler', Pooler), ('pair_classes', PairClasses)))


def next_sentence(encoder: Placed, pairs: Iterable[tuple[str, str]], *, batch_size: int = BATCH_ROWS,
                  truncate: bool = False, progress: bool = False) -> Iterator[float]:
  """The probability that the second of each pair follows the first, in their order; pairs may be endless.

  Raises ConfigError where the checkpoint was not trained to tell, or a pair is too long and not `truncate`.
  """
  check(encoder)
  with in_batches(batch_size, progress, 'pair') as pace:
    for window in windows(encoder.rows(pairs, truncate), lambda row: len(row[0])):
      yield from map(float, encoder.in_order(PROBABILITIES, window, pace))


def check(encoder: Placed) -> None:
  """Raises ConfigError where the checkpoint has no trained head for next sentences."""
  loaded = encoder.loaded
  require('sop' not in loaded.objective.terms,
          'this run learnt the order of two sentences (objective mlm_sop), not which is next: name one of mlm_nsp')
  for head, name in (('pooler', 'pooler'), ('pair_classes', 'next-sentence head (pair_classes)')):
    require(encoder.has(head), (
        f'this run did not train its {name}' if head in loaded.untrained() else
        f'this checkpoint has no {name}') + ', so it cannot tell which sentence is next: name a run of objective '
        'mlm_nsp, or a Hugging Face directory of BertForPreTraining')
