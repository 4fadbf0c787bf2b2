"""What the subcommands share: settings from flags, recipes by name, and tables for people."""

import contextlib
import dataclasses
import functools
import io
import json
import os
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import tyro
from tyro import constructors

from bert_jax.errors import ConfigError, require, together
from bert_jax.fields import flat
from input_pipeline import ranges
from input_pipeline.errors import DataError
from launch.commands import names
from launch.commands.names import NAMELESS, flag

WIDTH = 120  # columns of what is printed
BOX = 100_000  # columns, when it is not for people
SET_IN = 4 * ' '
COLOURS = re.compile('\x1b\\[[0-9;]*m')
UNKNOWN = 'Unrecognized options: '
WANTED = 'Argument helptext:'  # and then the flag, and on another line what it is for
TYROS = {'Perhaps you meant:': 'did you mean', WANTED: 'wanted'}
# What happens only in a run: no other command that takes a recipe's settings does it.
ONLY_IN_A_RUN = tuple(f'run.{name}' for name in (
    'max_minutes', 'checkpoint_every', 'keep_checkpoints', 'log_every', 'evaluate_every', 'evaluation_rows'))


def parse(kind, argv: list[str], command: str, default=None, check: Callable[[object], dict[str, str]] | None = None):
  """The dataclass `kind` from flags; --help shows every field. Raises ConfigError on a wrong flag.

  `check` raises ConfigError for settings that cannot work, and tells which flags change nothing beside the others, as
  in {'compiled_peer': 'without --peer'}. One of these that was given raises ConfigError too: something was meant by it.
  So does a number outside its range, and an empty text where some text is meant; what is surely a mistake is told.
  """
  extra = {} if default is None else {'default': default}
  wrong: list[Exception] = []
  with in_a_sentence(command, argv, lambda: names.meant(argv, kind, default)):
    words = spelled_out(argv, names.switches(kind))
    settings: Any = tyro.cli(kind, args=words, prog=f'bert-jax {command}', registry=with_ranges(wrong),
                             **extra)
  together(*(functools.partial(fail, error) for error in wrong))
  require_values(settings)
  for sentence in ranges.unwise(settings):
    print(f'bert-jax: {sentence.removeprefix("config.").removeprefix("own.")}', file=sys.stderr, flush=True)
  for name, why in (check(settings) if check else {}).items():
    for field, value in changed(settings, default, name).items():
      raise ConfigError(f'{flag(field)} {value} changes nothing {why}: leave it out')
  return settings


@contextlib.contextmanager
def in_a_sentence(command: str, argv: list[str], meant: Callable[[], str]):
  """In which tyro ends by a ConfigError where it would draw a box of lines on standard error, as wide as the terminal.

  `meant`: () -> what flags that do not exist may have meant, which is said in the first place.
  """
  columns, said = os.environ.get('COLUMNS'), io.StringIO()
  if not {'-h', '--help'} & set(argv):
    os.environ['COLUMNS'] = str(BOX)  # so that no value is cut into lines
  try:
    with contextlib.redirect_stderr(said):
      yield
  except SystemExit as ended:
    if ended.code:
      found = sentence_of(said.getvalue(), argv)
      first = '' if TYROS['Perhaps you meant:'] in found else meant()
      raise ConfigError(f'{first and f"{first} "}{found}; `bert-jax {command} --help` tells of all') from None
    raise
  finally:
    os.environ.pop('COLUMNS', None) if columns is None else os.environ.update(COLUMNS=columns)


