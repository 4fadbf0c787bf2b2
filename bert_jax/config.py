"""Every setting of a run, as frozen dataclasses whose checks name the field to change."""

import dataclasses
from typing import Literal

from bert_jax.errors import ConfigError, require
from bert_jax.fields import flat, from_json, require_choices, to_json
from input_pipeline.batches.loader import BatchConfig, Masking
from input_pipeline.records import DataError


@dataclasses.dataclass(frozen=True)
class Model:
  """The encoder's shape (arXiv:1810.04805 section 3; google-research/bert modeling.py BertConfig)."""
  vocab_size: int = 30522
  """Tokens of the vocabulary; the data must have been prepared with one of this size."""
  hidden_size: int = 768
  layers: int = 12
  heads: int = 12
  intermediate_size: int = 3072
  """Width of the feed-forward layer."""
  max_positions: int = 512
  """Longest sequence that has a position embedding."""
  type_vocab_size: int = 2
  activation: Literal['gelu_tanh', 'gelu'] = 'gelu_tanh'
  """gelu_tanh: the tanh approximation of google-research/bert since 2019; gelu: exact, of the 2018 release and Hugging Face's 'gelu'."""
  hidden_dropout: float = 0.1
  attention_dropout: float = 0.1
  initializer_range: float = 0.02
  layer_norm_epsilon: float = 1e-12
  dtype: Literal['bfloat16', 'float32'] = 'bfloat16'
  """What matrix products run in; parameters, statistics, softmax and losses are float32 always."""
  attention: Literal['auto', 'xla', 'pallas', 'cudnn'] = 'auto'
  """pallas: a fused kernel for TPU, for rows of up to 1,024 tokens; cudnn: NVIDIA's, without dropout; xla: everywhere; auto: what fits."""
  causal: bool = False
  """Each token sees itself and those before it alone, as in OpenAI GPT (arXiv:1810.04805 section 5.1, LTR)."""
  remat: Literal['none', 'elementwise', 'full'] = 'elementwise'
  """What the backward pass computes again instead of keeping: nothing, all but the matrix products, or whole layers."""
  unroll: int = 1
  """Layers a step of the scan over layers; all of them: no loop, faster to run, slower to compile."""

  def __post_init__(self):
    require_choices(self, 'model.')
    require(self.heads >= 1 and self.unroll >= 1, f'model.heads is {self.heads}, model.unroll is {self.unroll}: wanted at least 1 each')
    require(self.hidden_size % self.heads == 0, f'model.hidden_size {self.hidden_size} is not a multiple of model.heads {self.heads}')
    require(self.layers >= 1 and self.vocab_size >= 6, 'model.layers must be at least 1 and model.vocab_size at least 6')
    for name in ('hidden_dropout', 'attention_dropout'):
      require(0 <= getattr(self, name) < 1, f'model.{name} is {getattr(self, name)}: wanted 0 <= rate < 1')


# The schedules that read a setting of the decay.
SHAPED_BY = {'final_learning_rate': ('bert', 'linear', 'cosine', 'wsd'), 'decay_power': ('bert', 'linear', 'wsd'),
             'decay_share': ('wsd',)}


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """How parameters move (google-research/bert optimization.py)."""
  name: Literal['bert_adamw', 'adamw', 'lamb'] = 'bert_adamw'
  """bert_adamw: the original's, without bias correction; adamw: textbook; lamb: arXiv:1904.00962, trust ratios layer by layer."""
  schedule: Literal['bert', 'linear', 'cosine', 'wsd', 'constant'] = 'bert'
  """bert: the original's, which decays from step 0 and so drops where the warmup ends; linear and cosine: from the peak;
  wsd (warmup, stable, decay, arXiv:2404.06395): stays at the peak until the last decay_share of the steps; constant: no decay."""
  peak_learning_rate: float = 1e-4
  warmup_steps: int = 10_000
  final_learning_rate: float = 0.0
  """What the decay ends at, with the last step."""
  decay_power: float = 1.0
  """Power of the polynomial decay of bert, linear and wsd; 1: a straight line."""
  decay_share: float = 0.1
  """wsd: share of the steps, the last, in which the rate falls."""
  b1: float = 0.9
  b2: float = 0.999
  epsilon: float = 1e-6
  weight_decay: float = 0.01
  """Not for biases and LayerNorm; embeddings are decayed, as in the original."""
  clip_norm: float = 1.0
  """Global norm to which the gradient of the whole batch is clipped; 0: not."""

  def __post_init__(self):
    require_choices(self, 'optimizer.')
    require(self.peak_learning_rate > 0, f'optimizer.peak_learning_rate is {self.peak_learning_rate}: wanted more than 0')
    require(0 <= self.final_learning_rate <= self.peak_learning_rate,
            f'optimizer.final_learning_rate is {self.final_learning_rate}: wanted 0 up to the peak, {self.peak_learning_rate}')
    require(0 < self.decay_share <= 1, f'optimizer.decay_share is {self.decay_share}: wanted a share above 0 and up to 1')
    require(self.decay_power > 0, f'optimizer.decay_power is {self.decay_power}: wanted more than 0')
    for name in ('b1', 'b2'):
      require(0 <= getattr(self, name) < 1, f'optimizer.{name} is {getattr(self, name)}: wanted 0 <= {name} < 1')
    for name, schedules in SHAPED_BY.items():
      value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
      require(self.schedule in schedules or value == default,
              f'optimizer.{name} {value} changes nothing with optimizer.schedule {self.schedule!r}: leave it at {default}, or '
              f'choose {" or ".join(schedules)}')
    require(self.warmup_steps >= 0, f'optimizer.warmup_steps is {self.warmup_steps}: wanted 0 or more')
    require(self.clip_norm >= 0, f'optimizer.clip_norm is {self.clip_norm}: wanted 0 (off) or more')


