"""The settings of a fine-tuning run."""

import dataclasses
import itertools
from typing import Annotated, Literal

from bert_jax import config as cfg
from bert_jax.errors import require
from bert_jax.fields import require_fields
from bert_jax.objectives import Objective
from bert_jax.optimizer import check_length
from bert_jax.tasks.table import TASKS
from bert_jax.tasks.task import Settings
from input_pipeline.ranges import FLOAT32, Count, CountOrNone, Seed, Share, Within

Seeds = Annotated[int, Within(1, 10**4)]  # runs that differ in nothing else


@dataclasses.dataclass(frozen=True)
class TaskBatch:
  """What a batch of a task is made of."""
  size: Count = 32
  """Rows of a batch: 16 or 32 in the paper."""
  max_length: Annotated[int, Within(8, 2**20)] = 128
  """Tokens of a row, [CLS] and [SEP] included; longer texts are cut (run_classifier.py max_seq_length)."""
  lengths: Literal['auto'] | Annotated[int, Within(1, 1024)] = 'auto'
  """Rows are padded to one of so many lengths, chosen by the training rows, with rows of about one length in a batch;
  each is compiled. 1: all to the longest row; auto: one for each 30 steps, at least 4 and at most 8."""
  seed: Seed = 12345
  """Of the order of the rows, drawn again in each epoch."""

  def __post_init__(self):
    require_fields(self, 'batch.')


@dataclasses.dataclass(frozen=True)
class Files:
  """Which examples of DATA are used."""
  train: str = ''
  """The file of DATA to train on, where its name is none of those that the task knows."""
  validation: str = ''
  """The file of DATA to evaluate on, likewise."""
  train_examples: CountOrNone = 0
  """Only so many of the training examples, the first ones; 0: all."""
  validation_examples: CountOrNone = 0
  """Only so many of the validation examples, the first ones; 0: all."""

  def __post_init__(self):
    require_fields(self, 'files.')


@dataclasses.dataclass(frozen=True)
class Finetune:
  """A fine-tuning run, less its directories (arXiv:1810.04805 section 4 and appendix A.3)."""
  task: str = 'classification'
  """A key of bert_jax.tasks.table.TASKS."""
  labels: tuple[str, ...] = ()
  """The classes, in the order of their scores; found in the training examples."""
  model: cfg.Model = cfg.Model()
  epochs: Count = 3
  """Times that each training example is seen: 2 to 4 in the paper."""
  batch: TaskBatch = TaskBatch()
  own: Settings = Settings()
  """The task's own settings, of the class TASKS[task].settings."""
  files: Files = Files()
  warmup_share: Share = 0.1
  """Share of the steps in which the learning rate rises (run_classifier.py warmup_proportion), where
  --optimizer.warmup-steps is 0."""
  optimizer: cfg.Optimizer = cfg.Optimizer(peak_learning_rate=3e-5, warmup_steps=0)
  mesh: cfg.MeshShape = cfg.MeshShape()
  run: cfg.Run = cfg.Run(checkpoint_every=500, keep_checkpoints=1, evaluate_every=0)
  """The best checkpoint is kept beside the newest; evaluate_every 0: after each epoch."""

  def __post_init__(self):
    require(self.task in TASKS, f'there is no task {self.task!r}: wanted one of {", ".join(TASKS)}')
    if self.own == Settings():  # of a call that says nothing of them
      object.__setattr__(self, 'own', TASKS[self.task].settings())
    require_fields(self)
    require(self.run.microbatches != 'auto', 'run.microbatches auto is for pretraining: wanted a number')
    require(self.batch.size % self.run.parts == 0,
            f'batch.size {self.batch.size} is not a multiple of run.microbatches {self.run.microbatches}')
    check_length(self.optimizer, self.run.steps)

  @property
  def learns(self) -> Objective:
    """What is learnt: the task's objective for these labels."""
    return TASKS[self.task].objective(self.labels, self.own)

  @property
  def best(self) -> str:
    """The figure of an evaluation by which checkpoints compare."""
    return TASKS[self.task].best

  def lengths_of(self, rows: int) -> int:
    """To how many lengths so many training rows are padded: compiling another one pays where it has steps enough."""
    if self.batch.lengths != 'auto':
      return self.batch.lengths
    return min(max(self.epochs * -(-rows // self.batch.size) // 30, 4), 8)

  def of_length(self, epoch: int) -> 'Finetune':
    """Where an epoch has so many steps: with the steps of the run, of its warmup, and between evaluations."""
    steps = self.epochs * epoch
    warmup = self.optimizer.warmup_steps or int(self.warmup_share * steps)
    return dataclasses.replace(
        self, optimizer=dataclasses.replace(self.optimizer, warmup_steps=warmup),
        run=dataclasses.replace(self.run, steps=steps, evaluate_every=self.run.evaluate_every or epoch))


@dataclasses.dataclass(frozen=True)
class Grid:
  """What is tried in place of the one learning rate, batch size and number of epochs of a run; --grid: the paper's
  lists (arXiv:1810.04805 appendix A.3)."""
  rates: tuple[Annotated[float, Within(0, FLOAT32, above=True, wise=1)], ...] = ()
  """Peak learning rates; in the paper 5e-5 3e-5 2e-5."""
  sizes: tuple[Count, ...] = ()
  """Rows of a batch; in the paper 16 32."""
  epochs: tuple[Count, ...] = ()
  """Epochs; in the paper 2 3 4."""

  def __post_init__(self):
    require_fields(self, 'grid.')

  def cells(self, config: Finetune) -> list[Finetune]:
    """The settings of each of its points."""
    points = itertools.product(self.rates or (config.optimizer.peak_learning_rate,),
                               self.sizes or (config.batch.size,), self.epochs or (config.epochs,))
    return [dataclasses.replace(config, epochs=epochs, batch=dataclasses.replace(config.batch, size=size),
                                optimizer=dataclasses.replace(config.optimizer, peak_learning_rate=rate))
            for rate, size, epochs in points]


PAPER = Grid((5e-5, 3e-5, 2e-5), (16, 32), (2, 3, 4))


def of(task: str) -> Finetune:
  """The settings with which a task is fine-tuned where nothing else is said. Raises ConfigError."""
  require(task in TASKS, f'there is no task {task!r}: wanted one of {", ".join(TASKS)}')
  usual = TASKS[task].defaults
  plain = Finetune(task)
  return dataclasses.replace(
      plain, epochs=usual.epochs,
      batch=dataclasses.replace(plain.batch, size=usual.size, max_length=usual.max_length),
      optimizer=dataclasses.replace(plain.optimizer, peak_learning_rate=usual.learning_rate))


def classes_of(fields: dict) -> dict[str, type]:
  """For fields.from_json: the class of `own` in the JSON fields of a Finetune."""
  task = fields.get('task')
  return {'own': TASKS[task].settings} if isinstance(task, str) and task in TASKS else {}
