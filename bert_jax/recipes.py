"""Published recipes by name: each a Config, its docstring with the source, the cost and what to expect."""

from bert_jax.config import BatchConfig, Config, Long, Model, Optimizer, Schedule


def model_of(layers: int, hidden_size: int, **changes) -> Model:
  """The family of arXiv:1810.04805 and arXiv:1908.08962: heads of 64, a feed-forward layer four times as wide."""
  return Model(layers=layers, hidden_size=hidden_size, heads=hidden_size // 64, intermediate_size=4 * hidden_size, **changes)


# arXiv:1810.04805 appendix A.2: Adam, 1e-4, b1 0.9, b2 0.999, L2 weight decay 0.01, warmup over 10,000 of 1,000,000 steps, linear decay;
# batches of 256, 90 % of the steps at 128 tokens and the rest at 512. predictions: what 15 % of a row needs, 20 at 128 and 77 at 512
# (max_predictions_per_seq of create_pretraining_data.py).
PAPER = dict(batch=BatchConfig(size=256, sequence_length=128, predictions=20), long=Long(share=0.1, sequence_length=512, predictions=77),
             optimizer=Optimizer(peak_learning_rate=1e-4, warmup_steps=10_000, weight_decay=0.01),
             run=Schedule(steps=1_000_000))


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
  """BERT-BASE, 12 layers of 768 (arXiv:1810.04805 section 3; 110 M parameters). GLUE test 79.6; held-out MLM loss about 1.4.

  1 M steps of 256 rows are 2.4e19 FLOP with a tenth of them at 512: 4 days on 4 Cloud TPUs in the paper, 7 hours of an H100 at its peak.
  """
  return Config(model=model_of(12, 768), **PAPER)


def large() -> Config:
  """BERT-LARGE, 24 layers of 1,024 (arXiv:1810.04805 section 3; 336 M parameters). GLUE test 82.1. 8.2e19 FLOP."""
  return Config(model=model_of(24, 1024), **PAPER)


def sample() -> Config:
  """Two layers of 128 on the Wikipedia slice of `--input sample`: minutes on two CPU cores, to see the whole way work.

  No dropout, since nothing is learnt by heart in the time, and bias correction, which a short warmup to a high rate needs. The held-out MLM
  loss ends well under the unigram baseline, far from a BERT's.
  """
  return Config(
      model=model_of(2, 128, vocab_size=8192, hidden_dropout=0.0, attention_dropout=0.0, dtype='float32', unroll=2),
      batch=BatchConfig(size=32, sequence_length=128, predictions=20),
      optimizer=Optimizer(name='adamw', peak_learning_rate=2e-3, warmup_steps=100, schedule='linear'),
      run=Schedule(steps=900, max_minutes=6.0, checkpoint_every=300, log_every=10))


RECIPES = {recipe.__name__: recipe for recipe in (sample, tiny, mini, small, medium, base, large)}

