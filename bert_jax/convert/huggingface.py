"""Hugging Face directories of BERT: written with the heads that a run has, read with whatever heads they have.

Their kernels are [out in], ours [in out]; each of their layers has its own tensors, ours are stacks [L ...] (names.py).
"""

import dataclasses
import functools
import json
import warnings
from collections.abc import Mapping

import numpy as np
import safetensors.numpy

from bert_jax.checkpoint import Loaded
from bert_jax.convert import assemble, bert_config, card as card_lib, directory as directory_lib, names, tokenizer_files
from bert_jax.convert.card import ModelCard
from bert_jax.convert.foreign import is_name, read_json, shown
from bert_jax.convert.weights import WEIGHTS, read_tensors
from bert_jax.errors import ConfigError, require
from bert_jax.model.build import Heads, encoder_class
from bert_jax.model.heads import Classes, Ends, OneScore, Pooler, TokenClasses
from bert_jax.model.settings import Model
from bert_jax.objectives import OBJECTIVES, PRETRAINING_HEADS, Objective
from input_pipeline import storage
from input_pipeline.errors import DataError

KIND = 'huggingface'
FORMAT = names.Format(KIND, '.', {'kernel': 'weight', 'scale': 'weight', 'embedding': 'weight', 'bias': 'bias'},
                      ('kernel',))
CONFIG, README, MODULES = 'config.json', 'README.md', 'modules.json'
TOLD = 'bert_jax_training.json'  # what the card says of the training, for exports of this export
BUFFERS = '.position_ids', '.token_type_ids'  # of old versions: 0, 1, 2 …
BARE = 'BertModel'  # the class whose names have no 'bert.' in front

# One tensor under two names: the first is a copy, which some checkpoints store beside the second, or in its place.
TIED = {'cls.predictions.decoder.weight': 'bert.embeddings.word_embeddings.weight',
        'cls.predictions.decoder.bias': 'cls.predictions.bias'}

# The heads that an export of a class has: those that it must have, and those that it takes where they are there.
ARCHITECTURES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'BertForPreTraining': (tuple(PRETRAINING_HEADS), ()), 'BertForMaskedLM': (('masked_tokens',), ()),
    BARE: ((), ('pooler',))}

# The class that has the head of a task.
OF_TASKS = {'classifier': 'BertForSequenceClassification', 'ends': 'BertForQuestionAnswering',
            'choice': 'BertForMultipleChoice', 'tags': 'BertForTokenClassification'}

SENTENCES = 'sentence-transformers'
LAYOUTS = 'transformers', SENTENCES  # what lies beside an encoder


def export_checkpoint(directory: storage.PathLike, loaded: Loaded, card: ModelCard | None = None,
                      overwrite: bool = False, layout: str = LAYOUTS[0],
                      verify: directory_lib.Verify | None = None) -> storage.Path:
  """Writes a directory for transformers' AutoModel and AutoTokenizer, whole or not at all. Returns its path.

  `layout`: one of LAYOUTS. Raises ConfigError where `directory` exists (see directory.write) or the vocabulary is not
  the model's, DataError where the vocabulary cannot be used; and as `verify` does.
  """
  directory_lib.check(directory, KIND, overwrite)
  check_vocabulary(loaded)
  vocabulary, model = loaded.tokenizer(), loaded.model
  tensors = to_tensors(model, loaded.objective.heads, loaded.params)
  assemble.check_finite(tensors, 'the checkpoint')
  kind = architecture(loaded.objective)
  if kind == BARE:
    tensors = {name.removeprefix(f'{prefix(model)}.'): value for name, value in tensors.items()}
  path = storage.path(directory)
  title = path.parent.name if path.name == 'export' else path.name  # runs/sample/export is the export of `sample`
  card = dataclasses.replace(card or ModelCard(), architecture=kind, sentences=layout == SENTENCES,
                             labels=loaded.labels)
  text = card_lib.readme(card, model, loaded.objective, title or 'BERT', vocabulary.kind, vocabulary.lower_case,
                         sum(x.size for x in tensors.values()))
  files = {CONFIG: encode(to_config(model, vocabulary.pad_id, loaded.objective, loaded.labels)),
           WEIGHTS: safetensors.numpy.save(tensors, {'format': 'pt'}), README: text.encode(),
           **told_files(card),
           **tokenizer_files.files(vocabulary, card_lib.usual_length(card, model))}
  if layout == SENTENCES:
    files |= sentence_files(model, card_lib.usual_length(card, model))
  return directory_lib.write(directory, KIND, files, overwrite, verify)


