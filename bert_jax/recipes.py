"""Published recipes by name: each a Config, its docstring with the source, the cost and what to expect."""

import dataclasses
import difflib
from typing import Any

from bert_jax.config import BatchConfig, Config, ConfigError, Long, Masking, Model, Optimizer, Run

UNROLLED = 12  # layers at most


def model_of(layers: int, hidden_size: int, **changes) -> Model:
  """The family of arXiv:1810.04805 and arXiv:1908.08962: heads of 64, a feed-forward layer four times as wide.

  Up to base all layers are unrolled, which TPU runs a fifth faster; with more, the compiler would take too long.
  """
  shape = dict(layers=layers, hidden_size=hidden_size, heads=hidden_size // 64, intermediate_size=4 * hidden_size,
               unroll=layers if layers <= UNROLLED else 1)
  return Model(**shape | changes)


# arXiv:1810.04805 appendix A.2: Adam, 1e-4, b1 0.9, b2 0.999, L2 weight decay 0.01, warmup over 10,000 of 1,000,000
# steps, linear decay; batches of 256, 90 % of the steps at 128 tokens and the rest at 512. predictions: what 15 % of a
# row needs, 20 at 128 and 77 at 512 (max_predictions_per_seq of create_pretraining_data.py).
PAPER: dict[str, Any] = dict(
    batch=BatchConfig(size=256, sequence_length=128, predictions=20),
    long=Long(share=0.1, sequence_length=512, predictions=77),
    optimizer=Optimizer(peak_learning_rate=1e-4, warmup_steps=10_000, weight_decay=0.01),
    run=Run(steps=1_000_000))


def tiny() -> Config:
  """BERT-Tiny, 2 layers of 128 (arXiv:1908.08962 table 1; 4.4 M parameters). Released model: GLUE 64.2."""
  return Config(model=model_of(2, 128), **PAPER)


def mini() -> Config:
  """BERT-Mini, 4 layers of 256 (arXiv:1908.08962 table 1; 11.2 M parameters). Released model: GLUE 65.8."""
  return Config(model=model_of(4, 256), **PAPER)


def small() -> Config:
  """BERT-Small, 4 layers of 512 (arXiv:1908.08962 table 1; 28.8 M parameters). Released model: GLUE 71.2."""
  return Config(model=model_of(4, 512), **PAPER)


def medium() -> Config:
  """BERT-Medium, 8 layers of 512 (arXiv:1908.08962 table 1; 41.4 M parameters). Released model: GLUE 73.5."""
  return Config(model=model_of(8, 512), **PAPER)


def base() -> Config:
  """BERT-BASE, 12 layers of 768 (arXiv:1810.04805 section 3; 110 M parameters). GLUE test 79.6.

  Held-out MLM loss about 1.4. 1 M steps of 256 rows are 2.4e19 FLOP with a tenth of them at 512: 4 days on 4 Cloud TPUs
  in the paper, 7 hours of an H100 at its peak.
  """
  return Config(model=model_of(12, 768), **PAPER)


def large() -> Config:
  """BERT-LARGE, 24 layers of 1,024 (arXiv:1810.04805 section 3; 336 M parameters). GLUE test 82.1. 8.2e19 FLOP."""
  return Config(model=model_of(24, 1024), **PAPER)


# A shape that learns from few tokens on a CPU, by measurement: docs/performance.md, "What teaches a small model". The
# initializer's range is 1 / sqrt(width), where 0.02 is that of 2,500: with smaller matrices attention stays even for
# thousands of steps. No dropout, since nothing is learnt by heart in the time. Adam's bias correction, as its warmup is
# short, and a short memory, as its batches are small. Twice BERT's share of masks: twice the predictions for a fifth
# more time.
FEW_TOKENS: dict[str, Any] = dict(heads=4, initializer_range=0.08, neighbour_heads=2, hidden_dropout=0.0,
                                  attention_dropout=0.0, dtype='float32', unroll=4)
SMALL_ROWS = BatchConfig(size=16, sequence_length=32, predictions=10, masking=Masking(share=0.3))
SMALL_STEPS = Optimizer(name='adamw', peak_learning_rate=1e-3, warmup_steps=300, schedule='linear', b2=0.98,
                        epsilon=1e-8, weight_decay=0.1)


