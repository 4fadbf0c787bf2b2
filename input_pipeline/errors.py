"""What can be wrong with text, shards, their settings or their storage, and the exit code of a command then. Imports
nothing."""


class DataError(ValueError):
  """Input, shards, a manifest or a vocabulary that cannot be used; the message says what was found and wanted."""
  exit_code = 2


class StorageError(RuntimeError):
  """Storage that fails where it was there before, after retries; no OSError, as a file that is missing is one."""
  exit_code = 7


class RefusedError(StorageError):
  """Storage that refuses, as for want of a right: the same would come of it again."""
  exit_code = 2


class LockError(RuntimeError):
  """A directory in which another process is at work."""
  exit_code = 2


class EngineError(RuntimeError):
  """A cluster, or what runs on it, that failed in a way of its own; the message names the file with all it said."""
  exit_code = 7