def told_files(card: ModelCard | None) -> dict[str, bytes]:
  """What an export says of the training to those that read it, where anything is known."""
  return {TOLD: card_lib.to_json(card)} if card and card.steps else {}


def encode(value) -> bytes:
  return (json.dumps(value, indent=2, sort_keys=True) + '\n').encode()


def check_vocabulary(loaded: Loaded) -> None:
  """Raises ConfigError where the vocabulary is not the model's."""
  size = len(loaded.tokenizer().tokens)
  require(size == loaded.model.vocab_size,
          f'the vocabulary has {size} tokens and model.vocab_size is {loaded.model.vocab_size}: name the '
          'vocabulary that the model was trained with')


def shaped(loaded: Loaded, architecture: str | None, layout: str) -> Loaded:
  """The checkpoint with the heads of a class, None: with its own. Raises ConfigError where one lacks."""
  if layout == SENTENCES:
    require(architecture in (None, BARE), f'--architecture {architecture}: {SENTENCES} wants {BARE}')
    architecture = BARE
  if architecture is None:
    return loaded
  needed, taken = ARCHITECTURES[architecture]
  have = loaded.objective.heads
  lacking = [head for head in needed if head not in have]
  require(not lacking, f'the checkpoint has no {card_lib.heads_named(lacking)}, which {architecture} has: choose '
          'another --architecture, or leave it out')
  heads = {name: head for name, head in have.items() if name in needed + taken}
  objective = dataclasses.replace(loaded.objective, heads=heads, huggingface=architecture)
  return dataclasses.replace(loaded, objective=objective,
                             params={name: loaded.params[name] for name in ('encoder', *heads)})


def architecture(objective: Objective) -> str:
  """The class of transformers that has the objective's heads. Raises ConfigError where none is known."""
  heads = set(objective.heads)
  if objective.huggingface:
    return objective.huggingface
  others = sorted(heads - {*PRETRAINING_HEADS, *OF_TASKS})
  require(not others, f'no class of transformers is known that has the head {names.some(others)}: name it in '
          'Objective.huggingface')
  for head, kind in OF_TASKS.items():
    if head in heads:
      return kind
  if 'masked_tokens' in heads:
    return 'BertForPreTraining' if 'pair_classes' in heads else 'BertForMaskedLM'
  return 'BertForNextSentencePrediction' if 'pair_classes' in heads else BARE


def model_type(model: Model) -> str:
  """What transformers calls the model's architecture. Raises ConfigError where it has no name there."""
  kind = encoder_class(model)
  name = getattr(kind, 'TYPES', {}).get(KIND)
  if name is None:
    raise ConfigError(f'{kind.__name__} has no name in the format {KIND}: add one to {kind.__name__}.TYPES')
  return name


def to_config(model: Model, pad_id: int, objective: Objective, labels: tuple[str, ...] = ()) -> dict:
  """The fields of transformers' BertConfig, none that its version 5 no longer knows.

  Raises ConfigError where it has none for a setting.
  """
  require(not model.right_to_left, 'transformers has no BERT that reads from right to left (model.right_to_left): it '
          'would compute something else; use `bert-jax features` and `score` on the run itself')
  activation = next(theirs for theirs, ours in bert_config.ACTIVATIONS.items() if ours == model.activation)
  fields = bert_config.fields_of(model) | {
      'model_type': model_type(model), 'architectures': [architecture(objective)], 'hidden_act': activation,
      'pad_token_id': pad_id, 'tie_word_embeddings': True}
  kind = architecture(objective)
  if kind not in (OF_TASKS['classifier'], OF_TASKS['tags']):
    return fields
  shown = labels or ('LABEL_0',)  # one number
  fields |= {'id2label': {str(i): label for i, label in enumerate(shown)},
             'label2id': {label: i for i, label in enumerate(shown)}}
  if kind == OF_TASKS['classifier']:
    fields['problem_type'] = 'single_label_classification' if labels else 'regression'
  return fields


