"""How likely a model finds sentences, and which of two it prefers.

Of a masked model it is the pseudo-log-likelihood: each token is masked in a copy of the sentence, and the logarithms
of what the model gives it there are added up (arXiv:1910.14659). Of a model that reads in one direction it is the
log-likelihood itself.

B rows, T tokens, t tokens of one sentence.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import fill_mask
from bert_jax.errors import require
from bert_jax.minimal_pairs import Pair
from bert_jax.model.heads import MaskedTokens
from bert_jax.model.lookup import one_of_each
from bert_jax.objectives import Term
from bert_jax.rows import BATCH_ROWS, Output, Pace, Placed, Row, in_batches, windows

PAIRS_TOGETHER = 1 << 12  # of which sentences that are in several are scored once
# Differences of sums in float32 that are no preference, in nats: what batches of another length can change.
TIE = 1e-5


@dataclasses.dataclass(frozen=True)
class Score:
  """Of one sentence."""
  score: float  # nats
  tokens: int  # that were predicted


def hidden_by_token(continues: np.ndarray) -> list[tuple[int, int]]:  # [t] bool -> (from, to) for each token
  """Which tokens are masked to predict each: only itself."""
  return [(at, at + 1) for at in range(len(continues))]


def hidden_by_word(continues: np.ndarray) -> list[tuple[int, int]]:  # [t] bool -> (from, to) for each token
  """Itself and all that follow in its word, which would give it away (PLL-word-l2r, arXiv:2305.10588 section 3)."""
  ends, end = [], len(continues)
  for at in range(len(continues) - 1, -1, -1):
    ends.append((at, end))
    end = end if continues[at] else at
  return ends[::-1]


# By name: which tokens of a sentence are masked to predict each.
UNITS: dict[str, Callable[[np.ndarray], list[tuple[int, int]]]] = {'token': hidden_by_token, 'word': hidden_by_word}

# ---------------------------------------------------------------- on a batch


def log_probability(logits, labels):  # [B V], [B] -> [B]
  """Of each row's label: no other token's is made."""
  return one_of_each(logits, labels) - jax.nn.logsumexp(logits, axis=-1)


def masked_log_probability(model, batch):  # {[B T], positions [B 1], labels [B]} -> [B]
  """Of the one token of each row that is asked for: the vocabulary's scores are computed only there."""
  logits = model.masked_tokens(model.encoder(batch), batch['positions'], model.encoder.word_embeddings)
  return log_probability(logits.astype(jnp.float32), batch['labels'])


MASKED = Output(masked_log_probability, (('masked_tokens', MaskedTokens),))


@functools.cache
def in_one_direction(term: Term) -> Output:
  """The sum over all tokens that `term` predicts from those on one side, row by row: [T V] scores at a time."""

  def of(model, batch):  # {[B T]} -> [B]
    def one(row):
      hidden, batch = jax.tree.map(lambda x: x[None], row)
      labels, weights = (jnp.asarray(x).reshape(-1) for x in term.targets(batch))
      return (log_probability(term.logits(model, hidden, batch, None).astype(jnp.float32), labels) * weights).sum()

    return jax.lax.map(one, (model.encoder(batch), dict(batch)))

  return Output(of, (('masked_tokens', MaskedTokens),))

# ---------------------------------------------------------------- sentences


def score(encoder: Placed, sentences: Iterable[str], unit: str = 'token', *, batch_size: int = BATCH_ROWS,
          progress: bool = False) -> Iterator[Score]:
  """The (pseudo-)log-likelihood of each sentence in nats, in their order; they may be endless.

  `unit`: a key of UNITS, what is masked together. Tokens of a masked model are all but [CLS] and [SEP]; a model that
  reads in one direction predicts the end as well. Raises ConfigError where the checkpoint was not trained to predict
  tokens, or a sentence is too long.
  """
  check(encoder, unit)
  with in_batches(batch_size, progress, 'sentence') as pace:
    yield from _scores(encoder, sentences, unit, pace)


def check(encoder: Placed, unit: str) -> None:
  """Raises ConfigError where the checkpoint cannot score sentences so."""
  require(unit in UNITS, f'unit is {unit!r}: wanted one of {", ".join(UNITS)}')
  if not encoder.settings.causal:
    fill_mask.check(encoder.loaded)
    return
  require(unit == 'token', f'unit is {unit!r}, and this model reads in one direction (model.causal): it masks nothing, '
          "so wanted 'token'")
  require(encoder.loaded.objective.token_term() is not None and encoder.has('masked_tokens'),
          'this model reads in one direction (model.causal) and was not trained to predict tokens, so it has no '
          'likelihood: name a run of objective left_to_right or right_to_left')


