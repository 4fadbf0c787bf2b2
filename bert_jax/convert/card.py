"""The README.md of an export: what was trained, on what, how well, and how to load it."""

import dataclasses
from collections.abc import Mapping

from bert_jax import config as cfg

KINDS = {'wordpiece': 'WordPiece', 'sentencepiece': 'SentencePiece'}
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
  recipe: str = ''
  """Name of the recipe, such as base."""
  steps: int = 0
  """Updates that the parameters have had."""
  data: str = ''
  """One sentence on the text: source, documents, tokens."""
  training: Mapping[str, object] = dataclasses.field(default_factory=dict)
  """Figures of the last steps: loss, tokens per second …"""
  evaluation: Mapping[str, object] = dataclasses.field(default_factory=dict)
  """Figures on held-out documents, as `bert-jax evaluate --json` gives them."""
  settings: Mapping[str, object] = dataclasses.field(default_factory=dict)
  """Every setting by the name of its flag, as config.flat gives them."""


def table(heading: tuple[str, str], rows: Mapping[str, object]) -> str:
  show = lambda value: f'{value:.4g}' if isinstance(value, float) else str(value)
  escape = lambda text: text.replace('|', '\\|').replace('\n', ' ')
  lines = ['| ' + ' | '.join(heading) + ' |', '|---|---|']
  return '\n'.join(lines + [f'| {escape(str(name))} | {escape(show(value))} |' for name, value in rows.items()])


def readme(card: ModelCard, model: cfg.Model, name: str, kind: str, lower_case: bool, parameters: int) -> str:
  """The card as Markdown with the YAML header of the Hugging Face hub. `kind` is the vocabulary's."""
  exact = {'gelu': 'exact', 'gelu_tanh': 'tanh approximation'}[model.activation]
  trained = f'Recipe `{card.recipe}`, ' if card.recipe else ''
  task = 'text-generation' if model.causal else 'fill-mask'
  what = ('A causal BERT encoder, which sees no later token,' if model.causal else 'A BERT encoder')
  parts = [
      f'---\nlibrary_name: transformers\npipeline_tag: {task}\ntags:\n- bert\n- {task}\n- jax\n'
      '# Left to you, who know the text that it learnt from:\n# language: en\n# license: apache-2.0\n---',
      f'# {name}',
      f'{what} ([arXiv:1810.04805](https://arxiv.org/abs/1810.04805)) with its masked language model and next-sentence heads, '
      f'trained with bert_jax. {model.layers} layers of {model.hidden_size}, {model.heads} heads, feed-forward {model.intermediate_size}, '
      f'up to {model.max_positions} tokens, {parameters:,} parameters, GELU ({exact}). '
      f'{"Uncased" if lower_case else "Cased"} {KINDS[kind]} vocabulary of {model.vocab_size:,}.',
      f'## Training\n\n{trained}{card.steps:,} steps. {card.data}'.rstrip()]
  if card.training:
    parts.append(table(('figure', 'last steps'), card.training))
  if card.evaluation:
    parts.append('## Evaluation\n\nOn documents held out from training; losses are in nats per prediction.\n\n'
                 + table(('figure', 'value'), card.evaluation))
  fill = "pipeline('fill-mask', model=directory)('The capital of France is [MASK].')\n"
  heads = """Of the next-sentence head's two scores, 0 stands for "is next" and 1 for "is random".
`bert-jax fill-mask` and `bert-jax finetune` read this directory too."""
  parts.append(f"""## Use

```python
from transformers import AutoModelForPreTraining, AutoTokenizer, pipeline

directory = '.'  # where this file lies
tokenizer = AutoTokenizer.from_pretrained(directory)
model = AutoModelForPreTraining.from_pretrained(directory)
{'' if model.causal else fill}```""")
  if not model.causal:
    parts.append(heads)
  if card.settings:
    parts.append('## Settings\n\n' + table(('setting', 'value'), card.settings))
  parts.append(f'## Citation\n\n```bibtex\n{CITATION}\n```')
  return '\n\n'.join(parts) + '\n'
