"""`bert-jax` as it is where some packages are not installed: without.py PACKAGE,… ARGUMENT …"""

import sys


class Without:
  """A finder of modules that does not find some."""

  def __init__(self, finder, absent: set[str]):
    self.finder, self.absent = finder, absent

  def find_spec(self, name: str, path=None, target=None):
    parents = {name[:at] for at, letter in enumerate(name) if letter == '.'}
    return None if self.absent & {name, *parents} else self.finder.find_spec(name, path, target)

  def __getattr__(self, name: str):
    return getattr(self.finder, name)


if __name__ == '__main__':
  absent = set(sys.argv.pop(1).split(','))
  sys.meta_path[:] = [Without(finder, absent) for finder in sys.meta_path]
  sys.argv[0] = 'bert-jax'
  from launch import cli
  cli.main()