def _scores(encoder: Placed, sentences: Iterable[str], unit: str, pace: Pace) -> Iterator[Score]:
  of_rows = _directed if encoder.settings.causal else _masked
  for window in windows(encoder.rows(sentences), lambda row: len(row[0])):
    yield from of_rows(encoder, window, unit, pace)


def _directed(encoder: Placed, rows: Sequence[Row], unit: str, pace: Pace) -> list[Score]:
  term = encoder.loaded.objective.token_term()
  assert term is not None  # `check`
  sums = encoder.in_order(in_one_direction(term), rows, pace)
  return [Score(float(value), len(ids) - 1) for (ids, _), value in zip(rows, sums)]


def _masked(encoder: Placed, rows: Sequence[Row], unit: str, pace: Pace) -> list[Score]:
  """Each copy of a sentence with one prediction is a row; copies of all sentences run together, by length."""
  tokenizer = encoder.tokenizer
  spans = [UNITS[unit](tokenizer.is_continuation[ids[1:-1]]) for ids, _ in rows]
  counts = np.array([len(of_row) for of_row in spans])
  sentence = np.repeat(np.arange(len(rows)), counts)  # of each copy
  span = np.array([pair for of_row in spans for pair in of_row], np.int32).reshape(-1, 2) + 1  # after [CLS]
  lengths = np.array([len(ids) for ids, _ in rows])[sentence]

  def make(copies, B, T):
    batch = encoder.pad([rows[sentence[i]] for i in copies], B, T)
    of_copies, (begin, end) = np.arange(len(copies)), span[copies].T
    batch['labels'], batch['positions'] = np.zeros(B, np.int32), np.zeros((B, 1), np.int32)
    batch['positions'][of_copies, 0], batch['labels'][of_copies] = begin, batch['input_ids'][of_copies, begin]
    places = np.arange(T)[None]
    batch['input_ids'][:len(copies)][(begin[:, None] <= places) & (places < end[:, None])] = tokenizer.mask_id
    return batch

  sums, left = np.zeros(len(rows)), counts.copy()
  pace.done(int((left == 0).sum()))
  for copies, values in encoder.run(MASKED, lengths, make, pace):
    of = sentence[copies]
    np.add.at(sums, of, values.astype(np.float64))
    before = (left == 0).sum()
    np.subtract.at(left, of, 1)
    pace.done(int((left == 0).sum() - before))
  return [Score(float(value), int(count)) for value, count in zip(sums, counts)]

# ---------------------------------------------------------------- pairs


def compare(encoder: Placed, pairs: Iterable[Pair], unit: str = 'token', *, batch_size: int = BATCH_ROWS,
            progress: bool = False) -> dict:
  """How often the model finds the good sentence of a pair likelier.

  {'pairs': count, 'accuracy', 'by': {phenomenon: accuracy}}. Equal scores count half, so who finds both of each pair
  as likely has 0.5. Scores are sums over tokens, as in the literature (arXiv:1910.14659, arXiv:1912.00582): who finds
  every token as likely prefers the sentence of fewer tokens, and has 0.5 only where a pair's are equally many. Raises
  ConfigError, also where there is no pair.
  """
  check(encoder, unit)
  hits: dict[str, float] = collections.defaultdict(float)
  counts: dict[str, int] = collections.defaultdict(int)
  with in_batches(batch_size, progress, 'sentence') as pace:
    for window in windows(pairs, lambda pair: 1, PAIRS_TOGETHER):
      distinct = dict.fromkeys(sentence for pair in window for sentence in (pair.good, pair.bad))
      found = dict(zip(distinct, _scores(encoder, distinct, unit, pace)))
      for pair in window:
        hits[pair.phenomenon] += preference(found[pair.good].score, found[pair.bad].score)
        counts[pair.phenomenon] += 1
  count = sum(counts.values())
  require(count > 0, 'there is no pair to compare: wanted lines such as '
          '{"sentence_good": "Cats sleep.", "sentence_bad": "Cats sleeps."}')
  return {'pairs': count, 'accuracy': sum(hits.values()) / count,
          'by': {name: hits[name] / counts[name] for name in sorted(counts)}}


def preference(good: float, bad: float) -> float:
  """1: for the good one; 0.5: neither."""
  return 0.5 if abs(good - bad) <= TIE else float(good > bad)
