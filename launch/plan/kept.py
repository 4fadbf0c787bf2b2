"""What a plan reads of compiled programs, kept from one plan to the next: compiling for a pod takes minutes.

JAX cannot read back programs for chips that are not here, so its own cache cannot help. A plan needs only the program's
text and its memory: they are kept beside compiled programs (bert_jax/compiled.py), by a hash of what was compiled.
"""

import dataclasses
import gzip
import hashlib
import json
import os
import re
import time
import warnings

import jax
import jaxlib

from bert_jax import compiled, memory
from input_pipeline import storage

FOLDER = 'plans'
LINES = re.compile(r'"[^"\n]*\.py":\d+:\d+(?: to (?:\d+)?:\d+)?')  # of the code that a program was traced from


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of one device."""
  arguments: int
  results: int  # those in an argument's place too
  reused: int  # results in an argument's place
  temporaries: int
  code: int


@dataclasses.dataclass(frozen=True)
class Compiled:
  """A compiled program as a plan reads it; of one that does not fit, what the compiler said."""
  text: str = ''
  memory: Memory | None = None
  error: str | None = None
  seconds: float = 0.0  # that it took
  kept: bool = False  # by an earlier plan, which compiled it


def compile_or_find(lowered: jax.stages.Lowered, device, folder: storage.Path | None,
                    options: dict | None = None, described: str = '') -> Compiled:
  """Compiles for devices like `device`, or takes what an earlier plan left below `folder`.

  `options`: of the compiler, beside its usual ones. `described`: what else it was told of the devices.
  """
  start = time.monotonic()
  if folder is None:
    return _compile(lowered, start, options)
  name = f'{key(lowered, device, options, described)}{compiled.SUFFIX}'
  found = None
  with compiled.warned(folder):
    found = _read(folder / FOLDER, name)
  if found is not None:
    return dataclasses.replace(found, seconds=time.monotonic() - start, kept=True)
  made = _compile(lowered, start, options)
  with compiled.warned(folder):
    _write(folder / FOLDER, name, made)
    compiled.make_room(folder)
  return made


def key(lowered: jax.stages.Lowered, device, options: dict | None = None, described: str = '') -> str:
  """A hash of all that decides what is compiled; not of the lines of code that it comes from."""
  program = LINES.sub('', lowered.as_text(debug_info=True))
  told = [jax.__version__, jaxlib.__version__, device.client.platform_version, device.device_kind,
          *(os.environ.get(flag) for flag in compiled.FLAGS), *(options or {}).items(),
          *([described] if described else [])]
  if device.platform == 'cpu':
    told += compiled.cpu()
  return hashlib.sha256(repr((told, program)).encode()).hexdigest()


def _compile(lowered: jax.stages.Lowered, start: float, options: dict | None) -> Compiled:
  with warnings.catch_warnings():
    # JAX's own cache cannot hold programs for chips that are not here.
    warnings.filterwarnings('ignore', 'Error reading persistent compilation cache')
    try:
      program = lowered.compile(options)
    except jax.errors.JaxRuntimeError as error:
      if not memory.is_short(error):
        raise
      return Compiled(error=str(error), seconds=time.monotonic() - start)
  stats = program.memory_analysis()
  bytes_of = Memory(stats.argument_size_in_bytes, stats.output_size_in_bytes, stats.alias_size_in_bytes,
                    stats.temp_size_in_bytes, stats.generated_code_size_in_bytes)
  return Compiled(program.as_text(), bytes_of, seconds=time.monotonic() - start)


def _read(folder: storage.Path, name: str) -> Compiled | None:
  """What is kept and sound; what is not is removed."""
  for file in storage.files_in(folder, f'{name}.*') if folder.exists() else []:
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != file.name.rpartition('.')[2]:
      file.unlink()
      continue
    said = json.loads(gzip.decompress(content))
    if not isinstance(file, storage.ObjectPath):
      os.utime(file)
    return Compiled(said['text'], said['memory'] and Memory(**said['memory']), said['error'])
  return None


def _write(folder: storage.Path, name: str, made: Compiled) -> None:
  said = {field: value for field, value in dataclasses.asdict(made).items() if field in ('text', 'memory', 'error')}
  content = gzip.compress(json.dumps(said).encode(), compresslevel=6, mtime=0)
  compiled.private_folder(folder)
  storage.write_whole(folder / f'{name}.{hashlib.sha256(content).hexdigest()}', content)
