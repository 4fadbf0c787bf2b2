"""A checkpoint from the named arrays of another format: which heads are there, what lacks, what is strange."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bert_jax.checkpoint import Loaded
from bert_jax.convert import names
from bert_jax.convert.names import Entry, some
from bert_jax.model.build import Heads
from bert_jax.model.settings import Model
from bert_jax.objectives import OBJECTIVES, PRETRAINING_HEADS, Objective
from input_pipeline.errors import DataError

# Arrays with a row for each token, and what a padded vocabulary's size is a multiple of, and has more at the most.
OF_VOCABULARY = 'encoder/word_embeddings/embedding', 'masked_tokens/bias'
MULTIPLE, MOST_PADDING = 8, 1024


@dataclasses.dataclass(frozen=True)
class Foreign:
  """What was found in another format, before it is anything of ours."""
  source: Any  # for messages
  settings: str  # the name of the file of settings, for messages
  model: Model
  tensors: Mapping[str, np.ndarray]
  entries: Callable[[Heads], list[Entry]]  # of the encoder and these heads, in the format's names
  separator: str  # between the parts of a name
  tokenizer: Callable  # () -> Tokenizer; raises DataError
  task: Heads = dataclasses.field(default_factory=dict)  # the head of a task that it has, with what that reads
  labels: tuple[str, ...] = ()  # of that task
  ignored: tuple[str, ...] = ()  # ends of names of what is no weight: buffers, an optimizer's


def loaded(found: Foreign, heads: Heads | None) -> Loaded:
  """What of `heads` is there, None: of pretraining's and its task's. A head that lacks wholly is none of it then; where
  it was asked for, `params` has None in place of each of its arrays, and `fresh` the names. So has one of another size
  than was asked for. Other heads are left out, and a warning names them.

  Raises DataError where a part of a head, or anything of the encoder, lacks, is strange, or has another shape.
  """
  check_size(found)
  known = {**PRETRAINING_HEADS, **found.task} if heads is None else heads
  table = found.entries(known)
  absent = missing_heads(found, table)
  if heads is not None:
    absent |= other_heads(found.tensors, table)
  check_strange(found, table)
  have = {name: head for name, head in known.items() if name not in absent} if heads is None else known
  present = [entry for entry in table if entry.head not in absent]
  arrays = names.from_tensors(found.tensors, present, found.source)
  check_finite({theirs: value for entry in present for theirs, value in zip(
      entry.theirs, arrays[entry.name] if entry.stacked else [arrays[entry.name]])}, found.source)
  tokenizer = functools.cache(found.tokenizer)
  model, arrays = trimmed(found.model, arrays, tokenizer)
  return Loaded(model, objective_of(model, have) if heads is None else Objective({}, heads),
                names.tree(arrays, model, have), tokenizer, labels=found.labels,
                fresh=tuple(entry.name for entry in table if entry.head in absent and entry.head in have))


def objective_of(model: Model, heads: Heads) -> Objective:
  """What a model of others was trained for, as far as its heads tell."""
  if set(heads) == set(PRETRAINING_HEADS):
    return next(objective for objective in OBJECTIVES.values() if objective.causal == model.causal)
  return Objective({}, heads, causal=model.causal)


def check_size(found: Foreign) -> None:
  """Raises DataError before anything is made as large as settings say that it is."""
  if found.model.layers > len(found.tensors):
    raise DataError(f'{found.source}: {found.settings} has num_hidden_layers {found.model.layers}, and the weights are '
                    f'{len(found.tensors)} tensors: fetch or export it again')


def missing_heads(found: Foreign, table: list[Entry]) -> set[str]:
  """The heads of which nothing is there. Raises DataError where some of a head is, or any of the encoder lacks."""
  heads: dict[str, list[str]] = {}
  for entry in table:
    heads.setdefault(entry.head, []).extend(entry.theirs)
  absent = set()
  for head, wanted in heads.items():
    missing = [theirs for theirs in wanted if theirs not in found.tensors]
    if missing and (head == 'encoder' or len(missing) < len(wanted)):
      raise DataError(f'{found.source} lacks {some(missing)}: wanted all weights of the {head} that {found.settings} '
                      'describes')
    absent |= {head} if missing else set()
  return absent


def other_heads(tensors: Mapping[str, np.ndarray], table: list[Entry]) -> set[str]:
  """The heads that are there in another size than was asked for: a classifier of other classes is another head."""
  return {entry.head for entry in table for theirs in entry.theirs
          if entry.head != 'encoder' and theirs in tensors and tensors[theirs].shape != entry.their_shape}


def check_strange(found: Foreign, table: list[Entry]) -> None:
  """Raises DataError for a weight that stands among the encoder's and is not one of them; a warning names others."""
  known = table + found.entries({**PRETRAINING_HEADS, **found.task})
  wanted = {theirs for entry in known for theirs in entry.theirs}
  separator = found.separator
  rooms = tuple({separator.join(theirs.split(separator)[:2]) + separator for entry in table if entry.head == 'encoder'
                 for theirs in entry.theirs})
  strange = sorted(name for name in found.tensors if name not in wanted and not name.endswith(found.ignored))
  inside = [name for name in strange if name.startswith(rooms)]
  if inside:
    raise DataError(f'{found.source} holds {some(inside)}, and its {found.settings} describes a BERT without them')
  if strange:
    warnings.warn(f'{found.source} holds {some(strange)}, of no head that bert_jax has: left out', stacklevel=2)


def check_finite(tensors: Mapping[str, np.ndarray], where: Any) -> None:
  """Raises DataError where a weight is no number, or none of 32 bits."""
  strange = [name for name, value in tensors.items() if not np.isfinite(value).all()]
  if strange:
    raise DataError(f'{where}: {some(strange)} hold values that are not finite in float32: wanted another checkpoint')


def trimmed(model: Model, arrays: dict[str, np.ndarray], tokenizer: Callable) -> tuple[Model, dict[str, np.ndarray]]:
  """Both without the rows that only fill the vocabulary up to a round number, as far as there is a vocabulary."""
  if model.vocab_size % MULTIPLE:
    return model, arrays
  try:
    size = len(tokenizer().tokens)
  except (DataError, ImportError):  # told where there are texts
    return model, arrays
  if not size < model.vocab_size < size + MOST_PADDING:
    return model, arrays
  arrays = {name: value[:size] if name in OF_VOCABULARY else value for name, value in arrays.items()}
  return dataclasses.replace(model, vocab_size=size), arrays
