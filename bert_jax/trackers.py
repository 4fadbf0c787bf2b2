"""Programs of others that follow a run: they get its settings, and the figures of each line of its log.

A thread tells them, so that no step waits for a network. What they fail at is told once, and tried again with a later
line; training goes on. A run that goes on is the same one there, by the fingerprint of its config.json. Where they
keep it and who may write there is theirs to know (WANDB_…, MLFLOW_…): none of that is asked for or written here.
"""

import dataclasses
import math
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from bert_jax.errors import ConfigError
from bert_jax.fields import one_of

PROJECT = 'bert_jax'  # where their own variables name none
ID_LETTERS = 32  # of the fingerprint
NAME_LETTERS = 120  # of the path of the run, its end
MOST_WAITING = 100_000  # lines; later ones are left out
AGAIN_SECONDS = 60.0  # after a failure
CLOSE_SECONDS, STOPPED_SECONDS = 120.0, 5.0  # that the end of a run waits for its last lines; one that is asked to stop
METRICS_A_CALL, SETTINGS_A_CALL, LONGEST_SETTING = 1000, 100, 500  # MLflow's limits
SECRET = re.compile(r'KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL', re.IGNORECASE)  # in the name of a variable
LEAST_SECRET = 6  # letters


@dataclasses.dataclass(frozen=True)
class Followed:
  """A run, as others are told of it."""
  id: str  # the same whenever it goes on
  name: str  # for people
  settings: Mapping[str, Any]
  folder: str | None  # where files of theirs may lie; None: not with the run


@dataclasses.dataclass(frozen=True)
class Line:
  step: int
  figures: dict[str, float]  # {'train/loss': 6.91}
  at: float  # seconds since 1970


class Tracker(Protocol):
  """Made of a Followed, whose run over there it begins, or goes on with. Any call may raise anything."""
  where: str  # for people

  @staticmethod
  def package() -> Any:
    """Imports what it needs. Raises ModuleNotFoundError."""

  def send(self, lines: Iterable[Line]) -> None: ...

  def close(self, ending: str) -> None:
    """`ending`: steps, minutes, signal, or failed."""


class Wandb:
  """Weights & Biases. Without a key nobody is asked for one: files lie here until `wandb sync` sends them."""

  @staticmethod
  def package():
    os.environ.setdefault('WANDB_SILENT', 'true')
    import wandb
    if not hasattr(wandb, 'init'):  # a folder of this name, as it makes them itself, is found as a package too
      raise ModuleNotFoundError("No module named 'wandb'", name='wandb')
    return wandb

  def __init__(self, run: Followed):
    wandb = self.package()
    settings = wandb.Settings(console='off', silent=True, disable_git=True, disable_code=True,
                              disable_job_creation=True)
    mode = os.environ.get('WANDB_MODE')
    if mode is None and not wandb.login(prompt=False, verify=False):
      mode = 'offline'
    self.run = wandb.init(project=os.environ.get('WANDB_PROJECT', PROJECT), id=run.id, name=run.name, resume='allow',
                          dir=os.environ.get('WANDB_DIR', run.folder), mode=mode, settings=settings)
    self.run.config.update(dict(run.settings), allow_val_change=True)
    self.run.define_metric('step')
    self.run.define_metric('*', step_metric='step')  # a run that goes on may tell of a step again
    self.where = self.run.url or f'{self.run.dir}: offline, `wandb sync` sends it'

  def send(self, lines: Iterable[Line]) -> None:
    for line in lines:
      self.run.log(line.figures | {'step': line.step})

  def close(self, ending: str) -> None:
    if ending == 'signal':
      self.run.mark_preempting()
    self.run.finish(exit_code=0 if ending in ('steps', 'minutes') else 1)


class Mlflow:
  """MLflow: the run is found again by a tag."""
  TAG = f'{PROJECT}.run'
  STATUS = {'steps': 'FINISHED', 'minutes': 'FINISHED', 'signal': 'KILLED', 'failed': 'FAILED'}

  @staticmethod
  def package():
    os.environ.setdefault('MLFLOW_LOGGING_LEVEL', 'WARNING')
    import mlflow
    if not hasattr(mlflow, 'MlflowClient'):
      raise ModuleNotFoundError("No module named 'mlflow'", name='mlflow')
    return mlflow

  def __init__(self, run: Followed):
    mlflow = self.package()
    self.entities, self.client = mlflow.entities, mlflow.MlflowClient()
    experiment = os.environ.get('MLFLOW_EXPERIMENT_ID') or self._experiment(
        os.environ.get('MLFLOW_EXPERIMENT_NAME', PROJECT))
    found = self.client.search_runs([experiment], filter_string=f"tags.`{self.TAG}` = '{run.id}'", max_results=1)
    if found:
      self.id = found[0].info.run_id
      self.client.update_run(self.id, status='RUNNING')
    else:
      self.id = self.client.create_run(experiment, tags={self.TAG: run.id}, run_name=run.name).info.run_id
    # Theirs do not change: a setting that a run may change while it goes on stays as it was at first.
    known = found[0].data.params if found else {}
    params = [self.entities.Param(name, str(value)[:LONGEST_SETTING]) for name, value in run.settings.items()
              if name not in known]
    for first in range(0, len(params), SETTINGS_A_CALL):
      self.client.log_batch(self.id, params=params[first:first + SETTINGS_A_CALL])
    self.where = f'run {self.id} of experiment {experiment} in {without_secrets(mlflow.get_tracking_uri())}'

  def _experiment(self, name: str) -> str:
    found = self.client.get_experiment_by_name(name)
    return found.experiment_id if found else self.client.create_experiment(name)

  def send(self, lines: Iterable[Line]) -> None:
    metrics = [self.entities.Metric(name, float(value), int(1000 * line.at), line.step)
               for line in lines for name, value in line.figures.items()]
    for first in range(0, len(metrics), METRICS_A_CALL):
      self.client.log_batch(self.id, metrics=metrics[first:first + METRICS_A_CALL])

  def close(self, ending: str) -> None:
    self.client.set_terminated(self.id, self.STATUS[ending])


