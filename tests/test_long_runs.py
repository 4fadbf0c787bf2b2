"""What only shows after many steps: buffers that are given up while they are saved, and memory that grows."""

import dataclasses
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import checkpoint, config as cfg, program as program_lib, run_directory, synthetic as rows, train
from bert_jax.parallel import mesh as mesh_lib
from tests import parameters, synthetic
from tests.saves import SETTINGS

SAVES, STEPS = 40, 5000


@pytest.mark.reliability(29)
@pytest.mark.parametrize('devices', [1, 4])
def test_what_is_saved_beside_steps_that_give_it_up_is_what_it_was(tmp_path, tally, devices):
  """Forty saves, each on its way while steps take its memory for what comes next."""
  config = dataclasses.replace(SETTINGS, mesh=cfg.MeshShape(data=1, fsdp=devices))
  (tmp_path / 'vocabulary').mkdir()
  synthetic.write_vocabulary(tmp_path / 'vocabulary', config.model.vocab_size)
  parameters.write_run(tmp_path / 'run', config, tmp_path / 'vocabulary', steps=())
  program = program_lib.of(config, jax.devices()[:devices])
  batch = mesh_lib.put_batch(rows.batch(config.model.vocab_size, config.batch.size, 16, 3), program.mesh)
  state, wanted, given_up = program.init(), {}, []
  given_up_by = jax.tree.leaves(state.params)
  with checkpoint.manager(tmp_path / 'run', keep=SAVES) as checkpoints:
    for step in range(1, SAVES + 1):
      state, _ = program.train_step(state, batch)
      given_up += [leaf.is_deleted() for leaf in given_up_by]
      wanted[step] = jax.tree.map(lambda x: np.array(jnp.copy(x)), state.params)  # else NumPy holds what is given up
      checkpoint.save(checkpoints, state, checkpoint.Meta(step, 0.0, {}, ''))
      state, _ = program.train_step(state, batch)
      given_up_by = jax.tree.leaves(state.params)
  tally.control(all(given_up))  # a step takes the memory of the state before, unless that is being saved
  for step, params in wanted.items():
    loaded = checkpoint.load(tmp_path / 'run' / run_directory.CHECKPOINTS / str(step))
    same = jax.tree.map(np.array_equal, jax.tree.map(np.asarray, loaded.params), params)
    tally.fault(step, survived=True, exact=all(jax.tree.leaves(same)))


def used() -> tuple[float, int, int]:
  """(resident memory in MB, open files, threads) of this process; less what it has mapped of files, such as programs,
  which the kernel takes away and brings back as it likes."""
  status = pathlib.Path('/proc/self/status').read_text()
  resident = sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(('RssAnon', 'RssShmem')))
  return resident / 1e3, len(os.listdir('/proc/self/fd')), len(os.listdir('/proc/self/task'))


@pytest.mark.slow
@pytest.mark.reliability(30)
def test_memory_is_flat(tmp_path, tally):
  """5,000 steps with 20 saves and 10 evaluations: in the last half a line through the resident memory rises by less
  than a MB a thousand steps; open files and threads stay. A list that grows by 3 kB a step is seen."""
  data = synthetic.write_data(tmp_path / 'data', vocabulary_size=40, pieces=400, documents=40, sequence_length=16,
                              splits=('train', 'validation'))
  run = cfg.Run(steps=STEPS, checkpoint_every=STEPS // 20, log_every=20, evaluate_every=STEPS // 10,
                evaluation_rows=32)
  config = dataclasses.replace(SETTINGS, run=run)
  seen: list[tuple[int, float, int, int]] = []
  leak: list[bytes] = []

  def watch(step: int, leaks: bool = False) -> bool:
    if leaks:
      leak.append(os.urandom(3000))
    if step % 50 == 0:
      seen.append((step, *used()))
    return False

  train.train(config, data, tmp_path / 'run', devices=jax.devices()[:1], progress=False, stop=watch)
  slope, files, threads = growth(seen)
  tally.note(f'{STEPS} steps, 20 saves: resident memory {seen[-1][1]:.0f} MB, {slope:+.2f} MB in 1,000 steps of the '
             f'last half; {files:+.1f} open files, {threads:+.1f} threads')
  tally.control(slope < 1 and files < 1 and threads < 1)
  seen.clear()
  train.train(config, data, tmp_path / 'leaking', devices=jax.devices()[:1], progress=False,
              stop=lambda step: watch(step, leaks=True))
  slope, _, _ = growth(seen)
  tally.note(f'the same with 3 kB a step that are kept: {slope:+.2f} MB in 1,000 steps')
  tally.fault(leak, detected=slope > 1)


def growth(seen: list[tuple[int, float, int, int]]) -> tuple[float, float, float]:
  """In 1,000 steps of the last half, by a line through it: MB; and between its two halves: open files, threads."""
  steps, memory, files, threads = np.array(seen[len(seen) // 2:], float).T
  middle = len(steps) // 2
  grown = lambda values: float(np.median(values[middle:]) - np.median(values[:middle]))
  return float(np.polyfit(steps / 1000, memory, 1)[0]), grown(files), grown(threads)
