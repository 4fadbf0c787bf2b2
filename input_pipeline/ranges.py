"""The range of a setting. It stands once, at the field: its check, its words in errors, --help and docs come of it.

    steps: Annotated[int, Within(1, 10**9)] = 1_000_000
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from input_pipeline.batches.checks import fits, wanted

FLOAT32 = 3e38  # of numbers of 32 bits


@dataclasses.dataclass(frozen=True)
class Within:
  """That a number is from `least` to `greatest`."""
  least: float
  greatest: float
  above: bool = False  # whether `least` itself is outside
  below: bool = False  # whether `greatest` itself is
  wise: float = math.inf  # a greater number is allowed, and surely a mistake

  def holds(self, value: float) -> bool:
    """Of no number it does not."""
    return (self.least < value if self.above else self.least <= value) and (
        value < self.greatest if self.below else value <= self.greatest)

  @property
  def words(self) -> str:
    return (f'{"more than" if self.above else "at least"} {written(self.least)} and '
            f'{"less than" if self.below else "at most"} {written(self.greatest)}')


def written(number: float) -> str:
  return f'{number:,}' if isinstance(number, int) else f'{number:g}'


Count = Annotated[int, Within(1, 10**9)]
CountOrNone = Annotated[int, Within(0, 10**9)]
Size = Annotated[int, Within(1, 2**20)]
Seed = Annotated[int, Within(0, 2**62)]
Share = Annotated[float, Within(0, 1)]
Seconds = Annotated[float, Within(0, 1e9)]


def own_of(kind: Any) -> Within | None:
  """The range that stands at a type itself."""
  extras = typing.get_args(kind)[1:] if typing.get_origin(kind) is Annotated else ()
  return next((extra for extra in extras if isinstance(extra, Within)), None)


def found_in(kind: Any) -> list[Within]:
  """The ranges of the numbers in a field of this type: one, or of a tuple's items several."""
  own = own_of(kind)
  return [own] if own else [found for part in typing.get_args(kind) for found in found_in(part)]


def tuple_in(kind: Any) -> Any:
  """The type of a tuple that a field has, or may have; None where it has none."""
  return kind if typing.get_origin(kind) is tuple else next(filter(None, map(tuple_in, typing.get_args(kind))), None)


def numbers(value: Any, kind: Any) -> Iterator[tuple[Any, Any]]:
  """Each number of a value of this type, or what stands in its place, with its own type."""
  origin, parts = typing.get_origin(kind), typing.get_args(kind)
  if value is None or isinstance(value, str) and value in choices(kind):
    return
  if own_of(kind):
    yield value, kind
  elif origin is tuple and isinstance(value, tuple):
    for item, part in zip(value, parts[:1] * len(value) if parts[-1] is Ellipsis else parts):
      yield from numbers(item, part)
  elif origin in (Annotated, types.UnionType, typing.Union):
    for part in parts[:1] if origin is Annotated else parts:
      yield from numbers(value, part)


def choices(kind: Any) -> tuple[str, ...]:
  """The words that a field of this type may be in place of a number."""
  if typing.get_origin(kind) is typing.Literal:
    return typing.get_args(kind)
  return tuple(word for part in typing.get_args(kind) for word in choices(part))


def of(settings: Any) -> dict[str, tuple[Any, Within]]:
  """{field: (its type, its range, of several the first)} of a dataclass, or of one of its values."""
  kind = settings if isinstance(settings, type) else type(settings)
  hints = typing.get_type_hints(kind, include_extras=True)
  named = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
  return {name: (hint, found[0]) for name, hint in named.items() if (found := found_in(hint))}


def words(kind: Any) -> str:
  """'a whole number, at least 1 and at most 5'; of several numbers in turn."""
  every = ', then '.join(within.words for within in found_in(kind))
  return f'{wanted(kind)}, {every}' if every else wanted(kind)


def check(settings: Any, prefix: str, error: type[Exception], name: Callable[[str], str] = str) -> None:
  """Raises `error`, in a sentence, where a field of a dataclass is outside its range, or of another type."""
  for field, (kind, _) in of(settings).items():
    value = getattr(settings, field)
    strange = [number for number, own in numbers(value, kind)
               if not fits(number, own) or not found_in(own)[0].holds(number)]
    if strange or not fits(value, kind):
      has, shown = ('has', strange[0]) if strange and isinstance(value, tuple) else ('is', value)
      text = f'{shown!r:.60}' if isinstance(shown, str | tuple) else f'{shown!s:.60}'
      raise error(f'{name(prefix + field)} {has} {text}: wanted {words(kind)}')


def unwise(settings: Any, prefix: str = '') -> Iterator[str]:
  """A sentence for each number, also of settings within these, that is allowed and surely a mistake."""
  for field, (kind, _) in of(settings).items():
    for value, own in numbers(getattr(settings, field), kind):
      if value > (within := found_in(own)[0]).wise:
        yield f'{prefix}{field} is {written(value)}: more than {written(within.wise)} is surely a mistake'
  for one in dataclasses.fields(settings):
    value = getattr(settings, one.name)
    if dataclasses.is_dataclass(value):
      yield from unwise(value, f'{prefix}{one.name}.')