def sample() -> Config:
  """Four layers of 128 on the Wikipedia slice of `--input sample`: minutes on two CPU cores, to see the whole way work.

  The held-out MLM loss ends a nat under the unigram baseline, far from a BERT's.
  """
  return Config(model=model_of(4, 128, vocab_size=4096, **FEW_TOKENS), batch=SMALL_ROWS, optimizer=SMALL_STEPS,
                run=Run(steps=8_000, max_minutes=10.0, checkpoint_every=1_000, log_every=100))


def proof() -> Config:
  """Four layers of 128 on tens of millions of tokens: what `make proof` shows that pretraining is worth.

  1.9 M parameters. The last fifth of the steps has rows of 128, from which two segments are told apart more easily.
  """
  return Config(model=model_of(4, 128, vocab_size=4096, **FEW_TOKENS), batch=SMALL_ROWS,
                long=Long(share=0.25, sequence_length=128, predictions=38, size=4), optimizer=SMALL_STEPS,
                run=Run(steps=24_000, checkpoint_every=2_000, log_every=100, evaluate_every=4_000,
                        evaluation_rows=1_024))


RECIPES = {recipe.__name__: recipe for recipe in (sample, proof, tiny, mini, small, medium, base, large)}

# ---------------------------------------------------------------- the same with another objective


def no_nsp(config: Config) -> Config:
  """Masked tokens only, on one segment: "No NSP" (arXiv:1810.04805 section 5.1).

  Table 5, dev, BERT-BASE with and without NSP: MNLI-m 84.4, 83.9; QNLI 88.4, 84.9; MRPC 86.7, 86.5; SST-2 92.7, 92.6;
  SQuAD F1 88.5, 87.9.
  """
  return dataclasses.replace(config, objective='mlm', batch=dataclasses.replace(config.batch, pairs='none'))


def left_to_right(config: Config) -> Config:
  """Each token from those before it, as OpenAI GPT: "LTR & No NSP" (arXiv:1810.04805 section 5.1).

  Input and encoder are BERT's, less the masks and the view to the right. A step costs more, since the head runs at
  every token.

  Table 5, dev, BERT-BASE's size: MNLI-m 82.1, QNLI 84.3, MRPC 77.5, SST-2 92.1, SQuAD F1 77.8.
  """
  batch = dataclasses.replace(config.batch, pairs='none', predictions=1, masking=Masking(share=0.0))
  model, long = dataclasses.replace(config.model, causal=True), dataclasses.replace(config.long, predictions=1)
  return dataclasses.replace(config, objective='left_to_right', model=model, batch=batch, long=long)


def right_to_left(config: Config) -> Config:
  """Each token from those after it: the other half of what section 5.1 of arXiv:1810.04805 says ELMo would do.

  "Train separate LTR and RTL models and represent each token as the concatenation of the two", for which the paper has
  no figure: `bert-jax features --join LTR RTL`.
  """
  config = left_to_right(config)
  return dataclasses.replace(config, objective='right_to_left',
                             model=dataclasses.replace(config.model, right_to_left=True))


def sop(config: Config) -> Config:
  """Sentence order in place of next sentence, as ALBERT (arXiv:1909.11942 section 3.1).

  Table 5 there, ALBERT-base, mean of five tasks: SOP 80.1, NSP 79.2, neither 79.0; accuracy at its own task 86.5 %.
  """
  return dataclasses.replace(config, objective='mlm_sop', batch=dataclasses.replace(config.batch, pairs='sop'))


VARIANTS = {variant.__name__: variant for variant in (no_nsp, left_to_right, right_to_left, sop)}


def recipe(name: str) -> Config:
  """The settings of 'base', or of 'base_left_to_right': any recipe, with the name of any variant after it.

  Raises ConfigError.
  """
  size, _, variant = name.partition('_')
  if size in RECIPES and (not variant or variant in VARIANTS):
    config = RECIPES[size]()
    return VARIANTS[variant](config) if variant else config
  names = [*RECIPES, *(f'{size}_{variant}' for size in RECIPES for variant in VARIANTS)]
  close = difflib.get_close_matches(name, names, 1)
  raise ConfigError(f'there is no recipe {name!r}' + (f', did you mean {close[0]!r}?' if close else ':') + ' wanted '
                    f'one of {", ".join(RECIPES)}, with nothing after it or one of '
                    f'{", ".join("_" + variant for variant in VARIANTS)}')
