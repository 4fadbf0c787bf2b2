"""The engines that `--engine` names, and the settings of any command that each must leave as they are.

An engine is one file with an ENGINE in it, here and in prepare/, and a line here, in table.py and in prepare/corpus.py.
"""

import dataclasses
from typing import Any

from input_pipeline import records

_OF_ONE_MACHINE = 'workers', 'first'  # processes of one machine; what is read in order, and no more than it needs
ENGINES: dict[str, tuple[str, ...]] = {'processes': (), 'beam': _OF_ONE_MACHINE, 'ray': _OF_ONE_MACHINE}
HERE = next(iter(ENGINES))  # which works without a cluster


def refuse(settings: Any, more: tuple[str, ...] = ()) -> None:
  """Raises DataError for settings that do not go with `settings.engine`. `more`: those that need all in one place."""
  if settings.engine not in ENGINES:
    raise records.DataError(f'--engine {settings.engine}: wanted one of {", ".join(ENGINES)}')
  usual = {field.name: field.default for field in dataclasses.fields(settings)}
  for name in (*ENGINES[settings.engine], *more) if settings.engine != HERE else ():
    if name in usual and getattr(settings, name) != usual[name]:
      raise records.DataError(f'--{name.replace("_", "-")} does not go with --engine {settings.engine}: leave one of '
                              'them out')