@dataclasses.dataclass(frozen=True)
class Mesh:
  """How many devices along each axis; -1: all that are left. Where none is given (`--mesh auto`) all three are chosen.

  Chosen is fsdp inside a slice of a pod, data over slices, and tensor where the batch has fewer rows than there are devices.
  """
  data: int = 0
  """Data parallel: each device holds all parameters and a share of the batch. 0, where another is given: all that are left."""
  fsdp: int = 0
  """Data parallel too, but parameters and optimizer state are shared out; each step gathers the parameters once, in model.dtype."""
  tensor: int = 0
  """Tensor parallel: heads and feed-forward columns are shared out."""
  reduce: Literal['compute', 'float32'] = 'compute'
  """What gradients of matrices are sent and added up in between devices: model.dtype, or float32 at twice the bytes."""

  def __post_init__(self):
    require_choices(self, 'mesh.')

  def reduction(self, compute: str) -> str:
    """The dtype in which gradients are added up, for a model that computes in `compute`."""
    return compute if self.reduce == 'compute' else self.reduce


@dataclasses.dataclass(frozen=True)
class Schedule:
  """How long a run goes on, and what it does on the way."""
  steps: int = 1_000_000
  max_minutes: float | None = None
  """Stop, saved and evaluated, after so many minutes of training, those before a resumption included."""
  microbatches: int = 1
  """Parts of a batch that go through the model one after the other; the gradient is that of the whole batch."""
  checkpoint_every: int = 1000
  keep_checkpoints: int = 3
  log_every: int = 20
  evaluate_every: int = 0
  """Steps between evaluations on the validation split; 0: only when asked (`bert-jax evaluate`)."""
  evaluation_rows: int = 2048
  """Rows of the validation split that an evaluation on the way reads."""
  seed: int = 12345
  """Parameters and dropout; the data has batch.seed."""

  def __post_init__(self):
    for name in ('steps', 'microbatches', 'checkpoint_every', 'keep_checkpoints', 'log_every', 'evaluation_rows'):
      require(getattr(self, name) >= 1, f'run.{name} is {getattr(self, name)}: wanted at least 1')


@dataclasses.dataclass(frozen=True)
class Long:
  """A last phase on longer rows: the paper has 90 % of the steps at 128 tokens and the rest at 512 (arXiv:1810.04805 appendix A.2)."""
  share: float = 0.0
  """Of the steps; 0: no such phase."""
  sequence_length: int = 512
  predictions: int = 77
  """As batch.predictions: slots for predicted tokens in a row."""
  size: int = 0
  """Rows of a batch; 0: as many as batch.size."""

  def __post_init__(self):
    require(0 <= self.share < 1, f'long.share is {self.share}: wanted 0 <= share < 1')