def sentence_files(model: Model, length: int) -> dict[str, bytes]:
  """What sentence-transformers reads beside the encoder: the mean of a text's tokens is its vector."""
  modules = [{'idx': i, 'name': str(i), 'path': path, 'type': f'sentence_transformers.models.{kind}'}
             for i, (path, kind) in enumerate([('', 'Transformer'), ('1_Pooling', 'Pooling')])]
  pooling = {'word_embedding_dimension': model.hidden_size, 'pooling_mode_mean_tokens': True,
             'pooling_mode_cls_token': False, 'pooling_mode_max_tokens': False,
             'pooling_mode_mean_sqrt_len_tokens': False}
  return {MODULES: encode(modules), '1_Pooling/config.json': encode(pooling),
          'sentence_bert_config.json': encode({'max_seq_length': length, 'do_lower_case': False})}


def to_tensors(model: Model, heads: Heads, params) -> dict[str, np.ndarray]:
  """{their name: float32 array} of the parameters of a model with these heads."""
  return names.to_tensors(params, names.entries(model, heads, FORMAT))

# ---------------------------------------------------------------- the way back


def is_export(path: storage.PathLike) -> bool:
  """Whether `path` is a Hugging Face directory, ours or another's."""
  try:
    fields = read_json(root_of(storage.path(path)) / CONFIG)
  except DataError:
    return False
  return isinstance(fields, dict) and ('model_type' in fields or 'num_hidden_layers' in fields)


def read(directory: storage.PathLike, heads: Heads | None = None) -> Loaded:
  """The checkpoint of a Hugging Face BERT: BertForPreTraining, BertForMaskedLM, BertModel, or with a task's head.

  `heads` as assemble.loaded has them. Raises DataError.
  """
  top = storage.path(directory)
  directory_lib.verify(top, sorted(set(directory_lib.read_marker(top).get('files', ())) - {README}))
  directory = root_of(top)
  if (top / MODULES).exists() and (others := sorted(set(modules_of(top)[1]) - {'Transformer', 'Pooling'})):
    warnings.warn(f'{top / MODULES} names {names.some(others)} after the encoder: left out', stacklevel=2)
  config = bert_config.read(directory / CONFIG)
  model = bert_config.to_model(config, directory / CONFIG, bert_config.types_of(KIND), bert_config.ACTIVATIONS)
  tensors = canonical(read_tensors(directory), model, directory)
  check_tied(tensors, directory)
  task, labels = task_of(config, tensors, directory)
  found = assemble.loaded(assemble.Foreign(
      directory, CONFIG, model, tensors, lambda heads: names.entries(model, heads, FORMAT, named=False), '.',
      lambda: tokenizer_files.load(directory), task, labels, BUFFERS), heads)
  return with_told(found, told_of(top), heads)


def with_told(found: Loaded, told: ModelCard | None, heads: Heads | None) -> Loaded:
  """A checkpoint with what our export says of its training, and so of what its heads learnt."""
  if told is None or heads is not None or told.objective not in OBJECTIVES:
    return dataclasses.replace(found, told=told)
  objective = dataclasses.replace(OBJECTIVES[told.objective], heads=found.objective.heads, huggingface=(
      OBJECTIVES[told.objective].huggingface if found.objective.heads == PRETRAINING_HEADS else ''))
  return dataclasses.replace(found, objective=objective, told=told)


def told_of(directory: storage.Path) -> ModelCard | None:
  """What our export says of the training; None where it is another's, or says nothing. Raises DataError."""
  if TOLD not in directory_lib.read_marker(directory).get('files', ()):
    return None
  try:
    return card_lib.from_json(read_json(directory / TOLD))
  except (TypeError, AttributeError) as error:
    raise DataError(f'{directory / TOLD} is damaged ({shown(error)}): export again') from error


