"""Every setting of a run, as frozen dataclasses whose checks name the field to change."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Literal

from bert_jax.errors import ConfigError, require, together
from bert_jax.fields import flat, from_json, one_of, require_fields, to_json
from bert_jax.model.settings import Model
from bert_jax.objectives import OBJECTIVES, Objective
from bert_jax.optimizer import Optimizer, check_length
from bert_jax.parallel.mesh import MeshShape
from input_pipeline.batches.config import BatchConfig
from input_pipeline.batches.masking import STORED, Masking
from input_pipeline.errors import DataError
from input_pipeline.ranges import Count, CountOrNone, Seed, Within

if TYPE_CHECKING:
  ObjectiveName = str
else:
  ObjectiveName = one_of(OBJECTIVES)


Minutes = Annotated[float, Within(0, 1e7)]  # twenty years


@dataclasses.dataclass(frozen=True)
class Run:
  """How long a run goes on, and what it does on the way."""
  steps: Count = 1_000_000
  """Updates of the parameters (the paper's: arXiv:1810.04805 appendix A.2)."""
  max_minutes: Minutes | None = None
  """Stop, saved and evaluated, after so many minutes of training, those before a resumption included."""
  microbatches: Literal['auto'] | Count = 1
  """Parts of a batch that go through the model one after the other; the gradient is that of the whole batch. auto: as
  few as fit a device, by what the compiler says that a step takes."""
  checkpoint_every: Count = 1000
  """Steps between checkpoints; the last step has one always."""
  keep_checkpoints: Count = 3
  """Checkpoints that stay: the newest."""
  log_every: Count = 20
  """Steps that a line of metrics.jsonl sums up."""
  evaluate_every: CountOrNone = 0
  """Steps between evaluations on the validation split; 0: only when asked (`bert-jax evaluate`)."""
  evaluation_rows: Count = 2048
  """Rows of the validation split that an evaluation on the way reads."""
  hang_minutes: Minutes = 30.0
  """Minutes without a step after which the process counts as stuck and ends, with the stacks of its threads; four times
  as many to compile, restore, evaluate or save. 0: never."""
  recheck_every: CountOrNone = 0
  """Steps between steps that are done twice, to find a device or memory that computes wrongly; 0: none. Each costs a
  step more, and for its time the memory of a second state."""
  seed: Seed = 12345
  """Of initial parameters and dropout; the data has batch.seed."""

  def __post_init__(self):
    require_fields(self, 'run.')

  @property
  def parts(self) -> int:
    """Microbatches; 1 where they are still to be chosen."""
    return 1 if self.microbatches == 'auto' else self.microbatches


@dataclasses.dataclass(frozen=True)
class Long:
  """A last phase on longer rows.

  The paper has 90 % of the steps at 128 tokens and the rest at 512 (arXiv:1810.04805 appendix A.2).
  """
  share: Annotated[float, Within(0, 1, below=True)] = 0.0
  """Share of the steps; 0: no such phase."""
  sequence_length: Count = 512
  """Tokens of a row."""
  predictions: Count = 77
  """As batch.predictions: slots for predicted tokens in a row."""
  size: CountOrNone = 0
  """Rows of a batch; 0: as many as batch.size."""

  def __post_init__(self):
    require_fields(self, 'long.')


@dataclasses.dataclass(frozen=True)
class Probe:
  """Small measures of what is learnt, logged beside the held-out losses; they change nothing of the training."""
  every: CountOrNone = 0
  """Steps between probes, a multiple of run.evaluate_every; 0: none."""
  pairs: str = ''
  """Minimal pairs, as `bert-jax score --pairs` reads them, such as BLiMP's."""
  task: str = ''
  """A task of classes of texts, which a linear probe learns from the encoder's vectors; needs `pip install
  'bert_jax[tasks]'`."""
  data: str = ''
  """The directory of the task's files."""
  examples: Count = 500
  """Of the pairs, and of each split of the task, only so many, the first ones."""

  def __post_init__(self):
    require_fields(self, 'probe.')
    require(bool(self.every) == bool(self.pairs or self.task), f'probe.every is {self.every}, and ' + (
        'nothing is to be probed: wanted --probe.pairs or --probe.task' if self.every else
        'something is to be probed: wanted --probe.every'))
    require(bool(self.task) == bool(self.data), f'probe.task is {self.task!r}, probe.data {self.data!r}: wanted both')


@dataclasses.dataclass(frozen=True)
class Config:
  """A pretraining run, less its directories."""
  model: Model = Model()
  objective: ObjectiveName = 'mlm_nsp'
  """mlm: masked tokens; nsp: is the second segment the next; sop: are the two in order; left_to_right: each token from
  those before."""
  batch: BatchConfig = BatchConfig()
  long: Long = Long()
  optimizer: Optimizer = Optimizer()
  mesh: MeshShape = MeshShape()
  run: Run = Run()
  probe: Probe = Probe()

  def __post_init__(self):
    require_fields(self)
    together(self.check_batch, self.check_lengths, self.check_parts,
             lambda: check_length(self.optimizer, self.run.steps), self.check_probe, self.check_objective)

  def check_batch(self):
    """Raises ConfigError, as what follows does."""
    try:
      self.batch.check()
    except ValueError as error:
      raise ConfigError(str(error)) from error
    require(self.model.type_vocab_size >= 2 or self.batch.pairs == 'none', 'model.type_vocab_size is 1, and pairs have '
            'two segments: wanted at least 2, or batch.pairs none')

  def check_lengths(self):
    length, limit = self.batch.sequence_length, self.model.max_positions
    require(length <= limit, f'batch.sequence_length {length} is more than model.max_positions {limit}')
    require(not self.long.share or length < self.long.sequence_length <= limit,
            f'long.sequence_length is {self.long.sequence_length}: wanted more than batch.sequence_length {length} and '
            f'at most model.max_positions {limit}, or long.share 0')

  def check_parts(self):
    for name, size in (('long.size', self.long.size), ('batch.size', self.batch.size)):
      require(size % self.run.parts == 0,
              f'{name} {size} is not a multiple of run.microbatches {self.run.microbatches}')

  def check_probe(self):
    evaluations = self.run.evaluate_every
    require(not self.probe.every or evaluations > 0 and self.probe.every % evaluations == 0, f'probe.every is '
            f'{self.probe.every}, run.evaluate_every {evaluations}: wanted a multiple of it')

  @property
  def learns(self) -> Objective:
    """What is learnt: the value that `objective` names."""
    return OBJECTIVES[self.objective]

  def check_objective(self):
    """Raises ConfigError where batches or model are not what the objective wants."""
    name, batch, wanted = self.objective, self.batch, self.learns
    pairs = wanted.pairs or (batch.pairs,)
    sees = lambda of: (of.causal, of.right_to_left)
    fits = lambda objective: (
        sees(objective) == sees(self.model) and batch.pairs in (objective.pairs or (batch.pairs,)))
    fitting = [other for other, objective in OBJECTIVES.items() if fits(objective)]
    require(batch.pairs in pairs, f'objective {name!r} wants batch.pairs {" or ".join(pairs)}, found {batch.pairs!r}: '
            f'set --batch.pairs {pairs[0]}' + (f', or --objective {fitting[0]}' if fitting else ''))
    others = ' or '.join(other for other, objective in OBJECTIVES.items() if objective.causal != wanted.causal)
    require(self.model.causal == wanted.causal, f'objective {name!r} wants model.causal {wanted.causal}: it predicts '
            + ('each token from those before it: set --model.causal' if wanted.causal else
               f'from both sides: set --model.no-causal, or --objective {others}'))
    require(self.model.right_to_left == wanted.right_to_left,
            f'objective {name!r} wants model.right_to_left {wanted.right_to_left}: it predicts each token from those '
            + ('after it: set --model.right-to-left' if wanted.right_to_left else
               'before it: set --model.no-right-to-left, or --objective right_to_left'))
    masks = batch.masking.share > 0 or bool(batch.masking.schedule)
    require(masks == wanted.masked, f'objective {name!r} wants batch.masking.share ' + (
        'above 0: without masks there is nothing to predict' if wanted.masked else
        '0 and no schedule: it reads the text as it is'))


@dataclasses.dataclass(frozen=True)
class Asked(Config):
  """A Config as it was asked for, before it is fitted to its data: what is wrong between its groups is not looked at.
  """

  def __post_init__(self):
    require_fields(self)
    require_fields(self.batch, 'batch.')
    require_fields(self.batch.masking, 'batch.masking.')

  @classmethod
  def of(cls, config: Config) -> 'Asked':
    return cls(**vars(config))

  def checked(self) -> Config:
    """Raises ConfigError for all that cannot work together."""
    return Config(**vars(self))


@dataclasses.dataclass(frozen=True)
class Distributed:
  """The processes of a run, each started with the same command.

  On SLURM, GKE and Cloud TPU nothing of this need be given.
  """
  coordinator: str | None = None
  """host:port of process 0. Whoever reaches the port can disturb the run: keep it inside a private network."""
  processes: Count | None = None
  """How many there are."""
  process_id: CountOrNone | None = None
  """Which of them this is, from 0."""
  auto: bool = True
  """Find out from SLURM, GKE, Cloud TPU or Open MPI what is not given; where there is none of these, this process is
  the whole run."""
  initialization_seconds: Count = 300
  """How long to wait for the others at the start."""
  heartbeat_seconds: Count = 60
  """A process that is silent for so long is taken for dead, and the others end."""
  shutdown_seconds: Count = 30
  """How long a process that is done waits for the others."""

  def __post_init__(self):
    require_fields(self, 'distributed.')
    given = {'coordinator': self.coordinator, 'processes': self.processes, 'process-id': self.process_id}
    missing = ', '.join(f'--distributed.{name}' for name, value in given.items() if value is None)
    require(self.auto or not missing or not any(value is not None for value in given.values()),
            'with --distributed.no-auto all of coordinator, processes and process-id are needed, or none: '
            f'{missing} is missing')
    if self.coordinator is not None:
      host, _, port = self.coordinator.rpartition(':')
      require(bool(host) and port.isdigit() and 0 < int(port) < 65536,
              f'distributed.coordinator is {self.coordinator!r}: wanted host:port, as in 10.0.0.1:1234')
    if self.processes is not None and self.process_id is not None:
      require(0 <= self.process_id < self.processes,
              f'distributed.process_id is {self.process_id}: wanted 0 … {self.processes - 1}, as distributed.processes '
              f'is {self.processes}')


# What a resumed run may change without becoming another run: where it runs, and what it reports.
FREE_FIELDS = (
    'mesh', 'run.log_every', 'run.checkpoint_every', 'run.keep_checkpoints', 'run.evaluate_every',
    'run.evaluation_rows', 'run.max_minutes', 'run.hang_minutes', 'run.recheck_every', 'run.microbatches',
    'model.attention', 'model.remat', 'model.unroll', 'model.plain', 'probe')


def drift(old, new) -> list[str]:
  """What differs between the settings of two runs of one kind, less what may: ['optimizer.b1: 0.9 -> 0.8'].

  Empty where one may go on as the other.
  """
  before, after = flat(old), flat(new)
  free = lambda name: any(name == field or name.startswith(field + '.') for field in FREE_FIELDS)
  return [f'{name}: {before.get(name)} -> {after.get(name)}' for name in sorted(before | after)
          if before.get(name) != after.get(name) and not free(name)]


__all__ = [
    'BatchConfig', 'Config', 'ConfigError', 'DataError', 'Distributed', 'FREE_FIELDS', 'Masking', 'MeshShape', 'Model',
    'Optimizer', 'Probe', 'Run', 'STORED', 'drift', 'flat', 'from_json', 'require', 'to_json']