@dataclasses.dataclass(frozen=True)
class Config:
  """A pretraining run, less its directories."""
  model: Model = Model()
  objective: Literal['mlm_nsp', 'mlm_sop', 'mlm', 'left_to_right'] = 'mlm_nsp'
  """mlm: masked tokens; nsp: is the second segment the next; sop: are the two in order; left_to_right: each token from those before."""
  batch: BatchConfig = BatchConfig()
  long: Long = Long()
  optimizer: Optimizer = Optimizer()
  mesh: Mesh = Mesh()
  run: Schedule = Schedule()

  def __post_init__(self):
    require_choices(self)
    try:
      self.batch.check()
    except ValueError as error:
      raise ConfigError(str(error)) from error
    length, limit = self.batch.sequence_length, self.model.max_positions
    require(length <= limit, f'batch.sequence_length {length} is more than model.max_positions {limit}')
    require(not self.long.share or length < self.long.sequence_length <= limit,
            f'long.sequence_length is {self.long.sequence_length}: wanted more than batch.sequence_length {length} and at most '
            f'model.max_positions {limit}, or long.share 0')
    require(self.long.size % self.run.microbatches == 0,
            f'long.size {self.long.size} is not a multiple of run.microbatches {self.run.microbatches}')
    require(self.batch.size % self.run.microbatches == 0,
            f'batch.size {self.batch.size} is not a multiple of run.microbatches {self.run.microbatches}')
    require(self.optimizer.warmup_steps <= self.run.steps,
            f'optimizer.warmup_steps {self.optimizer.warmup_steps} is more than run.steps {self.run.steps}')
    decay = round(self.optimizer.decay_share * self.run.steps) if self.optimizer.schedule == 'wsd' else 0
    require(self.optimizer.warmup_steps + decay <= self.run.steps,
            f'optimizer.warmup_steps {self.optimizer.warmup_steps} and the {decay} steps of optimizer.decay_share '
            f'{self.optimizer.decay_share} are more than run.steps {self.run.steps}: lower one of the two')
    self.check_objective()

  def check_objective(self):
    """Raises ConfigError where batches or model are not what the objective wants."""
    objective, batch = self.objective, self.batch
    wanted = PAIRS.get(objective, (batch.pairs,))
    fit = next((name for name, pairs in PAIRS.items() if batch.pairs in pairs), 'mlm')
    require(batch.pairs in wanted, f'objective {objective!r} wants batch.pairs {" or ".join(wanted)}, found {batch.pairs!r}: '
            f'set --batch.pairs {wanted[0]}, or --objective {fit}')
    causal = objective == 'left_to_right'
    require(self.model.causal == causal, f'objective {objective!r} wants model.causal {causal}: it predicts '
            + ('each token from those before it: set --model.causal' if causal else
               'masked tokens from both sides: set --model.no-causal, or --objective left_to_right'))
    masks = batch.masking.share > 0 or bool(batch.masking.schedule)
    require(masks != causal, f'objective {objective!r} wants batch.masking.share ' + (
        '0 and no schedule: it reads the text as it is' if causal else 'above 0: without masks there is nothing to predict'))


# The pairs that an objective is about; the others go with any.
PAIRS = {'mlm_nsp': ('nsp', 'google'), 'mlm_sop': ('sop',)}


@dataclasses.dataclass(frozen=True)
class Distributed:
  """The processes of a run, each started with the same command; on SLURM, GKE and Cloud TPU nothing of this need be given."""
  coordinator: str | None = None
  """host:port of process 0. Whoever reaches the port can disturb the run: keep it inside a private network."""
  processes: int | None = None
  """How many there are."""
  process_id: int | None = None
  """Which of them this is, from 0."""
  auto: bool = True
  """Find out from SLURM, GKE, Cloud TPU or Open MPI what is not given; where there is none of these, run alone."""
  initialization_seconds: int = 300
  """How long to wait for the others at the start."""
  heartbeat_seconds: int = 60
  """A process that is silent for so long is taken for dead, and the others end."""
  shutdown_seconds: int = 30
  """How long a process that is done waits for the others."""

  def __post_init__(self):
    given = {'coordinator': self.coordinator, 'processes': self.processes, 'process-id': self.process_id}
    missing = ', '.join(f'--distributed.{name}' for name, value in given.items() if value is None)
    require(self.auto or not missing or not any(value is not None for value in given.values()),
            f'with --distributed.no-auto all of coordinator, processes and process-id are needed, or none: {missing} is missing')
    if self.coordinator is not None:
      host, _, port = self.coordinator.rpartition(':')
      require(bool(host) and port.isdigit() and 0 < int(port) < 65536,
              f'distributed.coordinator is {self.coordinator!r}: wanted host:port, as in 10.0.0.1:1234')
    if self.processes is not None and self.process_id is not None:
      require(0 <= self.process_id < self.processes,
              f'distributed.process_id is {self.process_id}: wanted 0 … {self.processes - 1}, as distributed.processes is {self.processes}')


# What a resumed run may change without becoming another run: where it runs, and what it reports.
FREE_FIELDS = ('mesh', 'run.log_every', 'run.checkpoint_every', 'run.keep_checkpoints', 'run.evaluate_every', 'run.evaluation_rows',
               'run.max_minutes', 'run.microbatches', 'model.attention', 'model.remat', 'model.unroll')


def drift(old: Config, new: Config) -> list[str]:
  """What differs between two runs, less what may: ['optimizer.b1: 0.9 -> 0.8'], empty where one may go on as the other."""
  before, after = flat(old), flat(new)
  free = lambda name: any(name == field or name.startswith(field + '.') for field in FREE_FIELDS)
  return [f'{name}: {before.get(name)} -> {after.get(name)}' for name in sorted(before | after)
          if before.get(name) != after.get(name) and not free(name)]


__all__ = ['BatchConfig', 'Config', 'ConfigError', 'DataError', 'Distributed', 'FREE_FIELDS', 'Masking', 'Mesh', 'Model', 'Optimizer',
           'Schedule', 'drift', 'flat', 'from_json', 'require', 'to_json']
