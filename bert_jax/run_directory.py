"""A run's directory: what is in it, what kind of run it is, and whether a command may go on in it.

RUN/config.json           the kind of run, its settings, data, vocabulary, where its weights came from, and how it was
                          begun; written once with a random `id`, so that no two runs have the same
RUN/extended.json         how many steps it has now, where it was extended: extending.py
RUN/vocab.txt, spm.model  the vocabulary, so that the run can be used without its data
RUN/checkpoints/STEP/     what checkpoint.py writes
RUN/metrics.jsonl, tensorboard/, evaluation.json, loss.png, export/
RUN/compiled/             compiled programs, of a run of several processes or in a bucket: compiled.py
RUN/lock.json             who trains there now: input_pipeline/locking.py
"""

import contextlib
import dataclasses
import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

import jax

from bert_jax import config as cfg, extending, versions
from bert_jax.errors import ConfigError, DriftError, require
from bert_jax.model import dropout
from bert_jax.tasks.settings import Finetune, classes_of
from input_pipeline import foreign, records, storage

CONFIG, CHECKPOINTS, LOG, BOARD = 'config.json', 'checkpoints', 'metrics.jsonl', 'tensorboard'
SEGMENTS = 'metrics'  # the folder that is the log in a bucket, see object_log.py
FIGURES, PICTURE, EXPORT = 'evaluation.json', 'loss.png', 'export'
UNTRAINED = 'untrained:'  # before a checkpoint: its model and vocabulary, with initial weights
COPIES = 'copies'  # in FIGURES: the share of what was evaluated on that was learnt from; null: not compared
LOCK = 'lock.json'

# The kinds of run, by the name in config.json: the class of their settings, with model, optimizer, mesh, run, `learns`.
KINDS: dict[str, type] = {'pretrained': cfg.Config, 'finetuned': Finetune}


@dataclasses.dataclass(frozen=True)
class Origin:
  """Where the weights came from that a run began with."""
  checkpoint: str  # the path that was given
  step: int | None  # of the run that it is; None of a directory of another format
  fresh: tuple[str, ...]  # parameters that it lacked, and that were initialised
  longer_positions: str | None = None  # how it got more positions, where it has
  untrained: tuple[str, ...] = ()  # heads that it had with initial values


@dataclasses.dataclass(frozen=True)
class Begun:
  """How a run was begun, for who wants to do so again; nothing goes by it."""
  recipe: str = ''  # or the name of the file of settings; '': a call
  command: str = ''  # the command line; '': a call
  folder: str = ''  # where that was
  versions: dict = dataclasses.field(default_factory=dict)  # {package: version}
  commit: str = ''

  def here(self) -> 'Begun':
    """With the versions that run now."""
    return dataclasses.replace(self, versions=versions.versions(), commit=versions.commit())


@dataclasses.dataclass(frozen=True)
class Record:
  """What config.json says of a run."""
  config: cfg.Config | Finetune
  data: str  # the directory of the shards, or of the task's files
  vocabulary: records.Vocabulary
  origin: Origin | None = None  # None: it began with random weights
  text: str = ''  # one sentence on what it learns from, as it was when the run began
  shards: str = ''  # the fingerprint of what it learns from and is evaluated on: of shards, or of a task's examples
  masks: str = dropout.MASKS  # how dropout's masks are drawn
  begun: Begun | None = None  # None: a run of before this was recorded

  @property
  def kind(self) -> str:
    return next(name for name, settings in KINDS.items() if type(self.config) is settings)


def trained(path: storage.PathLike) -> tuple[storage.PathLike, bool]:
  """(the checkpoint that is named, whether only its model and vocabulary are wanted: untrained:C)."""
  return (path[len(UNTRAINED):], True) if isinstance(path, str) and path.startswith(UNTRAINED) else (path, False)


