"""The quick digest of checkpoints: the same however it is read, another of whatever is damaged; and manifests without.
"""

import dataclasses
import os
import random

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from bert_jax import checkpoint, manifest as manifest_lib, run_directory, steps
from input_pipeline import storage
from tests import parameters, synthetic
from tests.saves import BIG, CONFIG, abstract_of, state_of

SIZES = st.one_of(st.integers(1, 100), st.integers(1, 6 * storage.ROW), st.sampled_from(
    [n * storage.ROW + more for n in (1, 2, 5) for more in (-1, 0, 1)]))


def sums(data) -> str:
  rows = range(0, len(data), storage.ROW)
  return storage.digests([memoryview(data)[start:start + storage.ROW] for start in rows], [storage.Sums])[0]


def drawn(size: int, seed: int, structured: bool) -> np.ndarray:
  draws = np.random.default_rng(seed)
  return draws.integers(0, 2 if structured else 256, size, np.uint8)


@settings(deadline=None)
@given(SIZES, st.integers(0, 2**32), st.booleans(), st.data())
def test_whatever_is_damaged_is_seen(size, seed, structured, data):
  whole = drawn(size, seed, structured)
  wanted = sums(whole)
  assert wanted == storage.digests([memoryview(whole)], [storage.Sums])[0]
  first = data.draw(st.integers(0, size - 1))
  last = min(size, first + data.draw(st.integers(1, storage.ROW - 8)))
  damaged = whole.copy()
  kind = data.draw(st.sampled_from(['bit', 'zeros', 'others', 'moved', 'swapped', 'turned']))
  if kind == 'bit':
    damaged[first] ^= 1 << data.draw(st.integers(0, 7))
  elif kind == 'zeros':
    damaged[first:last] = 0
  elif kind == 'others':
    damaged[first:last] = drawn(last - first, seed + 1, structured)
  elif kind == 'moved':
    damaged = np.roll(whole, data.draw(st.integers(1, size)))
  elif kind == 'turned':
    damaged[first:last] = damaged[first:last][::-1]
  else:  # pages of a disk
    page = data.draw(st.sampled_from([8, 512, 4096, storage.ROW]))
    a, b = (page * data.draw(st.integers(0, size // page)) for _ in range(2))
    length = min(page, size - a, size - b)
    damaged[a:a + length], damaged[b:b + length] = whole[b:b + length], whole[a:a + length]
  same = np.array_equal(damaged, whole)
  assert (sums(damaged) == wanted) == same
  assert np.array_equal(whole, np.append(whole[:-1], 0)) or sums(whole[:-1]) != wanted


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 3 * storage.CHUNK), st.integers(0, 2**32))
def test_pieces_are_read_as_they_are(tmp_path_factory, size, seed):
  """By chunks of a file, the last not whole, and to its end though more is asked for."""
  file = tmp_path_factory.mktemp('sums') / 'file'
  data = drawn(size, seed, False)
  file.write_bytes(data.tobytes())
  parts = storage.chunks(storage.path(file), 0, size + 100)
  assert storage.digests(parts, [storage.Sums]) == storage.digests([memoryview(data)], [storage.Sums])


@pytest.fixture(scope='module')
def template():
  return parameters.random(BIG)


@pytest.fixture
def run(template, tmp_path):
  """A run with files of some megabytes."""
  (tmp_path / 'vocabulary').mkdir()
  synthetic.write_vocabulary(tmp_path / 'vocabulary', BIG.vocab_size)
  parameters.write_run(tmp_path / 'run', CONFIG, tmp_path / 'vocabulary', steps=())
  with checkpoint.manager(tmp_path / 'run') as checkpoints:
    for step in (1, 2):
      checkpoint.save(checkpoints, state_of(step, template), checkpoint.Meta(step, 0.0, {}, ''))
  return tmp_path / 'run'


def restored(run, template) -> int:
  with checkpoint.manager(run) as checkpoints:
    state, meta = checkpoint.restore(checkpoints, abstract_of(template))
  jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, state.params),
               jax.tree.map(np.asarray, state_of(meta.step, template).params))
  return meta.step


def large(run):
  """(the directory of step 2, the manifest, its largest file)"""
  directory = storage.path(run / 'checkpoints/2')
  manifest = manifest_lib.read(directory)
  return directory, manifest, max(manifest.files, key=lambda name: manifest.files[name].size)


def test_a_restore_takes_the_quick_digest_and_verify_the_other(run, template, monkeypatch):
  directory, manifest, name = large(run)
  assert manifest.files[name].size > manifest_lib.LARGE and all(
      len(file.sums) == len(file.sha256) for file in manifest.files.values())
  asked, inner = [], manifest_lib.digests_of
  monkeypatch.setattr(manifest_lib, 'digests_of', lambda folder, sizes, *kinds: (
      asked.append((kinds, name in sizes)), inner(folder, sizes, *kinds))[1])
  assert restored(run, template) == 2
  assert ((storage.Sums,), True) in asked and not any(found for kinds, found in asked if kinds != (storage.Sums,))
  asked.clear()
  found = steps.look(storage.path(run), run_directory.fingerprints(run))
  assert next(steps.sound(found, [])).number == 2
  assert any(found for kinds, found in asked if kinds != (storage.Sums,))


@pytest.mark.parametrize('seed', range(6))
def test_damage_of_a_large_file_is_found_by_a_restore(run, template, seed, capsys):
  directory, manifest, name = large(run)
  draw, file = random.Random(seed), directory / name
  data = bytearray(file.read_bytes())
  at, length = draw.randrange(len(data)), draw.choice([1, 1, 8, 4096, 100_000])
  before = bytes(data)
  if length == 1:
    data[at] ^= 1 << draw.randrange(8)
  else:
    data[at:at + length] = os.urandom(len(data[at:at + length]))
  file.write_bytes(data)
  assert bytes(data) != before and restored(run, template) == 1
  assert 'step 2 cannot be used' in capsys.readouterr().err


def test_manifests_of_before_are_read_by_their_sha_256(run, template, capsys):
  directory, manifest, name = large(run)
  older = dataclasses.replace(manifest, files={
      name: dataclasses.replace(file, sums=()) for name, file in manifest.files.items()})
  manifest_lib.write(directory, older)
  assert '"sums"' not in (directory / manifest_lib.NAME).read_text() and manifest_lib.read(directory) == older
  assert restored(run, template) == 2
  data = bytearray((directory / name).read_bytes())
  data[len(data) // 2] ^= 1
  (directory / name).write_bytes(data)
  assert restored(run, template) == 1 and 'another content' in capsys.readouterr().err
