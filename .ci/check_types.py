#!/usr/bin/env python3
"""Checks the types of the files that mypy.ini lists: all must exist and be clean.

With --grow, writes a new list, of every file that is clean.
"""

import configparser
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
SETTINGS = ROOT / 'mypy.ini'
PACKAGES = 'bert_jax', 'input_pipeline', 'launch'


def listed() -> list[str]:
  settings = configparser.ConfigParser()
  settings.read(SETTINGS, encoding='utf-8')
  return [name.strip() for name in settings['mypy']['files'].replace('\n', ',').split(',') if name.strip()]


def errors() -> dict[str, list[str]]:
  """{path: lines} of what mypy finds in all packages. Ends the program where mypy itself fails."""
  done = subprocess.run([sys.executable, '-m', 'mypy', *PACKAGES], cwd=ROOT, capture_output=True, text=True)
  found: dict[str, list[str]] = {}
  for line in done.stdout.splitlines():
    if match := re.match(r'([^:]+\.py):\d+: error:', line):
      found.setdefault(match[1], []).append(line)
  if done.returncode not in (0, 1) or (done.returncode == 1 and not found):
    sys.exit(f'mypy failed:\n{done.stdout}{done.stderr}')
  return found


def main() -> None:
  found, names = errors(), listed()
  every = sorted(str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob('*.py'))
  clean = [name for name in every if name not in found]
  if sys.argv[1:] == ['--grow']:
    text = SETTINGS.read_text(encoding='utf-8')
    head, _, _ = text.partition('files =')
    SETTINGS.write_text(head + 'files =\n' + ',\n'.join(f'  {name}' for name in clean) + '\n', encoding='utf-8')
  else:
    wrong = [line for name in names for line in found.get(name, [])]
    lost = [name for name in names if name not in every]
    wrong += [f'{SETTINGS.name} lists {name}, which does not exist: .ci/check_types.py --grow' for name in lost]
    if wrong or not names:
      sys.exit('\n'.join(wrong) or f'{SETTINGS.name} lists no file')
  new = [] if sys.argv[1:] else [name for name in clean if name not in names]
  print(f'types: {len(clean)} of {len(every)} files are clean' + (f', not listed: {" ".join(new)}' if new else ''))


if __name__ == '__main__':
  main()