def check(run_dir: storage.PathLike, record: Record) -> Record | None:
  """What RUN's config.json says; None where no run is there yet. Raises DriftError, ConfigError for what is another's.
  """
  run_dir = storage.path(run_dir)
  if (old := _read(run_dir)) is not None:
    before, wanted = old.config, record.config
    grown = isinstance(before, cfg.Config) and isinstance(wanted, cfg.Config) and wanted.run.steps > before.run.steps
    if isinstance(before, cfg.Config) and grown:  # what else differs is told first
      old = dataclasses.replace(old, config=extending.with_steps(before, wanted.run.steps))
    changes = drift(old, record)
    if changes:
      raise DriftError(f'{run_dir} is a run of another configuration ({"; ".join(changes)}): '
                       'name another --run-dir, or give the settings that it began with')
    if isinstance(wanted, cfg.Config) and grown:
      require_same_past(run_dir, wanted)
    return old
  begun = lambda name: name == LOCK or name.startswith(f'.{CONFIG}.') and name.endswith('.tmp')  # and then killed
  if not storage.is_empty(run_dir) and not (run_dir.is_dir() and all(begun(path.name) for path in run_dir.iterdir())):
    raise ConfigError(f'{run_dir} exists and is no run of ours (it has no {CONFIG}): nothing was written; '
                      'name another --run-dir')
  return None


def require_same_past(run_dir: storage.Path, config: cfg.Config) -> None:
  """Raises DriftError where the steps that a run has done would have been others with more steps to come."""
  before: Any = read(run_dir).config
  folder = run_dir / CHECKPOINTS
  done = max((int(path.name) for path in folder.iterdir() if is_number(path.name)), default=0) if folder.exists() else 0
  if why := extending.why_not(before, config, done):
    raise DriftError(f'{run_dir} has {before.run.steps:,} steps, and cannot go on to run.steps {config.run.steps:,}: '
                     f'{why}; go on in a new phase, with a warmup of its own: --initialize-from {run_dir} and another '
                     '--run-dir')


def open_run(run_dir: storage.PathLike, record: Record, vocabulary_files: Mapping[str, bytes]) -> Record:
  """Makes RUN, or checks that it is this run's; returns what its config.json says. Raises DriftError, ConfigError.

  A directory that holds anything but a run of ours is never written to. A run that is gone on with keeps the origin it
  began with.
  """
  run_dir = storage.path(run_dir)
  if (old := check(run_dir, record)) is not None:
    before = lengths(run_dir)
    if jax.process_index() == 0 and old.config.run.steps != before[-1]:
      extending.write(run_dir, [*before, old.config.run.steps])
    if jax.process_index() == 0 and not (run_dir / CHECKPOINTS).exists():  # a kill may have come before all was there
      write_vocabulary(run_dir, vocabulary_files)
    return old
  if jax.process_index() == 0:
    storage.make_folder(run_dir)
    fields = {'id': uuid.uuid4().hex, 'kind': record.kind} | dataclasses.asdict(record)
    storage.write_whole(run_dir / CONFIG, json.dumps(fields, indent=2) + '\n')  # first: by it the folder is ours
    write_vocabulary(run_dir, vocabulary_files)
  require((run_dir / CONFIG).exists(), f'process {jax.process_index()} does not see the {CONFIG} that process 0 wrote '
          f'to {run_dir}: --run-dir must be on storage that all hosts share, gs:// for one')
  return record


def write_vocabulary(run_dir: storage.Path, files: Mapping[str, bytes]) -> None:
  """Writes the files of the vocabulary that are not there."""
  for name, content in files.items():
    if not (run_dir / name).exists():
      storage.write_whole(run_dir / name, content)


def drift(old: Record, new: Record) -> list[str]:
  """What makes `new` another run than `old`; empty where it may go on there."""
  if old.kind != new.kind:
    return [f'a {old.kind} run -> {new.kind}']
  changes = cfg.drift(old.config, new.config)
  if old.vocabulary != new.vocabulary:
    changes.append(f'vocabulary: SHA-256 {old.vocabulary.sha256[:12]} -> {new.vocabulary.sha256[:12]}')
  if new.origin and (old.origin is None or old.origin.checkpoint != new.origin.checkpoint):
    changes.append(f'initialize-from: {old.origin and old.origin.checkpoint} -> {new.origin.checkpoint}')
  elif new.origin and old.origin and old.origin.longer_positions != new.origin.longer_positions:
    changes.append(f'longer-positions: {old.origin.longer_positions} -> {new.origin.longer_positions}')
  if old.masks != new.masks and (new.config.model.hidden_dropout or new.config.model.attention_dropout):
    changes.append(f'dropout masks: {old.masks} -> {new.masks}, another version of bert_jax\'s: '
                   'go on with that version, or --initialize-from it in a new run')
  return changes


def vocabulary_files(directory: storage.PathLike) -> dict[str, bytes]:
  """The files of the vocabulary that a directory of shards, or a run, holds."""
  directory = storage.path(directory)
  names = (records.VOCABULARY, records.SENTENCEPIECE, records.TOKENIZER)
  found = {}
  for name in names:
    foreign.check_kind(directory / name)
    with contextlib.suppress(FileNotFoundError):
      found[name] = (directory / name).read_bytes()
  return found


