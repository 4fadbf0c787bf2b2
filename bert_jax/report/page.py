"""One page of HTML for runs: everything is in it, so it opens without a network, from a disk or an e-mail."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax import checkpoint, evaluate, metrics, phases, run_directory
from bert_jax.config import BatchConfig, Config
from bert_jax.convert import card
from bert_jax.errors import CheckpointError, ConfigError, require
from bert_jax.fields import flat
from bert_jax.report import charts, seen
from input_pipeline import records, storage
from input_pipeline.errors import DataError

PAGE = 'report.html'
ROWS = 4  # held-out rows whose predictions are shown
EXAMPLES = 256  # of a task, the first of validation, that are answered for the page
ANSWERS = 6  # of these, right and wrong ones each, that are shown
SAMPLED_TOKENS = 1 << 20  # of the data that are read for the lengths
NEGATIVES = {'nsp': 'next-sentence negatives', 'google': 'next-sentence negatives', 'sop': 'swapped pairs'}


@dataclasses.dataclass(frozen=True)
class Data:
  """What the shards hold that a run learnt from."""
  directory: str
  rows: Mapping[str, Sequence[str]]  # name -> a figure of each split
  splits: Sequence[str]
  bins: Sequence[tuple[int, int, float]]  # (from, to, share of the pieces) tokens with special ones
  warnings: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
  """Names, and for each the value in each run."""
  rows: Sequence[tuple[str, Sequence[str], bool]]  # (name, values, whether they differ)

  @classmethod
  def of(cls, columns: Sequence[Mapping[str, object]]) -> 'Table':
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [(name, [show(column.get(name, '')) for column in columns]) for name in names]
    return cls([(name, values, len(set(values)) > 1) for name, values in rows])


def report(run_dirs: Sequence[storage.PathLike], output: storage.PathLike | None = None) -> storage.Path:
  """Writes one page about a run, or about several side by side; by default to report.html of the first.

  What of it is not there (data that moved, a checkpoint that was deleted) is said on the page.
  Raises ConfigError where a run has logged nothing yet, or a library is missing.
  """
  require(bool(run_dirs), 'report was given no run: wanted one at least')
  for run_dir in run_dirs:
    storage.probe(run_dir, 'the run')
  names = [str(run_dir) for run_dir in run_dirs]
  require(len(set(names)) == len(names), f'{names[0]} is named twice: wanted different runs')
  path = storage.path(output if output is not None else storage.path(run_dirs[0]) / PAGE)
  storage.probe(path, '--output', folder=False)
  runs = [charts.told(run_dir) for run_dir in run_dirs]
  recorded = [run_directory.read(run_dir) for run_dir in run_dirs]
  several = len(runs) > 1
  looks = [] if several else [look(run_dirs[0], recorded[0])]
  page = template().render(
      names=names, several=several, tiles=[tiles(run) for run in runs],
      charts=[charts.as_svg(chart, several) for chart in charts.charts(runs)],
      figures=Table.of([figures(run) for run in runs]),
      settings=Table.of([flat(record.config) | {'data': record.data} for record in recorded]),
      said=[said(run, run_dir) for run, run_dir in zip(runs, run_dirs)], **(looks[0] if looks else {}))
  storage.write_output(path, page.encode(errors='backslashreplace'))  # a name may be no UTF-8
  return path


def template():
  """The page's template; what is put into it is escaped. Raises ConfigError where the library is missing."""
  import jinja2
  place = jinja2.PackageLoader('bert_jax.report', '.')
  environment = jinja2.Environment(loader=place, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                   lstrip_blocks=True)
  environment.filters |= {'show': show, 'zip': lambda a, b: list(zip(a, b))}
  return environment.get_template('page.html')


def show(value: object) -> str:
  """A figure for people."""
  if isinstance(value, bool) or value is None:
    return str(value)
  if isinstance(value, int):
    return f'{value:,}'
  if isinstance(value, float):
    return f'{value:,.0f}' if value.is_integer() and abs(value) >= 1000 else f'{value:.4g}'
  return ', '.join(map(show, value)) if isinstance(value, list | tuple) else str(value)


def last(run: charts.Told, kind: str) -> Mapping[str, Any]:
  return next((line for line in reversed(run.lines) if line['kind'] == kind), {})


def tiles(run: charts.Told) -> list[tuple[str, str]]:
  """The few figures that one asks for first."""
  train = last(run, 'train')
  kind = 'evaluation' if run.evaluation else 'validation'
  found = run.evaluation or last(run, kind)
  steps = [line for line in run.lines if line['kind'] == 'train' and line.get('steps_per_second')]
  tokens = sum(line['tokens_per_second'] / line['steps_per_second'] * (line['step'] - before)
               for before, line in zip([0, *(line['step'] for line in steps)], steps))
  tile = {'steps': show(train.get('step', 0)), 'real tokens': f'{tokens / 1e6:,.1f} million',
          'minutes': f'{train.get("minutes", 0):,.1f}'}
  for term in run.objective.terms:
    for figure in ('loss', 'accuracy'):
      if (value := found.get(f'{term}_{figure}')) is not None:
        share = f'{value:.1%}' if figure == 'accuracy' else f'{value:.3f} nats'
        tile[f'{kind}: {term.upper()} {figure}'] = share
  if 'unigram_loss' in found:
    tile['unigram baseline'] = f'{found["unigram_loss"]:.3f} nats'
  return list(tile.items())


