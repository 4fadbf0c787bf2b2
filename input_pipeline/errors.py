"""What can be wrong with text, shards or their settings, and the exit code that it ends a command with.

Imports nothing.
"""


class DataError(ValueError):
  """Input, shards, a manifest or a vocabulary that cannot be used; the message says what was found and what was wanted.
  """
  exit_code = 2
