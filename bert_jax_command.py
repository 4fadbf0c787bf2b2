"""The `bert-jax` command, by a name that nobody else has: packages called `launch` or `input_pipeline` may be others'.

ROS 2, for one, puts a `launch` on PYTHONPATH, before all that pip installs. Ours are imported here first, and stay.
"""

import importlib
import os
import sys

HOUSE = os.path.dirname(os.path.abspath(__file__))
ROOMS = 'bert_jax', 'input_pipeline', 'launch', 'launch.cli'
STRANGER = 2  # the exit code


def bring_rooms() -> None:
  """Imports the packages that lie beside this file. A stranger in their place ends the process with a sentence."""
  sys.path.insert(0, HOUSE)
  for name in ROOMS:
    try:
      file = importlib.import_module(name).__file__ or ''
    except Exception as error:
      file = f'what is there ({type(error).__name__}: {error})'
    if not file.startswith(HOUSE + os.sep):
      print(f'bert-jax: {file} is not the {name} of bert_jax: another package has its name; install bert_jax into an '
            'environment of its own', file=sys.stderr)
      sys.exit(STRANGER)
  sys.path.remove(HOUSE)


bring_rooms()  # at once: processes that this one starts import this file too


def start() -> None:
  """The console command."""
  from launch import cli
  cli.start()


if __name__ == '__main__':
  start()
