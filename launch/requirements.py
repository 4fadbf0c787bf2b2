"""What the installed package wants beside itself, with some of its extras: a line each, for a layer of an image that
lasts as long as they do.

    python -m launch.requirements input,tpu > requirements.txt
"""

import importlib.metadata
import re
import sys

PACKAGE = 'bert_jax'
EXTRA = re.compile(r'''\s*(?:and\s*)?\(?extra\s*==\s*["']([^"']+)["']\)?''')


def of(extras: list[str]) -> list[str]:
  """The requirements, with markers of machines. Raises ValueError where there is no such extra."""
  metadata = importlib.metadata.metadata(PACKAGE)
  known = [name.lower().replace('_', '-') for name in metadata.get_all('Provides-Extra') or ()]
  unknown = [extra for extra in extras if extra not in known]
  if unknown:
    raise ValueError(f'there is no extra {", ".join(unknown)}: wanted some of {", ".join(known)}')
  found = []
  for line in importlib.metadata.requires(PACKAGE) or ():
    extra = EXTRA.search(line)
    if extra is None or extra[1].lower().replace('_', '-') in extras:
      found.append(EXTRA.sub('', line).rstrip().rstrip(';').rstrip())
  return sorted(set(found))


if __name__ == '__main__':
  print('\n'.join(of([extra for extra in sys.argv[1].split(',') if extra])))
