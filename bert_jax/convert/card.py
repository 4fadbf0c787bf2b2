"""The README.md of an export: what was trained, on what, how well, and how to load it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence

from bert_jax.convert.foreign import shown
from bert_jax.model.settings import Model
from bert_jax.objectives import Objective

# What a head is called in a sentence; one that is not here goes by its name.
HEADS = {'pooler': 'pooler', 'masked_tokens': 'masked language model head', 'pair_classes': 'next-sentence head',
         'classifier': 'classifier', 'ends': 'head of starts and ends', 'choice': 'head of choices',
         'tags': 'classifier of words'}
# The hub's names for what the classes of tasks do.
PURPOSES = {'BertForSequenceClassification': 'text-classification', 'BertForQuestionAnswering': 'question-answering',
            'BertForMultipleChoice': 'multiple-choice', 'BertForTokenClassification': 'token-classification'}
DONE = {'finetuned': 'fine-tuned'}  # what a kind of run is in a sentence
KINDS = {'wordpiece': 'WordPiece', 'sentencepiece': 'SentencePiece'}
MARKS = '\\`*[]<>&|$#'  # what means something in Markdown, in the middle of a line or at its beginning
CITATION = """@inproceedings{devlin-etal-2019-bert,
  title = {{BERT}: Pre-training of Deep Bidirectional Transformers for Language Understanding},
  author = {Devlin, Jacob and Chang, Ming-Wei and Lee, Kenton and Toutanova, Kristina},
  booktitle = {Proceedings of NAACL-HLT 2019},
  pages = {4171--4186},
  year = {2019},
  url = {https://arxiv.org/abs/1810.04805}
}"""


@dataclasses.dataclass(frozen=True)
class ModelCard:
  """What a model card says beyond the model's shape; what is empty is left out."""
  steps: int = 0
  """Updates that the parameters have had; 0: nothing is known of them."""
  kind: str = 'pretrained'
  """The kind of run: a key of run_directory.KINDS."""
  data: str = ''
  """One sentence on what it learnt from: source, documents, tokens."""
  origin: str = ''
  """One sentence on the parameters that it began with."""
  objective: str = ''
  """What was learnt: a key of objectives.OBJECTIVES; '': a task's, or not known."""
  trained: tuple[str, ...] = ()
  """The heads that these steps trained."""
  copies: float | None = None
  """The share of what `evaluation` is on that stands in what it learnt from, too; None: they were not compared."""
  longest: int = 0
  """Tokens of the longest rows that it was trained on; 0: not known."""
  labels: tuple[str, ...] = ()
  """The classes of a task, in the order of their scores."""
  architecture: str = 'BertForPreTraining'
  """The class of transformers that reads the export; the export itself sets it."""
  sentences: bool = False
  """Whether sentence-transformers reads it; the export itself sets it."""
  training: Mapping[str, object] = dataclasses.field(default_factory=dict)
  """Figures of the last steps: loss, tokens per second …"""
  evaluation: Mapping[str, object] = dataclasses.field(default_factory=dict)
  """Figures on held-out documents, as `bert-jax evaluate --json` gives them."""
  settings: Mapping[str, object] = dataclasses.field(default_factory=dict)
  """Every setting by the name of its flag, as fields.flat gives them."""


def to_json(card: ModelCard) -> bytes:
  """What an export keeps for those that are made of it."""
  return (json.dumps(dataclasses.asdict(card), indent=2, default=str) + '\n').encode()


def from_json(fields: Mapping) -> ModelCard:
  """Raises TypeError where it is none."""
  known = {name: value for name, value in fields.items() if name in ModelCard.__dataclass_fields__}
  settings = {name: tuples(value) for name, value in known.get('settings', {}).items()}
  texts = {name: tuple(known.get(name, ())) for name in ('labels', 'trained')}
  return ModelCard(**(known | texts | {'settings': settings}))


def tuples(value):
  """A value of JSON as settings have it."""
  return tuple(map(tuples, value)) if isinstance(value, list) else value


def table(heading: tuple[str, str], rows: Mapping[str, object]) -> str:
  show = lambda value: f'{value:.4g}' if isinstance(value, float) else str(value)
  lines = ['| ' + ' | '.join(heading) + ' |', '|---|---|']
  return '\n'.join(lines + [f'| {plain(str(name))} | {plain(show(value))} |' for name, value in rows.items()])


def plain(text: str) -> str:
  """Text that stands in Markdown as it is written, on one line."""
  return ''.join(f'\\{c}' if c in MARKS else c if c.isprintable() else ' ' for c in text)


def code(text: str) -> str:
  """The same as code, for names and paths."""
  return f'`{"".join(c if c.isprintable() and c != "`" else " " for c in text)}`'


def listed(words: Sequence[str], last: str = 'and') -> str:
  """'a', 'a and b', 'a, b and c'."""
  return f' {last} '.join(filter(None, (', '.join(words[:-1]), *words[-1:])))


def heads_named(heads: Sequence[str], objective: Objective | None = None) -> str:
  names = HEADS | ({'pair_classes': 'sentence-order head'} if objective and 'sop' in objective.terms else {})
  return listed([names.get(head, head) for head in heads])


def readme(card: ModelCard, model: Model, objective: Objective, name: str, kind: str, lower_case: bool,
           parameters: int) -> str:
  """The card as Markdown with the YAML header of the Hugging Face hub. `kind` is the vocabulary's."""
  exact = {'gelu': 'exact', 'gelu_tanh': 'tanh approximation'}[model.activation]
  task = purpose(card, model, objective)
  what = ('A causal BERT encoder, which sees no later token,' if model.causal else 'A BERT encoder')
  heads = f' with its {heads_named(tuple(objective.heads), objective)}' if objective.heads else ''
  done = f', {DONE.get(card.kind, card.kind)} with bert_jax' if card.steps else ''
  parts = [
      f'---\nlibrary_name: {"sentence-" * card.sentences}transformers\npipeline_tag: {task}\ntags:\n- bert\n- {task}\n'
      '- jax\n'
      '# Left to you, who know the text that it learnt from:\n# language: en\n# license: apache-2.0\n---',
      f'# {plain(name)}',
      f'{what} ([arXiv:1810.04805](https://arxiv.org/abs/1810.04805)){heads}{done}. '
      f'{model.layers} layers of {model.hidden_size}, {model.heads} heads, feed-forward {model.intermediate_size}, '
      f'{lengths(card, model)}, {parameters:,} parameters, GELU ({exact}). '
      f'{"Uncased" if lower_case else "Cased"} {KINDS[kind]} vocabulary of {model.vocab_size:,}.',
      '## Training\n\n' + ' '.join(training(card, objective))]
  if card.training:
    parts.append(table(('figure', 'last steps'), card.training))
  if card.evaluation:
    nats = '; losses are in nats per prediction' if card.kind == 'pretrained' else ''
    parts.append(f'## Evaluation\n\nOn {evaluated_on(card.kind, card.copies)}{nats}.\n\n'
                 + table(('figure', 'value'), card.evaluation))
  parts.append('## Use\n\n' + use(card, model, objective, task))
  if card.settings:
    parts.append('## Settings\n\n' + table(('setting', 'value'), card.settings))
  parts.append(f'## Citation\n\n```bibtex\n{CITATION}\n```')
  return '\n\n'.join(parts) + '\n'


def lengths(card: ModelCard, model: Model) -> str:
  """How many tokens it takes, and how many it has seen together."""
  taken = f'up to {model.max_positions} tokens'
  known = 0 < card.longest < model.max_positions
  return f'{taken} (trained on rows of up to {card.longest}: better for no longer texts)' if known else taken


def usual_length(card: ModelCard, model: Model) -> int:
  """What texts are cut to where nobody says otherwise: what it was trained on."""
  return min(card.longest or model.max_positions, model.max_positions)


def evaluated_on(kind: str, copies: float | None) -> str:
  """What figures are of, for a sentence: held out is what was compared, and is not there."""
  what = 'documents' if kind == 'pretrained' else 'examples'
  if copies is None:
    return f'{what} that were not compared with those that it learnt from'
  if not copies:
    return f'{what} held out from training'
  share = f'{copies:.1%}' if copies >= 5e-4 else 'less than 0.1%'
  return f'{what}{", of whose pieces" if kind == "pretrained" else " of which"} {share} stand in training, too'


def idle_heads(card: ModelCard, objective: Objective) -> tuple[str, ...]:
  """The heads that the run did not train."""
  return tuple(head for head in objective.heads if head not in card.trained) if card.steps else ()


def purpose(card: ModelCard, model: Model, objective: Objective) -> str:
  """The hub's name for what the model does."""
  if card.sentences:
    return 'sentence-similarity'
  if card.architecture in PURPOSES:
    return PURPOSES[card.architecture]
  if 'masked_tokens' in objective.heads and 'masked_tokens' not in idle_heads(card, objective) and not model.causal:
    return 'fill-mask'
  return 'text-generation' if model.causal else 'feature-extraction'


def training(card: ModelCard, objective: Objective) -> list[str]:
  """Sentences on how the parameters came about."""
  unknown = 'Converted from a checkpoint of another format, which says nothing of its training.'
  said = [f'{card.steps:,} steps.' if card.steps else unknown, card.origin, card.data]
  if card.labels:
    said.append(f'Classes, in the order of their scores: {", ".join(map(shown, card.labels))}.')
  idle = idle_heads(card, objective)
  learnt = [head for head in objective.heads if head not in idle]
  if card.steps and learnt:
    said.append(f'Trained in all of these steps: the {heads_named(learnt, objective)}.')
  if idle:
    said.append(f'This run did not train the {heads_named(idle)}.')
  return [sentence for sentence in said if sentence]


def use(card: ModelCard, model: Model, objective: Objective, task: str) -> str:
  """How to load it, and what its scores mean."""
  example = {'fill-mask': "'The capital of France is [MASK].'", 'text-classification': "'A text.'",
             'token-classification': "'She moved to Paris.'"}.get(task)
  code = """```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer('.').encode(['A text.', 'Another one.'])  # '.': where this file lies
""" if card.sentences else f"""```python
from transformers import AutoTokenizer, {card.architecture}{', pipeline' if example else ''}

directory = '.'  # where this file lies
tokenizer = AutoTokenizer.from_pretrained(directory)
model = {card.architecture}.from_pretrained(directory)
{f"pipeline('{task}', model=directory)({example})" if example else ''}"""
  idle = set(idle_heads(card, objective))
  lines = [code.rstrip() + '\n```']
  lines += [f'Of the {len(term.classes)} scores of its {heads_named(term.heads[-1:], objective)}, '
            + listed([f'{i} stands for "{meaning}"' for i, meaning in enumerate(term.classes)]) + '.'
            for term in objective.terms.values()
            if term.classes and term.heads and set(term.heads) <= set(objective.heads) - idle]
  commands = ['`bert_jax.load(directory).encode(texts)` in Python']
  commands += ['`bert-jax fill-mask DIRECTORY TEXT`'] if task == 'fill-mask' else []
  commands += ['`bert-jax finetune TASK --checkpoint DIRECTORY --data DATA --run-dir RUN`'] if not model.causal else []
  lines.append(f'With bert_jax: {listed(commands)}.')
  return '\n\n'.join(lines)