TRACKERS: dict[str, type] = {'wandb': Wandb, 'mlflow': Mlflow}  # of the protocol Tracker

if TYPE_CHECKING:
  Name = str
else:
  Name = one_of(TRACKERS)


def require(name: str | None) -> None:
  """Raises ModuleNotFoundError where the package of a tracker is not installed, ConfigError where it is broken."""
  if name is None:
    return
  try:
    TRACKERS[name].package()
  except ModuleNotFoundError:
    raise
  except Exception as error:
    raise ConfigError(f'--log-to {name}: its package cannot be imported ({type(error).__name__}: {error}): mend it, '
                      'or leave the flag out') from error


def without_secrets(text: object) -> str:
  """`text` in one line, with … for the values of variables whose names tell of secrets, and for who logs in in a URL.
  """
  found = re.sub(r'//[^/@\s]+@', '//…@', ' '.join(str(text).split()))
  for name, value in os.environ.items():
    if SECRET.search(name) and len(value) >= LEAST_SECRET:
      found = found.replace(value, '…')
  return found


class Follower:
  """Tells a tracker of a run's lines, from a thread of its own."""

  def __init__(self, name: str, run: Followed, again_seconds: float = AGAIN_SECONDS):
    self.name, self.followed, self.again_seconds = name, run, again_seconds
    self.waiting: list[Line] = []
    self.lost, self.lock = 0, threading.Lock()
    self.tracker: Tracker | None = None
    self.ending: str | None = None  # how the run ended, when it has
    self.told, self.failed_at = False, -math.inf
    self.wake = threading.Event()
    self.wake.set()  # it begins at once
    self.thread = threading.Thread(target=self._run, name=f'log to {name}', daemon=True)
    self.thread.start()

  def write(self, step: int, kind: str, scalars: Mapping[str, float], at: float) -> None:
    """Takes a line of the log, written at a time in seconds since 1970."""
    line = Line(step, {f'{kind}/{name}': value for name, value in scalars.items()}, at)
    with self.lock:
      if len(self.waiting) < MOST_WAITING:
        self.waiting.append(line)
      else:
        self.lost += 1
    self.wake.set()

  def close(self, ending: str) -> None:
    """Waits until all is sent, for a while; what is not is told. `ending`: as Tracker.close has it."""
    self.ending = ending
    self.wake.set()
    self.thread.join(STOPPED_SECONDS if ending == 'signal' else CLOSE_SECONDS)
    if (missing := len(self.waiting) + self.lost) or self.thread.is_alive():
      self._say(f'{missing or "some"} lines of the log did not reach {self.name}')

  def _run(self) -> None:
    ending = None
    while ending is None:
      self.wake.wait()
      self.wake.clear()
      ending = self.ending  # before the lines are looked at: none comes after it
      if ending is None and time.monotonic() < self.failed_at + self.again_seconds:
        continue
      try:
        self._send(ending)
        if self.told:
          self._say(f'{self.name} takes lines again')
        self.told = False
      except Exception as error:  # whatever it is, training goes on
        self.failed_at = time.monotonic()
        if not self.told:
          self._say(f'--log-to {self.name}: {type(error).__name__}: {without_secrets(error):.300}: training goes on, '
                    'and its lines wait')
        self.told = True

  def _send(self, ending: str | None) -> None:
    if self.tracker is None:
      self.tracker = TRACKERS[self.name](self.followed)
      self._say(f'{self.name} has this run as {self.tracker.where}')
    with self.lock:
      lines = list(self.waiting)
    if lines:
      self.tracker.send(lines)
      with self.lock:
        del self.waiting[:len(lines)]
    if ending is not None:
      self.tracker.close(ending)

  def _say(self, text: str) -> None:
    print(f'bert-jax: {text}', file=sys.stderr, flush=True)
