"""Published recipes by name: each makes a Config, and its docstring has the source, the cost and what to expect."""

import dataclasses
import difflib
import itertools
from collections.abc import Callable
from typing import Any

from bert_jax.config import STORED, BatchConfig, Config, ConfigError, Long, Masking, Model, Optimizer, Run

Recipe = Callable[[], Config]
Variant = Callable[[Config], Config]


def model_of(layers: int, hidden_size: int, **changes) -> Model:
  """The family of arXiv:1810.04805 and arXiv:1908.08962: heads of 64, a feed-forward layer four times as wide."""
  shape = dict(layers=layers, hidden_size=hidden_size, heads=hidden_size // 64, intermediate_size=4 * hidden_size)
  return Model(**shape | changes)


# arXiv:1810.04805 appendix A.2: Adam, 1e-4, b1 0.9, b2 0.999, L2 weight decay 0.01, warmup over 10,000 of 1,000,000
# steps, linear decay; batches of 256, 90 % of the steps at 128 tokens and the rest at 512. predictions: what 15 % of a
# row needs, 20 at 128 and 77 at 512 (max_predictions_per_seq of create_pretraining_data.py).
PAPER: dict[str, Any] = dict(
    batch=BatchConfig(size=256, sequence_length=128, predictions=20),
    long=Long(share=0.1, sequence_length=512, predictions=77),
    optimizer=Optimizer(peak_learning_rate=1e-4, warmup_steps=10_000, weight_decay=0.01),
    run=Run(steps=1_000_000))

# ---------------------------------------------------------------- sizes


def sized(about: str, layers: int, hidden_size: int, heads: int | None = None) -> Recipe:
  """The paper's recipe for another size; by default with heads of 64."""
  def of_size() -> Config:
    return Config(model=model_of(layers, hidden_size, heads=heads or hidden_size // 64), **PAPER)
  of_size.__doc__ = about
  return of_size


def shape_name(layers: int, hidden_size: int, heads: int) -> str:
  """As Google names its checkpoints: L-12_H-768_A-12."""
  return f'L-{layers}_H-{hidden_size}_A-{heads}'


# A shape that learns from few tokens on a CPU, by measurement: docs/performance.md, "What teaches a small model". Two
# heads begin by looking at the neighbours; the initializer's range is about 1 / sqrt(width). No dropout, since nothing
# is learnt by heart in the time. Adam's bias correction, as the warmup is short, and a short memory, as batches are
# small. More masks than BERT's 15 %: of 30 % twice the predictions for a tenth more time. Short rows: a neighbour
# counts more.
FEW_TOKENS: dict[str, Any] = dict(heads=4, initializer_range=0.08, neighbour_heads=2, hidden_dropout=0.0,
                                  attention_dropout=0.0, dtype='float32')
SMALL_ROWS = BatchConfig(size=16, sequence_length=32, predictions=7, masking=Masking(share=0.2))
SMALL_STEPS = Optimizer(name='adamw', peak_learning_rate=1e-3, warmup_steps=300, schedule='linear', b2=0.98,
                        epsilon=1e-8, weight_decay=0.1)


def sample() -> Config:
  """Four layers of 128 on the Wikipedia slice of `--input sample`: minutes on two CPU cores, to see the whole way work.

  The held-out MLM loss ends at 3.9, 2.4 nats under the unigram baseline: many small updates, a small vocabulary, and a
  rate that post-LayerNorm bears. A BERT's is far lower.
  """
  return Config(model=model_of(4, 128, vocab_size=2048, **FEW_TOKENS),
                batch=BatchConfig(size=8, sequence_length=64, predictions=20, masking=Masking(share=0.3)),
                optimizer=dataclasses.replace(SMALL_STEPS, peak_learning_rate=5e-4),
                run=Run(steps=24_000, max_minutes=15.0, checkpoint_every=2_000, log_every=200))


def proof() -> Config:
  """Four layers of 128 on tens of millions of tokens: what `make proof` shows that pretraining is worth.

  1.4 M parameters, rows of 32: there next sentences are learnt, which longer rows did not teach at this size. Held-out
  MLM loss 3.52, 3.25 nats under the unigram baseline, and next-sentence accuracy 0.756, after 107 minutes on a core
  of a Xeon.
  """
  return Config(model=model_of(4, 128, vocab_size=4096, **FEW_TOKENS), batch=SMALL_ROWS, optimizer=SMALL_STEPS,
                run=Run(steps=150_000, checkpoint_every=10_000, log_every=500, evaluate_every=10_000,
                        evaluation_rows=1_024))


NAMED: dict[str, Recipe] = {
    'sample': sample,
    'proof': proof,
    'tiny': sized('BERT-Tiny, 2 layers of 128 (arXiv:1908.08962 table 1; 4.4 M parameters). GLUE test 64.2.', 2, 128),
    'mini': sized('BERT-Mini, 4 layers of 256 (arXiv:1908.08962 table 1; 11.2 M parameters). GLUE test 65.8.', 4, 256),
    'small': sized('BERT-Small, 4 layers of 512 (arXiv:1908.08962 table 1; 28.8 M parameters). GLUE test 71.2.',
                   4, 512),
    'medium': sized('BERT-Medium, 8 layers of 512 (arXiv:1908.08962 table 1; 41.4 M parameters). GLUE test 73.5.',
                    8, 512),
    'base': sized(
        'BERT-BASE, 12 layers of 768 (arXiv:1810.04805 section 3; 110 M parameters). GLUE test 79.6. Held-out MLM loss '
        'about 1.4. 2.4e19 FLOP: 4 days on 4 Cloud TPUs in the paper, 7 hours of an H100 at its peak.', 12, 768),
    'large': sized('BERT-LARGE, 24 layers of 1,024 (arXiv:1810.04805 section 3; 336 M parameters). GLUE test 82.1. '
                   '8.2e19 FLOP.', 24, 1024)}

# arXiv:1810.04805 table 6: (L, H, A), held-out perplexity, then dev MNLI-m, MRPC, SST-2.
TABLE_6 = [((3, 768, 12), 5.84, 77.9, 79.8, 88.4), ((6, 768, 3), 5.24, 80.6, 82.2, 90.7),
           ((6, 768, 12), 4.68, 81.9, 84.8, 91.3), ((12, 768, 12), 3.99, 84.4, 86.7, 92.9),
           ((12, 1024, 16), 3.54, 85.7, 86.9, 93.3), ((24, 1024, 16), 3.23, 86.6, 87.8, 93.7)]
BY_SIZE: dict[str, Recipe] = {
    shape_name(*shape): sized(f'Perplexity {perplexity}; MNLI-m {mnli}, MRPC {mrpc}, SST-2 {sst}.', *shape)
    for shape, perplexity, mnli, mrpc, sst in TABLE_6}

SMALL_LAYERS, SMALL_SIZES = (2, 4, 6, 8, 10, 12), (128, 256, 512, 768)
SMALL_ABOUT = ('2, 4, 6, 8, 10 or 12 layers of 128, 256, 512 or 768, with heads of 64; five are tiny, mini, small, '
               'medium and base.')
SMALLER: dict[str, Recipe] = {
    shape_name(layers, size, size // 64): sized(SMALL_ABOUT, layers, size)
    for layers, size in itertools.product(SMALL_LAYERS, SMALL_SIZES)}

# ---------------------------------------------------------------- hyper-parameters of others


def nvidia(batch: BatchConfig, rate: float, warmup: int, steps: int, microbatches: int) -> Config:
  """LAMB with a decay by the square root, as run_pretraining.py and schedulers.py PolyWarmUpScheduler have it.

  A device works through as many rows at once as an A100 there (scripts/configs/pretrain_config.sh, dgxa100_8gpu_fp16:
  8,192 rows in 128 parts, then 4,096 in 256), if there are 256 devices as in its README: on fewer, more microbatches.
  """
  optimizer = Optimizer(name='lamb', schedule='bert', decay_power=0.5, peak_learning_rate=rate, warmup_steps=warmup)
  return Config(model=model_of(24, 1024), batch=batch, optimizer=optimizer,
                run=Run(steps=steps, microbatches=microbatches))


def nvidia_phase1() -> Config:
  """BERT-LARGE by LAMB, 7,038 steps of 65,536 rows of 128 (NVIDIA DeepLearningExamples, PyTorch, BERT, README).

  Warmup is .2843 of them. With phase 2 about 1.2 hours on 256 A100.
  """
  return nvidia(BatchConfig(size=65_536, sequence_length=128, predictions=20), 6e-3, 2_001, 7_038, 4)


def nvidia_phase2() -> Config:
  """After it 1,563 steps of 32,768 rows of 512, warmup .128: `--initialize-from` the run of phase 1. Final loss 1.2437.

  There the optimizer's moments of phase 1 are kept; here they begin at 0.
  """
  return nvidia(BatchConfig(size=32_768, sequence_length=512, predictions=80), 4e-3, 200, 1_563, 8)


def mlperf() -> Config:
  """BERT-LARGE as Google's JAX submission to MLPerf v0.7: LAMB, 560 steps of 8,192 rows of 512, to an MLM accuracy of
  0.712 from MLPerf's checkpoint at 0.341 (`--initialize-from`).

  Its warmup of 287 begins 76 steps before the first; here it rises from 0 in the 211 that are left.
  """
  return Config(model=model_of(24, 1024), batch=BatchConfig(size=8_192, sequence_length=512, predictions=76),
                optimizer=Optimizer(name='lamb', peak_learning_rate=0.00288293, warmup_steps=211, b1=0.88, b2=0.88,
                                    weight_decay=0.0166629),
                run=Run(steps=560))


def roberta(layers: int, hidden_size: int, rate: float, warmup: int) -> Config:
  """arXiv:1907.11692 table 9; masks are drawn again in each epoch, as ours are always."""
  return Config(model=model_of(layers, hidden_size), objective='mlm',
                batch=BatchConfig(size=8_192, sequence_length=512, predictions=77, pairs='none'),
                optimizer=Optimizer(name='adamw', schedule='linear', peak_learning_rate=rate, warmup_steps=warmup,
                                    b2=0.98, clip_norm=0.0),
                run=Run(steps=500_000))


def roberta_base() -> Config:
  """RoBERTa's hyper-parameters for 12 layers of 768 (arXiv:1907.11692 table 9): rows of 512, 8 k a batch, no NSP, no
  clipping. Its text (160 GB) and vocabulary (50 k, BPE) are others.

  For fewer rows a batch fairseq's README has the peaks 1e-4 (256), 5e-4 (2,048), 7e-4 (8,192).
  """
  return roberta(12, 768, 6e-4, 24_000)


def roberta_large() -> Config:
  """The same for 24 layers of 1,024. GLUE dev, single models: MNLI 90.2, QNLI 94.7, SST-2 96.4 (table 5)."""
  return roberta(24, 1024, 4e-4, 30_000)


def mosaic_base() -> Config:
  """BERT-BASE as MosaicBERT's authors train it for comparison (mosaicml/examples, BERT): 70,000 steps of 4,096 rows of
  128, no NSP; 11.5 hours on 8 A100 to GLUE dev 83.2. Their own encoder (ALiBi, GLU) is another, with masks of 30 %.

  Their decay of 1e-5 a step at the peak rate of 5e-4 is a weight_decay of 0.02 here, where the rate multiplies it.
  """
  return Config(model=model_of(12, 768), objective='mlm',
                batch=BatchConfig(size=4_096, sequence_length=128, predictions=20, pairs='none'),
                optimizer=Optimizer(name='adamw', schedule='linear', peak_learning_rate=5e-4, final_learning_rate=1e-5,
                                    warmup_steps=4_200, b2=0.98, weight_decay=0.02, clip_norm=0.0),
                run=Run(steps=70_000))


def sabertooth(size: int, steps: int, **optimizer) -> Config:
  """Sentence order in place of NSP, bias correction, only rows of 128, a vocabulary of 32,128 (SentencePiece)."""
  return Config(model=model_of(12, 768, vocab_size=32_128), objective='mlm_sop',
                batch=BatchConfig(size=size, sequence_length=128, predictions=20, pairs='sop'),
                optimizer=Optimizer(name='adamw', schedule='linear', **optimizer), run=Run(steps=steps))


def sabertooth_1024() -> Config:
  """BERT-BASE's size by nikitakit/sabertooth, README: 1 M steps of 1,024 rows of 128, sentence order for NSP. GLUE test
  MNLI 85.1/84.3, QNLI 92.1, SST-2 92.5. Its vocabulary: `vocabulary --kind sentencepiece --size 32128`."""
  return sabertooth(1_024, 1_000_000, peak_learning_rate=1e-4, warmup_steps=10_000)


def sabertooth_4096() -> Config:
  """The same in 125,000 steps of 4,096 at ten times the rate: half the rows. GLUE test MNLI 84.5/84.0."""
  return sabertooth(4_096, 125_000, peak_learning_rate=1e-3, warmup_steps=3_125, b2=0.98, epsilon=1e-11,
                    weight_decay=0.1, clip_norm=0.4)


OTHERS: dict[str, Recipe] = {function.__name__: function for function in (
    nvidia_phase1, nvidia_phase2, mlperf, roberta_base, roberta_large, mosaic_base, sabertooth_1024, sabertooth_4096)}

# What `--help` lists, under these titles.
RECIPE_GROUPS: dict[str, dict[str, Recipe]] = {
    'Recipes': NAMED,
    'Sizes of arXiv:1810.04805 table 6, by layers, width and heads; held-out perplexity and dev scores': BY_SIZE,
    'The 24 small models of google-research/bert, README of March 11th, 2020 (arXiv:1908.08962)': SMALLER,
    "Others' hyper-parameters": OTHERS}
RECIPES = {name: recipe for group in RECIPE_GROUPS.values() for name, recipe in group.items()}

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
  every token. The table's next row, a BiLSTM on top for the task, is left out: it is no other pretraining.

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


def original(config: Config) -> Config:
  """As google-research/bert @ eedf571 computes it, in float32, on data as it makes it: docs/fidelity.md.

  `bert-jax prepare --pairs google --masks google --rules google --lines sentences --seed 12345` makes such data: pairs
  and masks are drawn once, ten times over.
  """
  batch = dataclasses.replace(config.batch, pairs='google', masking=Masking(unit=STORED))
  model = dataclasses.replace(config.model, dtype='float32', activation='gelu_tanh')
  optimizer = dataclasses.replace(config.optimizer, name='bert_adamw', schedule='bert')
  return dataclasses.replace(config, objective='mlm_nsp', batch=batch, model=model, optimizer=optimizer)

# ---------------------------------------------------------------- the same with other masks

# arXiv:1810.04805 table 8: (MASK, SAME, RND) in percent, then dev MNLI, NER fine-tuned, NER by features.
TABLE_8 = [((80, 10, 10), 84.2, 95.4, 94.9), ((100, 0, 0), 84.3, 94.9, 94.0), ((80, 0, 20), 84.1, 95.2, 94.6),
           ((80, 20, 0), 84.4, 95.2, 94.7), ((0, 20, 80), 83.7, 94.8, 94.6), ((0, 0, 100), 83.6, 94.9, 94.6)]


def mixed(mask: int, same: int, random: int, about: str) -> Variant:
  """Of the predicted tokens these percents become [MASK], stay, or become a random token."""
  def masks(config: Config) -> Config:
    masking = dataclasses.replace(config.batch.masking, mask=mask / 100, random=random / 100)
    return dataclasses.replace(config, batch=dataclasses.replace(config.batch, masking=masking))
  masks.__doc__ = f'{mask} % [MASK], {same} % the same, {random} % random. {about}'
  return masks


# What `--help` lists, under these titles.
VARIANT_GROUPS: dict[str, dict[str, Variant]] = {
    'Variants, as in base_no_nsp': {
        'no_nsp': no_nsp, 'left_to_right': left_to_right, 'right_to_left': right_to_left, 'sop': sop, '2018': original},
    'Masks of arXiv:1810.04805 table 8, as in base_mask_80_20_0; dev scores of BERT-BASE': {
        'mask_' + '_'.join(map(str, mix)): mixed(*mix, f'MNLI {mnli}; NER {tuned} fine-tuned, {features} by features.')
        for mix, mnli, tuned, features in TABLE_8}}
VARIANTS = {name: variant for group in VARIANT_GROUPS.values() for name, variant in group.items()}


def recipe(name: str) -> Config:
  """The settings of 'base', or of 'base_left_to_right': any recipe, with the name of any variant after it.

  Raises ConfigError.
  """
  names: dict[str, tuple[str, str | None]] = {size: (size, None) for size in RECIPES}
  names |= {f'{size}_{variant}': (size, variant) for size in RECIPES for variant in VARIANTS}
  if name not in names:
    close = difflib.get_close_matches(name, names, 1)
    raise ConfigError(f'there is no recipe {name!r}' + (f', did you mean {close[0]!r}?' if close else ':')
                      + f' wanted one of {", ".join(NAMED)}, or another that `bert-jax pretrain --help` lists, with '
                      f'nothing after it or a variant such as _{next(iter(VARIANTS))}')
  size, variant = names[name]
  config = RECIPES[size]()
  return VARIANTS[variant](config) if variant else config
