"""Compiled programs that are kept: found again by the next start, not believed where damaged, no reason to stop."""

import os
import pathlib
import random

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from bert_jax import compiled
from bert_jax.errors import ConfigError
from input_pipeline import storage
from launch.plan import kept


@pytest.fixture(autouse=True)
def own(monkeypatch, tmp_path):
  """No cache of the user's, nor that of the tests, and every program is worth keeping."""
  monkeypatch.delenv(compiled.OWN)
  before = jax.config.jax_compilation_cache_dir
  jax.config.update('jax_compilation_cache_dir', None)
  compilation_cache.reset_cache()
  monkeypatch.setattr(compiled, 'LEAST_SECONDS', 0.0)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'caches'))
  (tmp_path / 'tmp').mkdir()
  monkeypatch.setattr('tempfile.tempdir', str(tmp_path / 'tmp'))
  yield
  jax.config.update('jax_compilation_cache_dir', before)
  compilation_cache.reset_cache()


def compute(folder) -> tuple[float, int]:
  """(what a program gives, how many programs of earlier starts it took), as in a process that has just begun."""
  jax.clear_caches()
  before = compiled.TIMES.found
  with compiled.kept(folder):
    value = float(jax.jit(lambda x: (jnp.sin(x) * 3).sum())(jnp.arange(7.0)))
  return value, compiled.TIMES.found - before


def entries(folder) -> list[storage.Path]:
  return storage.files_in(folder, f'*/*{compiled.SUFFIX}.*')


@pytest.mark.parametrize('where', ['disk', 'memory://bucket/compiled'])
def test_the_next_start_finds_what_was_compiled(tmp_path, where):
  folder = storage.path(where if ':' in where else tmp_path / where / 'below')
  value, found = compute(folder)
  kept = entries(folder)
  assert not found and kept
  assert compute(folder) == (value, len(kept))
  assert entries(folder) == kept and not list((tmp_path / 'tmp').iterdir())
  if isinstance(folder, pathlib.Path):
    assert kept[0].parent.stat().st_mode & 0o077 == 0


def test_jax_is_left_as_it_was(tmp_path):
  before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
  with compiled.kept(tmp_path / 'kept'):
    assert jax.config.jax_compilation_cache_dir != before[0]
  assert (jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs) == before


def test_what_is_damaged_is_compiled_again(tmp_path):
  value, _ = compute(tmp_path / 'kept')
  draw = random.Random(5)
  for trial in range(9):
    for file in entries(tmp_path / 'kept'):
      content = bytearray(file.read_bytes())
      if trial % 3 == 0:
        content = content[:draw.randrange(len(content))]
      elif trial % 3 == 1:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
      else:
        file.rename(file.with_name(file.name[:-64] + '0' * 64))
        continue
      file.write_bytes(content)
    assert compute(tmp_path / 'kept') == (value, 0)  # and what is sound is there again
    assert compute(tmp_path / 'kept')[1] == len(entries(tmp_path / 'kept')) > 0


def test_files_of_others_are_left_alone(tmp_path):
  compute(tmp_path / 'kept')
  inside = entries(tmp_path / 'kept')[0].parent
  for name in ('notes.txt', f'x{compiled.SUFFIX}', f'.x{compiled.SUFFIX}.{"0" * 64}.77.tmp'):
    (inside / name).write_text('mine')
  assert compute(tmp_path / 'kept')[1]
  assert len([file for file in inside.iterdir() if file.read_bytes() == b'mine']) == 3


