"""What can be wrong with text, shards or their settings, and the exit code of a command then. Imports nothing."""


class DataError(ValueError):
  """Input, shards, a manifest or a vocabulary that cannot be used; the message says what was found and wanted."""
  exit_code = 2