def sentence_of(box: str, argv: list[str]) -> str:
  """What a box of tyro's says of these words: parts between rules, in which flags are set in, and further what they
  are for."""
  lines = [line.removesuffix('│').rstrip() for line in COLOURS.sub('', box).splitlines()]
  parts: list[list[list[str]]] = [[['']]]  # of each part its first words, then of each flag what it takes, and help
  for line in (line[2:] for line in lines[1:] if not line.startswith('╰')):  # below the title, and right of the side
    if not line.strip(' ─-'):
      parts.append([['']])
    elif not line.startswith(SET_IN):
      parts[-1][0][0] += f' {line}'
    elif not line.startswith(2 * SET_IN):
      parts[-1].append([line.strip()])
    else:
      parts[-1][-1].append(line.strip())
  first, *others = [part for part in parts if part != [['']] and 'For full helptext' not in part[0][0]]
  required = [f'{flag} ({" ".join(about).removesuffix(" (required)")})' for flag, *about in first[1:]]
  more = []
  for (said,), *listed in others:
    many = listed if said.strip() != WANTED else listed[:1]
    more.append(f'{TYROS.get(said.strip(), said.strip())} {" or ".join(flag for flag, *_ in many)}')
  words = f'{first[0][0].strip().rstrip(".")} {", ".join(required)}'.strip()
  spelled = [COLOURS.sub('', part) for word in argv
             for part in (word.split('=', 1) if word.startswith('--') else [word])]
  if (strange := words.removeprefix(UNKNOWN).partition(', ')[0]) in spelled and not strange.startswith('-'):
    before = [word for word in spelled[:spelled.index(strange)] if word.startswith('--')]
    words += f', after {before[-1]}, which takes no more' if before else ''
  return '; '.join([words[:1].lower() + words[1:], *more])


def with_ranges(wrong: list[Exception]) -> constructors.ConstructorRegistry:
  """By which tyro shows the range of each number beside its default, and leaves to the settings what is none.

  `wrong` gets what settings raise, which tyro would put in a box of lines: they are Broken then.
  """
  registry, within = constructors.ConstructorRegistry(), []

  @registry.struct_rule
  def rule(info: constructors.StructTypeInfo):
    if within or not dataclasses.is_dataclass(info.type):
      return None
    within.append(info)
    try:
      found: Any = constructors.ConstructorRegistry.get_struct_spec(info)
    finally:
      within.pop()
    known = ranges.of(info.type)
    fields = [dataclasses.replace(field, type=with_range(known[field.name][0])) if field.name in known
              else field for field in found.fields]
    return dataclasses.replace(found, fields=tuple(fields), instantiate=refusing(found.instantiate, wrong))

  return registry


class Broken:
  """In the place of settings that cannot work."""


def refusing(make: Callable, wrong: list[Exception]) -> Callable:
  """`make`, whose ConfigError or DataError goes to `wrong`."""
  def made(*args, **kwargs):
    if any(isinstance(part, Broken) for part in (*args, *kwargs.values())):
      return Broken()
    try:
      return make(*args, **kwargs)
    except (ConfigError, DataError) as error:
      wrong.append(error)
      return Broken()
  return made


def fail(error: Exception) -> None:
  raise error


def with_range(hint):
  """The type of a field with numbers that have ranges, for tyro."""
  every = ', then '.join(within.words for within in ranges.found_in(hint))
  return Annotated[loosened(hint), tyro.conf.arg(help_behavior_hint=lambda default: f'(default: {default}; {every})')]


def loosened(kind):
  """A type whose numbers tyro takes as any words; a tuple's one by one."""
  optional, many = ranges.fits(None, kind), ranges.tuple_in(kind)
  if many:
    items = tuple[*(part if part is Ellipsis else loosened(part) for part in typing.get_args(many))]
    return items | None if optional else items
  number = int if not ranges.fits(0.5, kind) else float
  choices = [*(['None'] if optional else []), *ranges.choices(kind)]
  return Annotated[kind, constructors.PrimitiveConstructorSpec(
      nargs=1, metavar=(f'{{{",".join(choices)}}}|' if choices else '') + number.__name__.upper(),
      instance_from_str=lambda words: None if optional and words[0] == 'None' else number_of(words[0], number),
      is_instance=lambda _: True, str_from_instance=lambda value: [str(value)])]


def number_of(word: str, number: type) -> float | str:
  """The number that a word is, or the word, which the check of the settings then names."""
  try:
    return number(word)
  except ValueError:
    return word


def require_values(settings, before: str = '') -> None:
  """Raises ConfigError for a number outside its range, and for an empty text where some text is meant; of settings that
  look at themselves as they are made that is done. `before`: of the names of their flags, as in 'batch.'."""
  ranges.check(settings, before, ConfigError, flag)
  for field in dataclasses.fields(settings):
    value = getattr(settings, field.name)
    require(value != '' or field.default == '', f'{flag(before + field.name)} is empty: wanted a text')
    if dataclasses.is_dataclass(value) and not hasattr(value, '__post_init__'):
      require_values(value, before if field.name in NAMELESS else f'{before}{field.name}.')


