"""A run's directory: what is in it, what kind of run it is, and whether a command may go on in it.

RUN/config.json           the kind of run, its settings, data, vocabulary, and where its weights came from; written once
RUN/vocab.txt, spm.model  the vocabulary, so that the run can be used without its data
RUN/checkpoints/STEP/     what checkpoint.py writes
RUN/metrics.jsonl, tensorboard/, evaluation.json, loss.png, export/
"""

import dataclasses
import json
from collections.abc import Mapping

import jax
from etils import epath

from bert_jax import config as cfg
from bert_jax.errors import ConfigError, DriftError, require
from bert_jax.tasks.settings import Finetune
from input_pipeline import records

CONFIG, CHECKPOINTS, LOG, BOARD = 'config.json', 'checkpoints', 'metrics.jsonl', 'tensorboard'
FIGURES, PICTURE, EXPORT = 'evaluation.json', 'loss.png', 'export'

# The kinds of run, by the name in config.json: the class of their settings, with model, optimizer, mesh, run, `learns`.
KINDS: dict[str, type] = {'pretrained': cfg.Config, 'finetuned': Finetune}


@dataclasses.dataclass(frozen=True)
class Origin:
  """Where the weights came from that a run began with."""
  checkpoint: str  # the path that was given
  step: int | None  # of the run that it is; None of a directory of another format
  fresh: tuple[str, ...]  # parameters that it lacked, and that were initialised


@dataclasses.dataclass(frozen=True)
class Record:
  """What config.json says of a run."""
  config: cfg.Config | Finetune
  data: str  # the directory of the shards, or of the task's files
  vocabulary: records.Vocabulary
  origin: Origin | None = None  # None: it began with random weights

  @property
  def kind(self) -> str:
    return next(name for name, settings in KINDS.items() if type(self.config) is settings)


def open_run(run_dir: epath.PathLike, record: Record, vocabulary_files: Mapping[str, bytes]) -> Record:
  """Makes RUN, or checks that it is this run's; returns what its config.json says. Raises DriftError, ConfigError.

  A directory that holds anything but a run of ours is never written to. A run that is gone on with keeps the origin it
  began with.
  """
  run_dir = epath.Path(run_dir)
  if (run_dir / CONFIG).exists():
    old = read(run_dir)
    changes = drift(old, record)
    if changes:
      raise DriftError(f'{run_dir} is a run of another configuration ({"; ".join(changes)}): '
                       'name another --run-dir, or give the settings that it began with')
    return old
  if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
    raise ConfigError(f'{run_dir} exists and is no run of ours (it has no {CONFIG}): nothing was written; '
                      'name another --run-dir')
  if jax.process_index() == 0:
    run_dir.mkdir(parents=True, exist_ok=True)
    for name, content in vocabulary_files.items():
      (run_dir / name).write_bytes(content)
    write_whole(run_dir / CONFIG, json.dumps({'kind': record.kind} | dataclasses.asdict(record), indent=2) + '\n')
  require((run_dir / CONFIG).exists(), f'process {jax.process_index()} does not see the {CONFIG} that process 0 wrote '
          f'to {run_dir}: --run-dir must be on storage that all hosts share, gs:// for one')
  return record


def drift(old: Record, new: Record) -> list[str]:
  """What makes `new` another run than `old`; empty where it may go on there."""
  if old.kind != new.kind:
    return [f'a {old.kind} run -> {new.kind}']
  changes = cfg.drift(old.config, new.config)
  if old.vocabulary != new.vocabulary:
    changes.append(f'vocabulary: SHA-256 {old.vocabulary.sha256[:12]} -> {new.vocabulary.sha256[:12]}')
  if new.origin and (old.origin is None or old.origin.checkpoint != new.origin.checkpoint):
    changes.append(f'initialize-from: {old.origin and old.origin.checkpoint} -> {new.origin.checkpoint}')
  return changes


def vocabulary_files(directory: epath.PathLike) -> dict[str, bytes]:
  """The files of the vocabulary that a directory of shards, or a run, holds."""
  directory = epath.Path(directory)
  names = (records.VOCABULARY, records.SENTENCEPIECE)
  return {name: (directory / name).read_bytes() for name in names if (directory / name).exists()}


def write_whole(path: epath.Path, text: str) -> None:
  """Writes a file whose old content stays until the new one is whole."""
  temporary = path.parent / (path.name + '.tmp')
  temporary.write_text(text)
  temporary.replace(path)


def figures(run_dir: epath.PathLike) -> dict[str, float]:
  """What `bert-jax evaluate` last found; {} where it has not run, or its file is damaged."""
  try:
    found = json.loads((epath.Path(run_dir) / FIGURES).read_text())
  except (OSError, ValueError):
    return {}
  return found if isinstance(found, dict) else {}


def is_step(path: epath.PathLike) -> bool:
  """Whether `path` is RUN/checkpoints/STEP."""
  path = epath.Path(path)
  return path.parent.name == CHECKPOINTS and path.name.isdigit()


def run_of(path: epath.PathLike) -> epath.Path | None:
  """The run directory that `path` is, or that it is a step of; None where it is neither."""
  path = epath.Path(path)
  run_dir = path.parent.parent if is_step(path) else path
  try:
    fields = json.loads((run_dir / CONFIG).read_text())
  except (OSError, ValueError):
    return None
  return run_dir if isinstance(fields, dict) and 'vocabulary' in fields else None


def read(run_dir: epath.PathLike) -> Record:
  """What a run is. Raises ConfigError where there is none, or its config.json is damaged."""
  path = epath.Path(run_dir) / CONFIG
  require(path.exists(), f'{run_dir} is no run directory: it has no {CONFIG}')
  try:
    fields = json.loads(path.read_text())
    config = cfg.from_json(KINDS[fields['kind']], fields['config'])
    origin = fields['origin'] and Origin(**(fields['origin'] | {'fresh': tuple(fields['origin']['fresh'])}))
    return Record(config, fields['data'], records.Vocabulary(**fields['vocabulary']), origin)
  except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
    raise ConfigError(f'{path} is damaged: {type(error).__name__}: {error}') from error
