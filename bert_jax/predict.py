"""What a fine-tuned run says of examples that need no labels, in the task's official files and as lines of JSON."""

import json
from typing import Any

from bert_jax import checkpoint, examples as examples_lib, program as program_lib, run_directory
from bert_jax.errors import require
from bert_jax.tasks.settings import Finetune
from bert_jax.tasks.table import TASKS
from input_pipeline import storage
from input_pipeline.errors import DataError
from input_pipeline.foreign import is_name, shown

PREDICTIONS = 'predictions.jsonl'


def predict(run_dir: storage.PathLike, data: storage.PathLike | None, split: str, output: storage.PathLike,
            step: int | None = None, progress: bool = True) -> int:
  """Answers a split of DATA (the run's own by default), or a file, with the best checkpoint or that of `step`.

  Writes OUTPUT/predictions.jsonl, {'example': its number from 0, …}, and the task's official files there. Returns how
  many examples there were. Raises ConfigError, DataError, CheckpointError.
  """
  storage.probe(run_directory.run_of(run_dir) or run_dir, 'the run')
  storage.probe(output, '--output')
  require(is_name(split), f'--split is {shown(split)}: wanted a name, as files are called by it')
  loaded: Any = checkpoint.load(run_dir, step)
  config = loaded.record.config
  require(isinstance(config, Finetune), f'{run_dir} is a pretraining run: wanted one of `bert-jax finetune`, which has '
          'learnt to answer')
  task = TASKS[config.task]
  where = data or loaded.record.data
  if examples_lib.is_file(where):
    found = task.read(storage.path(where), config.own)
  else:
    found = examples_lib.read(config, where, split)
  if not found:
    raise DataError(f'{where} holds no example for {split}: wanted one at least')
  rows = examples_lib.split_of(config, found, loaded.tokenizer())
  program = program_lib.on_one_device(config)
  answers = rows.answer(program, loaded.params, config, labelled=False, progress=progress).answers
  directory = storage.path(output)
  storage.make_folder(directory)
  lines = (json.dumps({'example': number} | answer, ensure_ascii=False) for number, answer in enumerate(answers))
  storage.write_whole(directory / PREDICTIONS, ''.join(line + '\n' for line in lines))
  if task.write is not None:
    task.write(directory, found, answers, split)
  return len(answers)