def changed(settings, default, name: str) -> dict[str, object]:
  """{'long.size': 64}: the settings with this name, or this name and a dot in front, that differ from the default."""
  usual = named(flat(default) if default is not None else defaults(type(settings)))
  belongs = lambda field: field == name or field.startswith(f'{name}.')
  given = named(flat(settings))
  return {field: value for field, value in given.items() if belongs(field) and value != usual.get(field)}


def defaults(kind) -> dict[str, object]:
  """The default of every setting that has one."""
  found = {}
  for field in dataclasses.fields(kind):
    if dataclasses.is_dataclass(field.default):
      found |= flat(field.default, f'{field.name}.')
    else:
      found[field.name] = field.default
  return found


def named(values: dict[str, object]) -> dict[str, object]:
  """By the names that flags have: those of a recipe stand without `config.` in front, a task's own without `own.`."""
  return {name.removeprefix('config.').removeprefix('own.'): value for name, value in values.items()}


def spelled_out(argv: list[str], switches: Mapping[str, tuple[str, bool]]) -> list[str]:
  """`--mesh auto`, `--grid` and the `switches` (names.switches) as the flags that they stand for."""
  words: list[str] = []
  for word, following in zip(argv, [*argv[1:], '']):
    if (known := switches.get(word.replace('_', '-'))) and following not in ('None', 'True', 'False'):
      words += [known[0], str(known[1])]
      continue
    if word == '--grid':
      from bert_jax.tasks.settings import PAPER
      for field in dataclasses.fields(PAPER):
        words += [f'--grid.{field.name}', *map(str, getattr(PAPER, field.name))]
      continue
    if words[-1:] == ['--mesh'] and word == 'auto':
      words[-1:] = [part for axis in ('data', 'fsdp', 'tensor') for part in (f'--mesh.{axis}', '0')]
    else:
      words.append(word)
  return words


def parted(argv: list[str]) -> tuple[list[str], list[str]]:
  """What stands before the first bare --, and what after it."""
  place = argv.index('--') if '--' in argv else len(argv)
  return argv[:place], argv[place + 1:]


def asks_for_help(argv: list[str]) -> bool:
  """Whether a command whose first word is a recipe was given none."""
  return not argv or argv[0] in ('-h', '--help')


def show_recipes(usage: str, command: str, argv: list[str]) -> int:
  """Prints how a command that takes a recipe is called, and which there are. Returns the exit code."""
  from bert_jax import recipes
  groups: dict[str, dict[str, Callable]] = {**recipes.RECIPE_GROUPS}
  for title, group in recipes.VARIANT_GROUPS.items():
    groups[title] = {f'_{name}': variant for name, variant in group.items()}
  print(usage)
  for title, functions in groups.items():
    print(f'\n{title}:\n{listed(functions)}')
  print(f'\n`bert-jax {command} RECIPE --help` shows every setting with its value there.')
  return 0 if argv else 2


def listed(functions: dict[str, Callable]) -> str:
  """Names with the first paragraph of what their functions say of themselves; of those that say the same, the first and
  the last."""
  alike: dict[str, list[str]] = {}
  for name, function in functions.items():
    alike.setdefault(' '.join((function.__doc__ or '').split('\n\n')[0].split()), []).append(name)
  lines = []
  for paragraph, those in alike.items():
    shown = ' … '.join(dict.fromkeys((those[0], those[-1])))
    lines.append(textwrap.fill(paragraph, WIDTH, initial_indent=f'  {shown:<16} ', subsequent_indent=' ' * 19))
  return '\n'.join(lines)


def as_json(value: object, indent: int | None = None) -> str:
  """For people too: letters of any script stand as they are."""
  return json.dumps(value, indent=indent, ensure_ascii=False)


def table(rows: dict[str, object]) -> str:
  """One line for each row: numbers with commas, and four decimals where they have any."""
  width = max(map(len, rows))
  written = {float: '{:,.4f}', int: '{:,}'}
  return '\n'.join(f'{name:<{width}}  ' + written.get(type(value), '{}').format(value) for name, value in rows.items())