def fingerprints(run_dir: storage.PathLike) -> dict[str, str]:
  """SHA-256 of the files that say what a run is, by their names: they never change."""
  run_dir = storage.path(run_dir)
  foreign.check_kind(run_dir / CONFIG)
  files = {CONFIG: (run_dir / CONFIG).read_bytes()} | vocabulary_files(run_dir)
  return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def figures(run_dir: storage.PathLike) -> dict[str, float]:
  """What `bert-jax evaluate` last found; {} where it has not run, or its file is damaged."""
  try:
    found = json.loads((storage.path(run_dir) / FIGURES).read_text())
  except (OSError, ValueError, RecursionError):
    return {}
  return found if isinstance(found, dict) and isinstance(found.get('step'), int) else {}


def is_step(path: storage.PathLike) -> bool:
  """Whether `path` is RUN/checkpoints/STEP."""
  path = storage.path(path)
  return path.parent.name == CHECKPOINTS and is_number(path.name)


def is_number(name: str) -> bool:
  """Whether a name is a step's: a number as we write it."""
  return name.isascii() and name.isdigit() and str(int(name)) == name


def run_of(path: storage.PathLike) -> storage.Path | None:
  """The run directory that `path` is, or that it is a step of; None where it is neither."""
  path = storage.path(path)
  run_dir = path.parent.parent if is_step(path) else path
  foreign.check_kind(run_dir / CONFIG)
  try:
    fields = json.loads((run_dir / CONFIG).read_text())
  except (OSError, ValueError, RecursionError):
    return None
  return run_dir if isinstance(fields, dict) and 'vocabulary' in fields else None


def lengths(run_dir: storage.PathLike) -> list[int]:
  """How many steps a run was to have, from the beginning on; the last is how many it has. Raises ConfigError."""
  return extending.lengths(run_dir) or [read(run_dir).config.run.steps]


def read(run_dir: storage.PathLike) -> Record:
  """What a run is. Raises ConfigError where there is none, or its config.json is damaged."""
  record = _read(run_dir)
  if record is None:
    raise ConfigError(f'{run_dir} is no run directory: it has no {CONFIG}')
  return record


def _read(run_dir: storage.PathLike) -> Record | None:
  path = storage.path(run_dir) / CONFIG
  foreign.check_kind(path)
  try:
    fields = json.loads(path.read_text())
  except (FileNotFoundError, NotADirectoryError):
    return None
  except (IsADirectoryError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
    raise ConfigError(f'{path} is damaged: {type(error).__name__}: {error}') from error
  require(isinstance(fields, dict) and {'kind', 'vocabulary'} <= fields.keys(),
          f'{run_dir} is no run of ours: its {CONFIG} does not say of which kind, and with which vocabulary')
  require(fields['kind'] in tuple(KINDS),
          f'{path} is of a run of the kind {fields["kind"]!r:.40}: wanted one of {", ".join(KINDS)}')
  try:
    kind, settings = KINDS[fields['kind']], fields.get('config')
    narrowed = classes_of(settings) if kind is Finetune and isinstance(settings, dict) else {}
    config = cfg.from_json(kind, settings, narrowed=narrowed)
    if extended := extending.lengths(run_dir):
      config = extending.with_steps(config, extended[-1])
    vocabulary = cfg.from_json(records.Vocabulary, fields['vocabulary'], 'vocabulary.')
    origin = fields.get('origin') and cfg.from_json(Origin, fields['origin'], 'origin.')
    begun = fields.get('begun') and cfg.from_json(Begun, fields['begun'], 'begun.')
    for name, default, what in (('data', None, 'the path of the data'), ('id', '', 'as it was written'),
                                ('text', '', 'as it was written'), ('shards', '', 'as it was written'),
                                ('masks', '', 'as it was written')):
      require(isinstance(fields.get(name, default), str), f'{name} is {fields.get(name)!r:.60}: wanted text, {what}')
  except (ConfigError, RecursionError) as error:
    raise ConfigError(f'{path} is damaged: {error}') from error
  return Record(config, fields['data'], vocabulary, origin or None, fields.get('text', ''), fields.get('shards', ''),
                fields.get('masks', 'lowbias32'), begun or None)  # these masks: of all runs that do not say it
