"""Settings in a file: read back as a run wrote them, JSON or YAML, whole or only some; printed with their sources."""

import contextlib
import json
from collections.abc import Mapping

from bert_jax.config import Asked, Config
from bert_jax.errors import ConfigError, require
from bert_jax.fields import flat, from_json, nested
from input_pipeline import foreign, storage


def read(path: storage.PathLike) -> dict[str, object]:
  """{'run.steps': 20}: what a file says, by the names of flags; of a run's config.json its settings.

  Raises ConfigError. Groups may be within each other or joined by dots: {"run": {"steps": 20}}, {"run.steps": 20}.
  """
  where = storage.path(path)
  foreign.check_kind(where)
  try:
    fields = parsed(where.read_text())
  except (OSError, UnicodeDecodeError, RecursionError) as error:
    raise ConfigError(f'--config {path} cannot be read: {error}') from error
  require(isinstance(fields, dict), f'--config {path} holds no settings: wanted names with their values, as a run\'s '
          'config.json has them')
  if 'kind' in fields and 'config' in fields:
    require(fields['kind'] == 'pretrained', f'--config {path} is of a {fields["kind"]} run: wanted one of `bert-jax '
            'pretrain`')
    fields = fields['config']
  return flattened(fields, known())


def parsed(text: str):
  """What JSON or YAML says. Raises ConfigError."""
  try:
    return json.loads(text)
  except json.JSONDecodeError as error:
    try:
      import yaml
    except ImportError:
      raise ConfigError(f'--config is no JSON ({error}), and for YAML pyyaml is not installed: pip install pyyaml'
                        ) from error
    try:
      return yaml.safe_load(text)
    except yaml.YAMLError as other:
      raise ConfigError(f'--config is neither JSON ({error}) nor YAML ({" ".join(str(other).split())})') from other


def known() -> dict[str, object]:
  return flat(Config())


def flattened(fields, names: Mapping[str, object], before: str = '') -> dict[str, object]:
  """One level of names with dots. A name that is none stays, for `applied` to refuse."""
  found: dict[str, object] = {}
  for name, value in fields.items():
    path = f'{before}{name}'
    group = isinstance(value, dict) and path not in names
    found |= flattened(value, names, f'{path}.') if group else {path: value}
  return found


def applied(settings: Asked, values: Mapping[str, object], path: storage.PathLike | None) -> Asked:
  """The settings with those of a file in their place. Raises ConfigError, naming the file, for what is none."""
  strange = sorted(set(values) - set(flat(settings)))
  require(not strange, f'--config {path}: there is no setting {", ".join(map(str, strange))}')
  usual = flat(settings)
  try:
    return from_json(Asked, nested(usual | {name: number(value, usual[name]) for name, value in values.items()}))
  except ConfigError as error:
    raise ConfigError(f'--config {path}: {error}') from error


def number(value: object, usual: object) -> object:
  """The value; 1e-4 as a number where one belongs, for which YAML wants 1.0e-4."""
  if isinstance(value, str) and isinstance(usual, float):
    with contextlib.suppress(ValueError):
      return float(value)
  return value


def written(value: object) -> str:
  """As JSON and YAML both read it."""
  text = json.dumps(value, ensure_ascii=False)
  return text.replace('e', '.0e') if isinstance(value, float) and 'e' in text and '.' not in text else text


def shown(config: Config, sources: Mapping[str, str]) -> str:
  """A line for each setting, 'run.steps: 20  # flag', which `read` understands where YAML does."""
  lines = {name: f'{name}: {written(value)}' for name, value in flat(config).items()}
  width = max(map(len, lines.values()))
  return ''.join(f'{line:<{width}}  # {sources[name]}\n' for name, line in lines.items())
