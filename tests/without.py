"""`bert-jax` as it is where some packages are not installed: without.py PACKAGE,… ARGUMENT … [+ ARGUMENT …]

REQUEST_SECONDS of the environment: the time without an answer after which a request counts as lost.

Commands with a + between them run in one process, which imports once; what each says is a line of JSON on stdout.
"""

import contextlib
import io
import json
import os
import sys
import time
import traceback


class Without:
  """A finder of modules that does not find some."""

  def __init__(self, finder, absent: set[str]):
    self.finder, self.absent = finder, absent

  def find_spec(self, name: str, path=None, target=None):
    parents = {name[:at] for at, letter in enumerate(name) if letter == '.'}
    return None if self.absent & {name, *parents} else self.finder.find_spec(name, path, target)

  def __getattr__(self, name: str):
    return getattr(self.finder, name)


def one(argv: list[str]) -> dict[str, object]:
  """What a command ends with and says."""
  from launch import cli
  out, errors, code, begin = io.StringIO(), io.StringIO(), 1, time.monotonic()
  sys.argv = ['bert-jax', *argv]
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
    try:
      cli.main()
    except SystemExit as end:
      code = end.code or 0
    except Exception:
      traceback.print_exc()
  return {'code': code, 'out': out.getvalue(), 'errors': errors.getvalue(), 'seconds': time.monotonic() - begin}


if __name__ == '__main__':
  absent = set(sys.argv.pop(1).split(','))
  sys.meta_path[:] = [Without(finder, absent) for finder in sys.meta_path]
  if seconds := os.environ.get('REQUEST_SECONDS'):
    from input_pipeline import storage_answers
    storage_answers.REQUEST_SECONDS = int(seconds)
  if '+' not in sys.argv:
    from launch import cli
    sys.argv[0] = 'bert-jax'
    cli.main()
  commands: list[list[str]] = [[]]
  for argument in sys.argv[1:]:
    if argument == '+':
      commands.append([])
    else:
      commands[-1].append(argument)
  for argv in filter(None, commands):
    print(json.dumps(one(argv)), flush=True)
