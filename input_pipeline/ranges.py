"""The range of a setting. It stands once, at the field: its check, its words in errors, --help and docs come of it.

    steps: Annotated[int, Within(1, 10**9)] = 1_000_000
"""

import dataclasses
import math
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


def found_in(kind: Any) -> Within | None:
  """The range of a field of this type, of each of its items where it has several."""
  extras = typing.get_args(kind)[1:] if typing.get_origin(kind) is Annotated else ()
  own = next((extra for extra in extras if isinstance(extra, Within)), None)
  return own or next((found for part in typing.get_args(kind) if (found := found_in(part))), None)


def choices(kind: Any) -> tuple[str, ...]:
  """The words that a field of this type may be in place of a number."""
  if typing.get_origin(kind) is typing.Literal:
    return typing.get_args(kind)
  return tuple(word for part in typing.get_args(kind) for word in choices(part))


def of(settings: Any) -> dict[str, tuple[Any, Within]]:
  """{field: (its type, its range)} of a dataclass, or of one of its values."""
  kind = settings if isinstance(settings, type) else type(settings)
  hints = typing.get_type_hints(kind, include_extras=True)
  named = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
  return {name: (hint, within) for name, hint in named.items() if (within := found_in(hint))}


def words(kind: Any, within: Within) -> str:
  """'a whole number, at least 1 and at most 5'."""
  return f'{wanted(kind)}, {within.words}'


def check(settings: Any, prefix: str, error: type[Exception], name: Callable[[str], str] = str) -> None:
  """Raises `error`, in a sentence, where a field of a dataclass is outside its range, or of another type."""
  for field, (kind, within) in of(settings).items():
    value = getattr(settings, field)
    numbers = value if isinstance(value, tuple) else (value,)
    if not fits(value, kind) or not all(number is None or isinstance(number, str) or within.holds(number)
                                      for number in numbers):
      shown = f'{value!r:.60}' if isinstance(value, str | tuple) else f'{value!s:.60}'
      raise error(f'{name(prefix + field)} is {shown}: wanted {words(kind, within)}')


def unwise(settings: Any, prefix: str = '') -> Iterator[str]:
  """A sentence for each number, also of settings within these, that is allowed and surely a mistake."""
  for field, (_, within) in of(settings).items():
    value = getattr(settings, field)
    if isinstance(value, int | float) and value > within.wise:
      yield f'{prefix}{field} is {written(value)}: more than {written(within.wise)} is surely a mistake'
  for one in dataclasses.fields(settings):
    value = getattr(settings, one.name)
    if dataclasses.is_dataclass(value):
      yield from unwise(value, f'{prefix}{one.name}.')
