"""What may import what: the core without its optional companions, never TensorFlow, and one way through the house."""

import ast
import os
import pathlib
import pkgutil
import subprocess
import sys

import pytest

import bert_jax

ROOT = pathlib.Path(bert_jax.__file__).parents[1]
MODULES = sorted(module.name for module in pkgutil.walk_packages(bert_jax.__path__, 'bert_jax.'))
# Formats, the launchers' flags, progress and plots: training is possible without any of them.
OPTIONAL = ('tensorflow', 'fsspec', 'gcsfs', 'tokenizers', 'tyro', 'tqdm', 'tensorboardX', 'safetensors',
            'sentencepiece', 'matplotlib', 'wandb', 'mlflow')
NEED_MORE = ('bert_jax.convert', 'bert_jax.text_encoder')

PROGRAM = '''
import importlib, sys

class Absent:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in {absent!r}:
      raise ImportError(name + ' is not installed here')

sys.meta_path.insert(0, Absent())
for name in {modules!r}:
  importlib.import_module(name)
'''

TRAIN = '''
import jax
from bert_jax import config as cfg, program, synthetic
from bert_jax.parallel import mesh as mesh_lib
model = cfg.Model(vocab_size=64, hidden_size=16, layers=1, heads=2, intermediate_size=32, max_positions=16)
config = cfg.Config(model=model, batch=cfg.BatchConfig(size=8, sequence_length=16, predictions=4))
made = program.of(config, jax.devices()[:1])
state, report = made.train_step(made.init(), mesh_lib.put_batch(synthetic.batch(64, 8, 16, 4), made.mesh))
assert int(state.step) == 1 and 0 < float(report['terms']['mlm']['loss'])
'''


def run(program):
  done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, env=dict(os.environ), capture_output=True,
                        text=True, timeout=300)
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout


def test_the_core_imports_and_trains_without_the_optional_packages():
  core = [name for name in MODULES if not name.startswith(NEED_MORE)]
  assert {'bert_jax.program', 'bert_jax.train'} <= set(core)
  run(PROGRAM.format(absent=OPTIONAL, modules=core) + TRAIN)


def test_no_module_of_bert_jax_brings_tensorflow():
  loaded = run(PROGRAM.format(absent=('torch',), modules=MODULES) + 'print(*sys.modules)').split()
  assert 'bert_jax.train' in loaded and not {'tensorflow', 'tensorflow_datasets'} & set(loaded)


def imports(path):
  """The modules of this house that a file imports, those inside of functions too."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: a relative import'
      found |= {node.module} | {f'{node.module}.{alias.name}' for alias in node.names}
  return {name for name in found if name.split('.')[0] in ('bert_jax', 'input_pipeline', 'launch')}


def files(package):
  return sorted((ROOT / package).rglob('*.py'))


@pytest.mark.parametrize('package, barred', [('input_pipeline', ('bert_jax', 'launch')), ('bert_jax', ('launch',))])
def test_rooms_import_only_from_rooms_nearer_the_ground(package, barred):
  for path in files(package):
    assert not [name for name in imports(path) if name.split('.')[0] in barred], path


@pytest.mark.parametrize('room, barred', [
    ('input_pipeline/prepare', ('batches',)), ('input_pipeline/batches', ('prepare',)),
    ('input_pipeline/text', ('vocabulary', 'prepare', 'batches')),
    ('input_pipeline/engines', ('vocabulary', 'prepare', 'batches')),
    ('input_pipeline/vocabulary', ('prepare', 'batches'))])
def test_the_rooms_of_the_input_pipeline_know_only_what_they_stand_on(room, barred):
  for path in files(room):
    assert not [name for name in imports(path) if name.split('.')[1:2] and name.split('.')[1] in barred], path


def graph(package):
  """{module of a package: modules of the package that it imports}; a room's own __init__ is left out, as each import
  passes it."""
  name = lambda path: '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
  known = {name(path): path for path in files(package)}
  rooms = {name(path) for path in files(package) if path.name == '__init__.py'}
  return {module: (imports(path) & set(known)) - {module} - rooms for module, path in known.items()}


@pytest.mark.parametrize('package', ['bert_jax', 'input_pipeline', 'launch'])
def test_imports_run_one_way_without_circles(package):
  edges, done = dict(graph(package)), set()
  while edges:
    free = {module for module, wants in edges.items() if wants <= done}
    assert free, f'a circle among {sorted(edges)}'
    done |= free
    for module in free:
      del edges[module]


CHAIN = ('parallel.mesh', 'model.attention', 'model.settings', 'model.encoder', 'model.build', 'objectives',
         'config', 'program', 'loop', 'training', 'train', 'finetune')


@pytest.mark.parametrize('lower', CHAIN)
def test_the_chain_of_the_design_is_never_climbed(lower):
  """mesh <- attention <- model <- objectives <- config <- program <- loop <- train: none reaches what is above it."""
  edges = graph('bert_jax')
  assert f'bert_jax.{lower}' in edges
  reached, front = set(), {f'bert_jax.{lower}'}
  while front:
    reached |= front
    front = set().union(*(edges.get(module, set()) for module in front)) - reached
  above = {f'bert_jax.{name}' for name in CHAIN[CHAIN.index(lower) + 1:]}
  assert not reached & above

# ---------------------------------------------------------------- nothing that a file says is run

RUNS_WHAT_IT_READS = {'pickle', 'cPickle', 'dill', 'cloudpickle', 'shelve', 'joblib'}
CALLS = {'eval', 'exec', 'compile', '__import__'}
SAFE = {'yaml': {'safe_load', 'YAMLError'}}  # all that may be used of it, by its own name


def dangers(source: str) -> list[tuple[int, str]]:
  """(line, what) of what could run what a file says."""
  found = []
  for node in ast.walk(ast.parse(source)):
    names = ([name.name for name in node.names] if isinstance(node, ast.Import) else
             [node.module or ''] if isinstance(node, ast.ImportFrom) else [])
    found += [(node.lineno, name) for name in names if name.partition('.')[0] in RUNS_WHAT_IT_READS]
    own = [name.name for name in node.names if not name.asname] if isinstance(node, ast.Import) else []
    found += [(node.lineno, name) for name in names if name.partition('.')[0] in SAFE and name not in own]
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in SAFE:
      found += [(node.lineno, node.attr)] if node.attr not in SAFE[node.value.id] else []
    if isinstance(node, ast.Call):
      if isinstance(node.func, ast.Name) and node.func.id in CALLS:
        found.append((node.lineno, node.func.id))
      called = ast.unparse(node.func)
      found += [(node.lineno, called)] if called in ('torch.load', 'yaml.load', 'os.system') else []
      found += [(node.lineno, word.arg) for word in node.keywords
                if word.arg in ('allow_pickle', 'shell', 'trust_remote_code') and ast.unparse(word.value) != 'False']
  return found


@pytest.mark.reliability(31)
def test_nothing_that_a_file_says_is_run(tally):
  sources = [path for room in ('bert_jax', 'input_pipeline', 'launch') for path in files(room)]
  found = {path: dangers(path.read_text()) for path in sources}
  tally.control(len(sources) > 100 and not any(found.values()))
  for bad in ('import pickle', 'from pickle import loads', 'eval(text)', 'np.load(file, allow_pickle=True)',
              'torch.load(file)', 'import yaml\nyaml.load(file)', 'import yaml as y',
              'from yaml import load', 'import yaml\nread = yaml.unsafe_load',
              'subprocess.run(text, shell=True)', 'os.system(text)'):
    tally.fault(True, detected=bool(dangers(sources[0].read_text() + '\n' + bad)))