def test_no_place_is_a_warning(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.warns(UserWarning, match='compiled programs are not kept there.*--cache off'):
    assert compute(tmp_path / 'file' / 'kept')[1] == 0
  (tmp_path / 'open').mkdir()
  (tmp_path / 'open').chmod(0o777)
  with pytest.warns(UserWarning, match='everyone may write there'):
    assert compute(tmp_path / 'open')[1] == 0
  assert not list((tmp_path / 'open').iterdir())


def test_folders_of_killed_processes_are_removed(tmp_path):
  tmp = tmp_path / 'tmp'
  for name in ('dead', 'alive'):
    (tmp / (compiled.PREFIX + name)).mkdir()
    (tmp / (compiled.PREFIX + name) / compiled.LOCK).touch()
  with compiled.held(tmp / (compiled.PREFIX + 'alive') / compiled.LOCK):
    compute(tmp_path / 'kept')
    assert [path.name for path in tmp.iterdir()] == [compiled.PREFIX + 'alive']


def test_the_oldest_make_room(tmp_path):
  for name, used in (('a', 300), ('b', 100), ('c', 200)):
    file = tmp_path / 'environment' / f'{name}{compiled.SUFFIX}.0'
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(bytes(10))
    os.utime(file, (used, used))
  compiled.make_room(tmp_path, 20)
  assert [file.name[0] for file in entries(tmp_path)] == ['a', 'c']


def test_where_they_are_kept(tmp_path, monkeypatch):
  users = tmp_path / 'caches' / 'bert_jax' / 'compiled'
  assert compiled.place('auto', tmp_path / 'run') == compiled.place('auto') == users
  assert str(compiled.place('auto', 'memory://bucket/run')) == 'memory://bucket/run/compiled'
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  assert compiled.place('auto', tmp_path / 'run') == tmp_path / 'run' / 'compiled'
  assert compiled.place(str(tmp_path / 'x')) == tmp_path / 'x' and compiled.place('off') is None
  with pytest.raises(ConfigError, match='wanted a folder, auto or off'):
    compiled.place('')
  monkeypatch.setenv(compiled.OWN, '/mine')
  assert compiled.place('auto') is None


def test_the_first_step_is_told_once(monkeypatch):
  monkeypatch.setattr(compiled, 'TIMES', compiled.Times(seconds=2.5, programs=3, found=1))
  assert compiled.first_step().endswith('2.5 s of it for 3 compiled programs, 1 of them compiled by an earlier start')
  assert compiled.first_step() is None
  assert 0 < compiled.since_start() < 7 * 86400

# ---------------------------------------------------------------- what a plan reads of them


def planned(folder, scale=1.0):
  lowered = jax.jit(lambda x: (x @ x * scale).sum()).lower(jax.ShapeDtypeStruct((8, 8), 'float32'))
  return kept.compile_or_find(lowered, jax.devices()[0], folder)


@pytest.mark.parametrize('where', ['disk', 'memory://bucket/plans'])
def test_the_next_plan_finds_what_was_compiled(tmp_path, where):
  folder = storage.path(where if ':' in where else tmp_path / where / 'below')
  first, again, other = planned(folder), planned(folder), planned(folder, 2.0)
  assert not first.kept and again.kept and not other.kept and planned(folder, 2.0).kept
  assert (again.text, again.memory, again.error) == (first.text, first.memory, None) and 'dot' in again.text
  assert again.memory.arguments == 8 * 8 * 4 and not planned(None).kept


def test_what_a_plan_finds_damaged_is_compiled_again(tmp_path):
  memory, draw = planned(tmp_path).memory, random.Random(5)
  for trial in range(9):
    file, = entries(tmp_path)
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content[:draw.randrange(len(content))] if trial % 3 == 0 else content)
    found = planned(tmp_path)
    assert not found.kept and found.memory == memory and planned(tmp_path).kept


def test_what_does_not_fit_is_kept_too(tmp_path, monkeypatch):
  """The compiler's own words, of which a plan reads how much it would need."""
  lowered = jax.jit(jnp.sin).lower(1.0)

  def refuse(self, *_, **__):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Used 17.58G of 15.75G hbm')

  monkeypatch.setattr(type(lowered), 'compile', refuse)
  first = kept.compile_or_find(lowered, jax.devices()[0], tmp_path)
  monkeypatch.undo()
  again = kept.compile_or_find(lowered, jax.devices()[0], tmp_path)
  assert again.kept and not first.kept and again.error == first.error and 'Used 17.58G' in again.error


def test_no_place_for_a_plan_is_a_warning(tmp_path):
  (tmp_path / 'file').write_text('mine')
  with pytest.warns(UserWarning, match='compiled programs are not kept there'):
    assert not planned(tmp_path / 'file').kept