def figures(run: charts.Told) -> dict[str, object]:
  hidden = 'kind', metrics.TIME, run_directory.COPIES
  of = lambda title, line: {f'{title}: {name}': value for name, value in line.items() if name not in hidden}
  return of('evaluation', run.evaluation) | of('last steps', last(run, 'train'))


def said(run: charts.Told, run_dir: storage.PathLike) -> list[str]:
  """The sentences of a model card on its training, and on what its evaluation is of."""
  from bert_jax.convert import exchange
  found = exchange.told_of_run(run_dir, last(run, 'train').get('step', 0))
  if run.evaluation:
    kind, copies = run_directory.read(run_dir).kind, run.evaluation.get(run_directory.COPIES)
    found.append(f'Evaluated at step {run.evaluation["step"]:,}, on {card.evaluated_on(kind, copies)}.')
  return found


def look(run_dir: storage.PathLike, record: run_directory.Record) -> dict[str, Any]:
  """What a single run's page has more: its data, predictions and attention; or why some of it is not there."""
  found: dict[str, Any] = {'data': None, 'rows': [], 'attention': None, 'answers': None, 'step': None, 'missing': []}
  try:
    found |= (pretrained if isinstance(record.config, Config) else finetuned)(run_dir, record)
  except (DataError, CheckpointError, ConfigError) as error:
    found['missing'].append(str(error))
  return found


def pretrained(run_dir: storage.PathLike, record: run_directory.Record) -> dict[str, Any]:
  """Raises DataError, CheckpointError, ConfigError for what cannot be read."""
  loaded = checkpoint.load(run_dir)
  config = phases.at(record.config, loaded.step or 0)
  plain = dataclasses.replace(config, batch=dataclasses.replace(config.batch, pack=False, pairs_per_row=1))
  directory = phases.directory(record.data, plain)
  require_own(records.fingerprint(phases.manifests(record.data, record.config)), run_dir, record)
  stream = evaluate.open_validation(record.data, plain, 'framing')
  rows, attention = seen.look(loaded, stream.rows(0, min(ROWS, stream.rows_per_epoch)), stream.kinds.continues)
  return {'data': data(str(directory), config.batch), 'rows': rows, 'attention': attention, 'step': loaded.step}


def require_own(fingerprint: str, run_dir: storage.PathLike, record: run_directory.Record) -> None:
  """Raises DataError where what lies at the place of a run's data is not what it was trained on, or nobody knows."""
  if fingerprint != record.shards:
    holds = 'holds something else' if record.shards else 'may hold something else'
    raise DataError(f'{record.data} {holds} now than what {run_dir} was trained on, so that it is not described')


def finetuned(run_dir: storage.PathLike, record: run_directory.Record) -> dict[str, Any]:
  """Right and wrong answers on the first validation examples, and how many there are of each class.

  Raises DataError, CheckpointError, ConfigError.
  """
  from bert_jax import examples as examples_lib, program as program_lib
  from bert_jax.tasks import showing
  loaded = checkpoint.load(run_dir)
  config: Any = record.config
  found = examples_lib.all_of(config, record.data)
  require_own(examples_lib.fingerprint(found), run_dir, record)
  examples = found['validation'][:EXAMPLES]
  split = examples_lib.split_of(config, examples, loaded.tokenizer())
  answered = split.answer(program_lib.on_one_device(config), loaded.params, config)
  shown = [split.task.shown(example, answer) for example, answer in zip(examples, answered.answers)]
  chosen = {right: [one for one in shown if one.wanted is not None and one.right == right] for right in (True, False)}
  return {'step': loaded.step, 'answers': {'of': len(shown), 'groups': [
      (name, len(of), of[::-(-len(of) // ANSWERS)] if of else [])
      for name, of in (('right', chosen[True]), ('wrong', chosen[False]))],
      'classes': '\n'.join(showing.counts([one for one in shown if one.wanted is not None]))}}


def data(directory: str, batch: BatchConfig) -> Data:
  """What the shards hold, as the batches of a run are made of them."""
  from input_pipeline.inspection import looking
  found = looking.inspect(directory, examples=0, pairs=batch.pairs, most_tokens=SAMPLED_TOKENS, verify='framing')
  splits = list(found.splits)
  of = lambda name, field: (name, [field(split) for split in found.splits.values()])
  rows = dict([
      of('documents', lambda split: show(split.documents)), of('pieces', lambda split: show(split.pieces)),
      of('sentences', lambda split: show(split.sentences)), of('tokens', lambda split: show(split.tokens)),
      of('tokens of a piece, median', lambda split: show(split.piece_tokens[2])),
      of('unknown', lambda split: f'{split.unknown_share:.2%}'),
      of('padding of packed rows', lambda split: f'{split.padding_share_packed:.1%}') if batch.pack else
      of('padding', lambda split: f'{split.padding_share:.1%}')])
  if batch.pairs in NEGATIVES:
    rows |= [of(NEGATIVES[batch.pairs], lambda split: f'{split.negative_share:.1%}')]
  lengths = next(iter(found.splits.values())).lengths
  width, total = found.sequence_length / len(lengths), max(sum(lengths), 1)
  bins = [(round(i * width) + 1, round((i + 1) * width), count / total) for i, count in enumerate(lengths)]
  return Data(directory, rows, splits, bins, found.warnings)
