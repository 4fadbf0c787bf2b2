"""The settings of a fine-tuning run."""

import dataclasses

from bert_jax import config as cfg
from bert_jax.errors import require
from bert_jax.objectives import Objective
from bert_jax.optimizer import check_length
from bert_jax.tasks.table import TASKS
from bert_jax.tasks.task import Settings


@dataclasses.dataclass(frozen=True)
class TaskBatch:
  """What a batch of a task is made of."""
  size: int = 32
  """Rows of a batch: 16 or 32 in the paper."""
  max_length: int = 128
  """Tokens of a row, [CLS] and [SEP] included; longer texts are cut (run_classifier.py max_seq_length)."""
  seed: int = 12345
  """Of the order of the rows, drawn again in each epoch."""

  def __post_init__(self):
    require(self.size >= 1, f'batch.size is {self.size}: wanted at least 1')
    require(self.max_length >= 8, f'batch.max_length is {self.max_length}: wanted at least 8')


@dataclasses.dataclass(frozen=True)
class Files:
  """Which examples of DATA are used."""
  train: str = ''
  """The file of DATA to train on, where its name is none of those that the task knows."""
  validation: str = ''
  """The file of DATA to evaluate on, likewise."""
  train_examples: int = 0
  """Only so many of the training examples, the first ones; 0: all."""
  validation_examples: int = 0
  """Only so many of the validation examples, the first ones; 0: all."""


@dataclasses.dataclass(frozen=True)
class Finetune:
  """A fine-tuning run, less its directories (arXiv:1810.04805 section 4 and appendix A.3)."""
  task: str = 'classification'
  """A key of bert_jax.tasks.table.TASKS."""
  labels: tuple[str, ...] = ()
  """The classes, in the order of their scores; found in the training examples."""
  model: cfg.Model = cfg.Model()
  epochs: int = 3
  """Times that each training example is seen: 2 to 4 in the paper."""
  batch: TaskBatch = TaskBatch()
  own: Settings = Settings()
  """The task's own settings, of the class TASKS[task].settings."""
  files: Files = Files()
  optimizer: cfg.Optimizer = cfg.Optimizer(peak_learning_rate=3e-5, warmup_steps=0)
  mesh: cfg.MeshShape = cfg.MeshShape()
  run: cfg.Run = cfg.Run(checkpoint_every=500, evaluate_every=0)

  def __post_init__(self):
    require(self.task in TASKS, f'there is no task {self.task!r}: wanted one of {", ".join(TASKS)}')
    if self.own == Settings():  # of a call that says nothing of them
      object.__setattr__(self, 'own', TASKS[self.task].settings())
    require(self.epochs >= 1, f'epochs is {self.epochs}: wanted at least 1')
    require(self.batch.size % self.run.microbatches == 0,
            f'batch.size {self.batch.size} is not a multiple of run.microbatches {self.run.microbatches}')
    check_length(self.optimizer, self.run.steps)

  @property
  def learns(self) -> Objective:
    """What is learnt: the task's objective for these labels."""
    return TASKS[self.task].objective(self.labels, self.own)


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
