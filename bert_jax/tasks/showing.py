"""Answers for people: a handful of right and wrong ones, and how many there are of each class."""

import collections
from collections.abc import Sequence
from typing import Any

from bert_jax.tasks.task import Answer, Shown, Task

FEW = 3
NOTHING = '(nothing)'
WIDTH = 88  # of a text


def shown(task: Task, examples: Sequence[Any], answers: Sequence[Answer], few: int = FEW) -> str:
  """A few right answers and a few wrong ones, from all over the examples, and counts of each class if it has some."""
  found = [task.shown(example, answer) for example, answer in zip(examples, answers)]
  found = [one for one in found if one.wanted is not None]
  parts = []
  for name, of in (('right', [one for one in found if one.right]), ('wrong', [one for one in found if not one.right])):
    if of:
      parts.append(f'{name}: {len(of):,} of {len(found):,}')
      parts += [line(one) for one in of[::-(-len(of) // few)]]
  return '\n'.join(parts + counts(found))


def line(one: Shown) -> str:
  text = ' '.join(one.text.split())
  text = text if len(text) <= WIDTH else text[:WIDTH - 1] + '…'
  wanted = '' if one.right else f', wanted {one.wanted or NOTHING}'
  return f'  {text}\n    {one.predicted or NOTHING}{wanted}'


def counts(found: Sequence[Shown]) -> list[str]:
  """For each class: how often it was wanted, predicted, and right. None where answers are no classes."""
  wanted, predicted = (collections.Counter(getattr(one, name) for one in found) for name in ('wanted', 'predicted'))
  right = collections.Counter(one.wanted for one in found if one.right)
  names = sorted(wanted | predicted, key=str)
  if not found or len(names) * 4 > len(found) or any(one.right != (one.wanted == one.predicted) for one in found):
    return []
  width = max(5, *(len(str(name)) for name in names))
  return [f'{"class":<{width}}  {"wanted":>7}  {"predicted":>9}  {"right":>7}'] + [
      f'{name:<{width}}  {wanted[name]:>7,}  {predicted[name]:>9,}  {right[name]:>7,}' for name in names]
