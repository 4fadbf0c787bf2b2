"""docs/settings.md: the range of every number of every command, from where the settings are defined.

    python -m launch.settings_page > docs/settings.md
"""

import dataclasses
import typing
from collections.abc import Iterator

from input_pipeline import ranges
from input_pipeline.vocabulary.training import VocabularySettings
from launch.commands import flags, measuring, planning, pretraining, supervising, text, training, using

COMMANDS = {
    'vocabulary': VocabularySettings, 'prepare': text.PrepareCommand, 'inspect': text.Inspect,
    'pretrain': pretraining.Pretrain, 'finetune': training.FinetuneCommand, 'supervise': supervising.Supervise,
    'evaluate': training.Evaluate, 'predict': training.Predict, 'plan': planning.Plan,
    'benchmark step': measuring.BenchmarkStep, 'benchmark input': measuring.BenchmarkInput,
    'benchmark tasks': measuring.BenchmarkTasks, 'fill-mask': using.FillMask, 'features': using.Features,
    'score': using.Score, 'next-sentence': using.NextSentence}
HEAD = '''# Settings that are numbers

Each is checked before anything is built or written; one outside its range ends a command with 2 and a sentence. A
number above the last column is allowed, surely a mistake, and told. `--help` shows the same, with what each is for.
This page is written by `python -m launch.settings_page`.
'''


def numbers(kind: type, before: str = '') -> Iterator[tuple[str, str, str]]:
  """(flag, range, beyond which it is surely a mistake) of a class of settings and of those within it."""
  hints, known = typing.get_type_hints(kind), ranges.of(kind)
  for field in dataclasses.fields(kind):
    if dataclasses.is_dataclass(hints[field.name]):
      yield from numbers(hints[field.name], before if field.name in flags.NAMELESS else f'{before}{field.name}.')
    elif field.name in known:
      hint, within = known[field.name]
      wise = '' if within.wise == float('inf') else ranges.written(within.wise)
      yield flags.flag(before + field.name), ranges.words(hint), wise


def page() -> str:
  """Each flag once, with the commands that have it."""
  found: dict[tuple[str, str, str], list[str]] = {}
  for command, kind in COMMANDS.items():
    for row in numbers(kind):
      found.setdefault(row, []).append(command)
  lines = [f'| `{name}` | {", ".join(commands)} | {words} | {wise} |'
           for (name, words, wise), commands in sorted(found.items())]
  return '\n'.join([HEAD, '| flag | of | range | surely a mistake above |', '|---|---|---|---|', *lines, ''])


if __name__ == '__main__':
  print(page(), end='')
