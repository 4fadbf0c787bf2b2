"""The stages of `prepare` on Ray: the same functions and the same shards, byte for byte, on many machines.

The driver holds references and small messages; text, runs, hashes and pieces go from worker to worker by Ray's object
store, which spills to disks, and are made again where a node is lost. Every task gives the same however often it runs.
  split      sources             -> raw documents, as they are read
  make_runs  raw documents       -> a run, and the table of its documents
  …          tables              -> decisions, by deciding.py
  select     runs, decisions     -> blocks of pieces, by spreading.py
  spread     blocks              -> blocks of fewer cells
  write      blocks of a shard   -> its file, in the folder that is shared
"""

import collections
import dataclasses
import functools
import itertools
import math
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from input_pipeline import records, storage
from input_pipeline.prepare import deciding, jobs, probing, ray_jobs, spill, splits, spreading, stages, writing
from input_pipeline.prepare.settings import Prepare
from input_pipeline.text import sources
from input_pipeline.vocabulary import tokenizer

_IN_FLIGHT = 2  # tasks for each CPU that are asked for at once
_AHEAD = 2  # raw documents, by how many tasks' worth reading is ahead
_TASKS = 4  # for each CPU of making runs, at least, where there is text enough
Tell = Callable[..., None]


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What bounds the memory of a worker, a value that is sent, and how many of them there are."""
  chunk: int  # bytes of raw text, sources.CHUNK_BYTES
  run: int = 16 << 20  # bytes of raw text of a run
  value: int = 32 << 20  # bytes of what is worked on at once: of runs, tables, blocks
  fan: int = 32  # ranges of keys of a round
  part_tokens: int = splits.PART_TOKENS  # merged at once for a shard


SIZES = functools.partial(Sizes)  # of a job, from the size of its chunks


@dataclasses.dataclass(frozen=True)
class Plan:
  """A job as it travels."""
  settings: Prepare
  parts: tuple[sources.Part, ...]
  vocabulary: stages.Sent
  unknown_id: int
  shared: str
  sizes: Sizes


@dataclasses.dataclass(frozen=True)
class Made:
  """A run that a worker made; its values are elsewhere."""
  table: object
  run: object
  counts: collections.Counter
  bytes: int
  documents: int


def make_shards(job: jobs.Job) -> tuple[dict[str, records.Split], collections.Counter]:
  """Writes the shards of a mix into `data`; of an output in a bucket into `shared`, which every machine can reach."""
  jobs.refuse_what_is_read_once(job)
  options = ray_jobs.options(job.arguments)
  parts = list(map(sources.absolute, job.parts))
  question = probing.ask(job.shared, job.settings.output, job.settings.engine, parts)
  plan = Plan(job.settings, tuple(parts), stages.sent(job.vocabulary), job.vocabulary.unk_id, str(job.shared),
              SIZES(sources.CHUNK_BYTES))
  found = ray_jobs.run(_drive, options, job.progress, question, plan)
  jobs.bring(job, found[0])
  return found


def _check(arguments: tuple[str, ...]) -> None:
  ray_jobs.options(arguments)


ENGINE = jobs.Engine(make_shards, _check)

# ---------------------------------------------------------------- the driver


def _drive(tell: Tell, question: probing.Question, plan: Plan) -> tuple[dict[str, records.Split], collections.Counter]:
  """In the process that is connected to Ray: a question to each node, and then the work."""
  import ray
  nodes = [node['NodeID'] for node in ray.nodes() if node['Alive'] and node['Resources'].get('CPU')]
  from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
  to = [{'scheduling_strategy': NodeAffinitySchedulingStrategy(node, soft=True)} for node in nodes]
  answers = [_task(probing.answer, **one).remote(question) for one in to or [{}]]
  while answers:
    done, answers = ray.wait(answers, timeout=ray_jobs.PATIENCE)
    ray.get(done)
    if not done:
      tell('waits for a free CPU of the cluster', 0, 0)
  probing.check_answered(question)
  if not ray_jobs.is_by_proxy():
    return _work(tell, plan)
  lead = ray.remote(num_cpus=0, max_concurrency=2)(_Lead).remote()  # references stay on the cluster
  result = lead.work.remote(plan)
  while not ray.wait([result], timeout=1)[0]:
    tell(*ray.get(lead.last.remote()))
  return ray.get(result)


class _Lead:
  """The driver as an actor on the cluster, where this machine is no part of it."""

  def __init__(self):
    self.told = ('', 0, 0)

  def work(self, plan: Plan) -> tuple[dict[str, records.Split], collections.Counter]:
    return _work(lambda *what: setattr(self, 'told', what), plan)

  def last(self) -> tuple:
    return self.told


def _work(tell: Tell, plan: Plan) -> tuple[dict[str, records.Split], collections.Counter]:
  import ray
  cpus = max(1, int(ray.cluster_resources().get('CPU', 1)))
  made = _all_runs(tell, plan, cpus)
  counts = collections.Counter()
  for one in made:
    counts.update(one.counts)
  groups = _groups(made, plan.sizes.value)
  decisions, totals = _decide(made, groups, plan, cpus, counts)
  writing_jobs, wanted, written = [], 0, {}
  share = sum(one.bytes for one in made) / max(1, counts['tokens'])
  every = [_cells(split, shards, totals[split], share, plan.sizes)
           for split, shards in splits.shard_counts(plan.settings, totals[spill.TRAIN].tokens).items()
           if totals[split].pieces]
  blocks = _select(made, groups, decisions, every, plan, cpus)
  for own, bytes, per_slice in blocks:
    cells = _spread(per_slice, own.ranges, bytes, plan.sizes, cpus)
    writing_jobs.append(_writing(own, cells, plan))
    wanted += own.shards
  results = {}
  for key, _, result in _flow(itertools.chain(*writing_jobs), _IN_FLIGHT * cpus):
    results[key] = result
    tell('shards', len(results), wanted)
  for own in every:
    written[spill.SPLITS[own.split]] = splits.split_of(
        totals[own.split].documents, [results[own.split, number] for number in range(own.shards)])
  return written, counts


def _task(function: Callable, **options):
  import ray
  return ray.remote(**{'num_cpus': 1} | options)(function)


def _flow(jobs: Iterable[tuple[object, list]], ahead: int) -> Iterator[tuple[object, list, object]]:
  """(key, references, small result) of tasks as they end. `jobs` are asked for as there is room: (key, [*references,
  that of the small result])."""
  import ray
  jobs, waiting = iter(jobs), {}
  while True:
    while len(waiting) < ahead and (job := next(jobs, None)) is not None:
      key, refs = job
      waiting[refs[-1]] = key, refs[:-1]
    if not waiting:
      return
    [done], _ = ray.wait(list(waiting))
    key, refs = waiting.pop(done)
    yield key, refs, ray.get(done)

# ---------------------------------------------------------------- text → runs


def _all_runs(tell: Tell, plan: Plan, cpus: int) -> list[Made]:
  """The runs of a mix, in its order."""
  import ray
  size = sum(part.stamp.bytes for part in plan.parts)
  target = max(plan.sizes.chunk, min(plan.sizes.run, size // (_TASKS * cpus)))
  vocabulary = ray.put(plan.vocabulary)
  make = _task(_make_runs, num_returns=3)
  asked = ((place, make.remote(raw, plan.settings, vocabulary)) for place, raw in _raw(plan, target, cpus))
  found, done, documents = {}, 0, 0
  for place, (table, run), (counts, bytes) in _flow(asked, _IN_FLIGHT * cpus):
    found[place] = Made(table, run, counts, bytes, counts['documents'])
    done += counts['bytes']
    documents += counts['documents']
    tell('text → pieces', done, None, documents)
  return [found[place] for place in sorted(found)]


def _raw(plan: Plan, target: int, cpus: int) -> Iterator[tuple[tuple[int, int], object]]:
  """((batch, number), reference to raw documents), as they are read; several sources are read beside each other."""
  import ray
  # no CPU: a reader waits, most of its time, until what it read is made into runs, which needs one
  split = _task(_split, num_cpus=0, num_returns='streaming', scheduling_strategy='SPREAD',
                _generator_backpressure_num_objects=_AHEAD)
  batches = enumerate(_batches(plan.parts, target))
  readers: collections.deque = collections.deque()  # (batch, numbers, reader), that which waits longest first
  while True:
    for batch, parts in itertools.islice(batches, max(1, cpus) - len(readers)):
      readers.append((batch, itertools.count(), split.remote(parts, plan.sizes.chunk, target)))
    if not readers:
      return
    [ready], _ = ray.wait([reader for *_, reader in readers], fetch_local=False)
    place = next(place for place, (*_, reader) in enumerate(readers) if reader is ready)
    batch, numbers, reader = readers[place]
    del readers[place]
    try:
      raw = next(reader)
    except StopIteration:
      continue
    readers.append((batch, numbers, reader))
    yield (batch, next(numbers)), raw


def _batches(parts: Sequence[sources.Part], target: int) -> Iterator[list[sources.Part]]:
  """Sources that one worker reads: small ones together."""
  batch, size = [], 0
  for part in parts:
    if batch and (size + part.stamp.bytes > target or part.weight != batch[0].weight):
      yield batch
      batch, size = [], 0
    batch.append(part)
    size += part.stamp.bytes
  if batch:
    yield batch


def _split(parts: list[sources.Part], chunk_bytes: int, target: int) -> Iterator[list[sources.Chunk]]:
  """The chunks of some sources, about `target` bytes of text at once; fewer where documents are taken many times."""
  most = max(1, int(target / max(1, parts[0].weight)))
  held, size = [], 0
  for chunk in sources.chunks(parts, min(chunk_bytes, most)):
    held.append(chunk)
    size += min(chunk_bytes, most)
    if size >= most:
      yield held
      held, size = [], 0
  if held:
    yield held


def _make_runs(raw: list[sources.Chunk], settings: Prepare, vocabulary: stages.Sent
               ) -> tuple[deciding.Table, spill.Run, tuple[collections.Counter, int]]:
  counts, made = collections.Counter(), []
  for chunk in raw:
    run, own = stages.make_run(chunk, settings, stages.unpacked(vocabulary))
    made.append(run)
    counts.update(own)
  run = spill.join(made)
  return deciding.table(run), run, (counts, spill.size(run))

# ---------------------------------------------------------------- what is decided of documents


def _groups(made: list[Made], value: int) -> list[list[int]]:
  """Runs in a row whose tables, and whose pieces, are worked on together."""
  groups, size = [], 0
  for number, one in enumerate(made):
    rows = one.documents * deciding.ROW.itemsize
    if not groups or size + rows > value:
      groups.append([])
      size = 0
    groups[-1].append(number)
    size += rows
  return groups


def _decide(made: list[Made], groups: list[list[int]], plan: Plan, cpus: int, counts: collections.Counter
            ) -> tuple[list, dict[int, splits.Total]]:
  """References to the decisions of each group, and what each split holds; counts documents. Raises DataError."""
  rows = sum(one.documents for one in made) * deciding.ROW.itemsize
  parts, firsts, ahead = max(1, -(-rows // plan.sizes.value)), [group[0] for group in groups], _IN_FLIGHT * cpus
  tables = [[made[number].table for number in group] for group in groups]
  rows_of = _task(_rows_of, num_returns=parts + 2)
  own, by_text = {}, {}
  for group, (copies, *blocks), _ in _flow(
      ((group, rows_of.remote(firsts[group], parts, *tables[group])) for group in range(len(groups))), ahead):
    own[group], by_text[group] = copies, blocks
  drop = _task(_drop_copies, num_returns=2 * len(groups) + parts + 1)
  dropped, renamed, by_rank, found = {}, {}, {}, []
  for part, refs, one in _flow(
      ((part, drop.remote(firsts, parts, *(by_text[group][part] for group in range(len(groups)))))
       for part in range(parts)), ahead):
    dropped[part], renamed[part] = refs[:len(groups)], refs[len(groups):2 * len(groups)]
    by_rank[part] = refs[2 * len(groups):]
    found.append(one)
  by_text.clear()
  rename = _task(_rename, num_returns=len(groups) + 1)
  for part, refs, one in _flow(((part, rename.remote(firsts, *(by_rank[from_][part] for from_ in range(parts))))
                                for part in range(parts)), ahead):
    renamed[parts + part] = refs
    found.append(one)
  all_found = deciding.together(found)
  below = splits.threshold(list(all_found.smallest), all_found.documents, plan.settings.validation_share)
  decide = _task(_decide_group, num_returns=2)
  decisions, totals = {}, collections.defaultdict(list)
  for group, [ref], (more, own_totals) in _flow(
      ((group, decide.remote(firsts[group], below, len(tables[group]), parts + 1, *tables[group], own[group],
                             *(dropped[part][group] for part in range(parts)),
                             *(renamed[part][group] for part in range(2 * parts))))
       for group in range(len(groups))), ahead):
    decisions[group] = ref
    counts.update(more)
    for split, total in own_totals.items():
      totals[split].append(total)
  summed = {split: splits.sum_of(totals[split]) for split in spill.SPLITS}
  splits.check_documents(all_found.documents, plan.settings, counts)
  splits.check_totals(plan.settings, summed)
  return [decisions[group] for group in range(len(groups))], summed


def _rows_of(first: int, parts: int, *tables: deciding.Table) -> tuple:
  copies, rows = deciding.rows_of(first, tables, parts)
  return copies, *rows, None


def _drop_copies(firsts: list[int], parts: int, *blocks: np.ndarray) -> tuple:
  dropped, renamed, onward, found = deciding.drop_copies(blocks, firsts, parts)
  return *dropped, *renamed, *onward, found


def _rename(firsts: list[int], *blocks: np.ndarray) -> tuple:
  renamed, found = deciding.rename(blocks, firsts)
  return *renamed, found


def _decide_group(first: int, below: np.uint64, runs: int, dropped: int, *given) -> tuple:
  tables, drops, renames = given[:runs], given[runs:runs + dropped], given[runs + dropped:]
  decisions, counts, totals = deciding.decide(first, tables, drops, renames, below)
  return decisions, (counts, totals)

# ---------------------------------------------------------------- runs → shards


def _cells(split: int, shards: int, total: splits.Total, share: float, sizes: Sizes) -> spreading.Cells:
  """`share`: bytes of a token in runs, with all that belongs to it."""
  return spreading.cells(split, shards, max(1, math.ceil(total.tokens * share / shards / sizes.value)))


def _select(made: list[Made], groups: list[list[int]], decisions: list, every: list[spreading.Cells], plan: Plan,
            cpus: int) -> list[tuple[spreading.Cells, float, list[list]]]:
  """Of each split the bytes, and for each slice of its cells the references of blocks; the runs are let go."""
  sliced = [(own.split, spreading.whole(part)) for own in every for part in spreading.slices(own.ranges, plan.sizes.fan)]
  size = sum(one.bytes for one in made)
  most = min(plan.sizes.value, max(1, size // (_IN_FLIGHT * cpus)))
  select = _task(_select_of, num_returns=len(sliced) + 1)

  def asked() -> Iterator[tuple[tuple[int, int], list]]:
    for number, group in enumerate(groups):
      for bundle in _bundles([(made[run].bytes, place, run) for place, run in enumerate(group)], most):
        places, runs = [place for _, place, _ in bundle], [made[run].run for _, _, run in bundle]
        yield (number, places[0]), select.remote(sliced, places, decisions[number], *runs)

  found, sizes = {}, collections.Counter()
  for place, refs, bytes in _flow(asked(), _IN_FLIGHT * cpus):
    found[place] = refs
    sizes.update(bytes)
  made.clear()
  in_order = [found[place] for place in sorted(found)]
  per_slice: dict[int, list[list]] = {own.split: [] for own in every}
  for column, (split, _) in enumerate(sliced):
    per_slice[split].append([refs[column] for refs in in_order])
  return [(own, sizes[own.split], per_slice[own.split]) for own in every]


def _bundles(sized: Iterable[tuple], most: float) -> Iterator[list[tuple]]:
  """Items, whose first value is their size, in bundles of at most so much, and at least one."""
  bundle, size = [], 0.
  for item in sized:
    if bundle and size + item[0] > most:
      yield bundle
      bundle, size = [], 0.
    bundle.append(item)
    size += item[0]
  if bundle:
    yield bundle


def _spread(per_slice: list[list], ranges: Sequence[spreading.Range], bytes: float, sizes: Sizes, cpus: int
            ) -> Iterator[list]:
  """The references of blocks of each cell, in order. What a slice came from is let go before the next one."""
  for own, blocks in zip(spreading.slices(ranges, sizes.fan), _taken(per_slice)):
    if len(own) == 1:
      yield blocks
      continue
    finer, mean = spreading.slices(own, sizes.fan), bytes * len(own) / len(ranges) / len(blocks)
    spread = _task(_spread_of, num_returns=len(finer) + 1)
    asked = ((number, spread.remote(list(map(spreading.whole, finer)), *(block for _, block in bundle)))
             for number, bundle in enumerate(_bundles([(mean, block) for block in _taken(blocks)], sizes.value)))
    found = {number: refs for number, refs, _ in _flow(asked, _IN_FLIGHT * cpus)}
    columns = [[found[number][column] for number in sorted(found)] for column in range(len(finer))]
    found.clear()
    yield from _spread(columns, own, bytes * len(own) / len(ranges), sizes, cpus)


def _taken(items: list) -> Iterator:
  """The items, which leave the list one by one."""
  items.reverse()
  while items:
    yield items.pop()


def _writing(own: spreading.Cells, cells: Iterator[list], plan: Plan) -> Iterator[tuple[tuple[int, int], list]]:
  """((split, shard), [reference]) of the tasks that write the shards of a split."""
  write = _task(_write)
  for number in range(own.shards):
    blocks = list(itertools.islice(cells, own.of_a_shard))
    name = records.shard_name(spill.SPLITS[own.split], number, own.shards)
    yield (own.split, number), [write.remote(name, own.of_shard(number), blocks, plan.sizes.part_tokens,
                                             plan.unknown_id, plan.shared)]


def _select_of(sliced: list[tuple[int, spreading.Range]], places: list[int], decisions: list[spill.Decisions],
               *runs: spill.Run) -> tuple:
  sizes, blocks = collections.Counter(), []
  for split, cells in sliced:
    [block] = spreading.select(runs, [decisions[place] for place in places], split, [cells])
    blocks.append(block)
    sizes[split] += sum(spill.size_of(part) for part in block)
  return *blocks, sizes


def _spread_of(ranges: list[spreading.Range], *blocks: spreading.Block) -> tuple:
  return *spreading.spread(blocks, ranges), None


def _write(name: str, ranges: Sequence[spreading.Range], blocks: list[list], part_tokens: int, unknown_id: int,
           shared: str) -> tuple[records.Shard, dict[str, int]]:
  """One shard, cell by cell: only one cell's blocks are here at once."""
  import ray
  with tempfile.TemporaryDirectory() as folder:
    local = pathlib.Path(folder) / name
    parts = (part for cell, refs in zip(ranges, blocks)
             for part in spreading.in_parts(ray.get(refs), cell, part_tokens))
    found = writing.write_shard(local, parts, unknown_id)
    storage.put(local, storage.path(shared) / name)
  return found