def root_of(directory: storage.Path) -> storage.Path:
  """Where the encoder lies: in `directory`, or where modules.json of sentence-transformers says. Raises DataError."""
  if not (directory / MODULES).exists():
    return directory
  return directory / folder if (folder := modules_of(directory)[0]) else directory


def modules_of(directory: storage.Path) -> tuple[str, list[str]]:
  """(folder of the encoder in `directory`, kinds of all modules), by modules.json. Raises DataError."""
  modules = read_json(directory / MODULES)
  text = lambda module, name: isinstance(module, dict) and isinstance(module.get(name), str)
  if not isinstance(modules, list) or not modules or not all(text(x, 'path') and text(x, 'type') for x in modules):
    raise DataError(f'{directory / MODULES} cannot be used: wanted a list of modules with path and type')
  folder, kinds = modules[0]['path'], [module['type'].rpartition('.')[2] for module in modules]
  if kinds[0] != 'Transformer' or not is_name(folder):
    raise DataError(f'{directory / MODULES} begins with a {shown(kinds[0])} in {shown(folder)}: wanted a '
                    'Transformer, in a folder of its directory')
  return folder, kinds


def prefix(model: Model) -> str:
  """What the names of the encoder's tensors begin with where there are heads: 'bert'."""
  return next(iter(encoder_class(model).NAMES[KIND].values())).split('.')[0]


def canonical(tensors: Mapping[str, np.ndarray], model: Model, directory: storage.Path) -> dict[str, np.ndarray]:
  """Tensors by the names that a class with heads has today: with 'bert.' before, and LayerNorm's weight and bias."""
  before = f'{prefix(model)}.'
  rooms = {theirs.split('.')[1] for theirs in encoder_class(model).NAMES[KIND].values()} | {'pooler'}
  bare = not any(name.startswith(before) for name in tensors)
  renamed = {}
  for name, value in tensors.items():
    theirs = f'{before}{name}' if bare and name.split('.')[0] in rooms else name
    renamed[theirs.replace('LayerNorm.gamma', 'LayerNorm.weight').replace('LayerNorm.beta', 'LayerNorm.bias')] = value
  if len(renamed) < len(tensors):
    raise DataError(f'{directory} has one LayerNorm twice, as gamma and beta and as weight and bias: wanted it once')
  return renamed


def task_of(config: bert_config.BertConfig, tensors: Mapping[str, np.ndarray],
            directory: storage.Path) -> tuple[Heads, tuple[str, ...]]:
  """The head of a task and what it reads, and its labels; of other classes the same name is another's."""
  if 'qa_outputs.weight' in tensors:
    return {'ends': Ends}, ()
  weight, kinds = tensors.get('classifier.weight'), config.architectures or ()
  if weight is not None and OF_TASKS['choice'] in kinds:
    return {'pooler': Pooler, 'choice': OneScore}, ()
  if weight is None or weight.ndim != 2 or not {OF_TASKS['classifier'], OF_TASKS['tags']} & set(kinds):
    return {}, ()
  count = weight.shape[0]
  heads: Heads = {'pooler': Pooler, 'classifier': functools.partial(Classes, count=count)}
  if OF_TASKS['tags'] in kinds:
    heads = {'tags': functools.partial(TokenClasses, count=count)}
  return heads, bert_config.labels_of(config, count, directory / CONFIG)


def check_tied(tensors: dict[str, np.ndarray], directory: storage.PathLike) -> None:
  """Drops the copies that some checkpoints store of tied tensors. Raises DataError where they are not copies."""
  for copy, original in TIED.items():
    if copy in tensors and not np.array_equal(tensors[copy], tensors.setdefault(original, tensors[copy])):
      raise DataError(f'{directory}: {copy} differs from {original}; wanted a model whose decoder is its word '
                      'embeddings')
    tensors.pop(copy, None)
