"""Every expected error, and the exit code that it ends a command with. Imports nothing of ours."""

from collections.abc import Callable

# Exit codes of no error.
STOPPED = 3  # asked to stop, and saved
UNSAVED = 4  # asked to stop before there was anything new to save
HUNG = 5  # stuck: nothing happened for longer than run.hang_minutes
GAVE_UP = 9  # of `supervise`: restarts brought nothing new

# The codes that come again however often a command is started again: a bug, wrong settings or damaged files, a loss
# that is not finite, another run's directory.
FINAL = 1, 2, 6, 8


class ConfigError(ValueError):
  """A setting that cannot work; the message names the field, what was found and what is wanted."""
  exit_code = 2


class SeveralError(ConfigError):
  """Several things that are wrong, so that all can be mended at once."""

  def __init__(self, sentences: list[str]):
    super().__init__(f'{len(sentences)} things are wrong: '
                     + '; '.join(f'({number}) {sentence}' for number, sentence in enumerate(sentences, 1)))
    self.sentences = sentences


class DriftError(ConfigError):
  """A run directory that belongs to another configuration or to other data."""
  exit_code = 8


class NonFiniteError(RuntimeError):
  """Steps in a row whose loss or gradient was not finite."""
  exit_code = 6


class CheckpointError(RuntimeError):
  """Checkpoints that cannot be written or read."""
  exit_code = 7


class DamageError(CheckpointError):
  """Files that are not what was written, and nothing sound in their place: no restart mends it."""
  exit_code = 2


class PeerError(RuntimeError):
  """Another process of the run failed where this one did not."""
  exit_code = 13


class CorruptionError(RuntimeError):
  """Devices that disagree on what they should all have: hardware at fault. A restart goes on from what was sound."""
  exit_code = 13


def require(condition: bool, message: str) -> None:
  """Raises ConfigError with `message` where `condition` does not hold: the one idiom of checking settings."""
  if not condition:
    raise ConfigError(message)


def together(*checks: Callable[[], object]) -> None:
  """Calls every check; raises what one of them raised, or a SeveralError of all that is wrong."""
  found: list[Exception] = []
  for check in checks:
    try:
      check()
    except Exception as error:
      if getattr(error, 'exit_code', None) != ConfigError.exit_code:
        raise
      found.append(error)
  if len(found) == 1:
    raise found[0]
  sentences = [sentence for error in found for sentence in getattr(error, 'sentences', [str(error)])]
  if sentences:
    raise SeveralError(list(dict.fromkeys(sentences)))
