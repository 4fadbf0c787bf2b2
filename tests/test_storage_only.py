"""Paths that a user gives are made, joined and opened only by input_pipeline.storage: a reading of the sources."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
STORAGE = {'input_pipeline/storage.py', 'input_pipeline/input_files.py', 'input_pipeline/object_storage.py',
           'input_pipeline/google_storage.py', 'input_pipeline/places.py'}
# Files that handle local files only, and why these are never a user's.
LOCAL = {
    'input_pipeline/locking.py': 'the lock file of a local run, and what the kernel says of a process',
    'input_pipeline/engines/failures.py': 'the file with what an engine tells, in the temporary folder',
    'input_pipeline/prepare/jobs.py': 'the folder in which `prepare` works',
    'input_pipeline/prepare/beam_spreading.py': 'a shard on its way, in a temporary folder',
    'input_pipeline/prepare/disk_spreading.py': 'slices of shards in the folder in which `prepare` works',
    'input_pipeline/prepare/ray_spreading.py': 'a shard on its way, in a temporary folder',
    'input_pipeline/engines/ray_jobs.py': 'the same file, and the folder of the project itself',
    'input_pipeline/prepare/on_processes.py': 'runs in the folder in which `prepare` works',
    'input_pipeline/prepare/original_masks.py': 'runs in the folder in which `prepare` works',
    'input_pipeline/prepare/original_pairs.py': 'runs in the folder in which `prepare` works',
    'input_pipeline/prepare/portions.py': 'portions of a shard on their way, in a temporary folder',
    'input_pipeline/prepare/publishing.py': 'the folder in which `prepare` works',
    'input_pipeline/prepare/spill.py': 'runs in the folder in which `prepare` works',
    'input_pipeline/prepare/splits.py': 'runs in the folder in which `prepare` works',
    'input_pipeline/prepare/stages.py': 'a vocabulary that was sent by its bytes, in a temporary folder',
    'input_pipeline/engines/staging.py': 'the folder in which `prepare` works',
    'input_pipeline/prepare/tfds_layout.py': 'the folder in which `prepare` works',
    'input_pipeline/engines/versions.py': 'the code of the project itself',
    'input_pipeline/prepare/writing.py': 'the folder in which `prepare` works',
    'input_pipeline/text/sampling.py': 'documents that may be drawn, in a temporary file',
    'input_pipeline/text/transforms.py': "the code of a user's own, where Python looks for it",
    'input_pipeline/vocabulary/word_cache.py': 'words that workers exchange in the folder in which `prepare` works',
    'bert_jax/compiled.py': "JAX's own folder of a process, and the user's cache",
    'bert_jax/versions.py': 'the code of the project itself',
    'bert_jax/board.py': 'a file of events in a local run, or on its way in a temporary folder',
    'bert_jax/benchmark/huggingface.py': 'what the peer is given in a temporary folder',
    'bert_jax/benchmark/peers.py': 'what the peer is given in a temporary folder',
    'bert_jax/benchmark/task_huggingface.py': 'what the peer is given in a temporary folder',
    'bert_jax/benchmark/task_peers.py': 'what the peer is given in a temporary folder',
    'bert_jax/convert/directory.py': 'the branch for a local export, which is renamed',
    'bert_jax/convert/google.py': 'what TensorFlow writes to a temporary folder',
    'bert_jax/convert/programs.py': 'what TensorFlow writes to a temporary folder',
    'launch/site_pages.py': 'pages of the project itself',
    'launch/without_gpu.py': 'devices of the machine',
    'launch/without_tpu.py': 'devices of the machine',
    'bert_jax/object_log.py': 'events in a temporary folder, before they are sent',
    'launch/hardware_page.py': 'a page of the sources, and the name of the CPU that is here',
}
MODULES = {'pathlib', 'shutil', 'tempfile', 'glob', 'fsspec', 'gcsfs', 'etils', 'smart_open'}
OF_OS = {'path', 'open', 'stat', 'listdir', 'scandir', 'walk', 'makedirs', 'mkdir', 'remove', 'unlink', 'rename',
         'replace', 'rmdir', 'link', 'symlink', 'access'}
ALLOWED_CALLS = {('launch/streams.py', 'os.open')}  # /dev/null


def uses(source: str) -> list[tuple[int, str]]:
  """(line, name) of everything in a file that handles paths by itself."""
  found = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      found += [(node.lineno, name.name) for name in node.names if name.name.partition('.')[0] in MODULES]
    elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition('.')[0] in MODULES | {'os'}:
      found.append((node.lineno, node.module))
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == 'os':
      found += [(node.lineno, f'os.{node.attr}')] if node.attr in OF_OS else []
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'open':
      found.append((node.lineno, 'open'))
    elif (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
          and node.func.attr in ('resolve', 'rmtree')):
      found.append((node.lineno, node.func.attr))
  return found


def sources() -> list[str]:
  return sorted(str(path.relative_to(ROOT)) for room in ('bert_jax', 'input_pipeline', 'launch')
                for path in (ROOT / room).rglob('*.py'))


@pytest.mark.parametrize('name', [name for name in sources() if name not in STORAGE | LOCAL.keys()])
def test_no_path_is_handled_outside_of_storage(name):
  found = [(line, use) for line, use in uses((ROOT / name).read_text()) if (name, use) not in ALLOWED_CALLS]
  assert not found, f'{name} handles paths by itself: use input_pipeline.storage, or say why not in LOCAL'


def test_the_exceptions_are_needed():
  assert not [name for name in LOCAL if not uses((ROOT / name).read_text())]


@pytest.mark.parametrize('source', [
    'open(name)', 'import pathlib', 'from pathlib import Path', 'from etils import epath',
    'import os.path\nos.path.join()',
    'os.makedirs(name)', 'storage.path(name).resolve()', 'import tempfile', 'from os import path'])
def test_what_handles_a_path_is_noticed(source):
  assert uses(source)
