"""The stages of `prepare` on Ray: the same functions and the same shards, byte for byte, on many machines.

The driver holds references and small messages; text, runs, hashes and pieces go from worker to worker by Ray's object
store, which spills to disks, and are made again where a node is lost. Every task gives the same however often it runs.
  split      sources             -> raw documents, as they are read             ray_runs.py
  make_runs  raw documents       -> a run, and the table of its documents
  …          tables              -> decisions                                   ray_deciding.py
  select     runs, decisions     -> blocks of pieces                            ray_spreading.py
  spread     blocks              -> blocks of fewer cells
  write      blocks of a shard   -> its file, in the folder that is shared
"""

import collections
import itertools
import math

from input_pipeline import records
from input_pipeline.engines import gathering, probing, ray_jobs, ray_reading, ray_tasks
from input_pipeline.engines.ray_tasks import Tell
from input_pipeline.prepare import (
  forecast,
  jobs,
  portions,
  ray_deciding,
  ray_runs,
  ray_spreading,
  spill,
  splits,
  spreading,
  stages,
)
from input_pipeline.prepare.ray_plan import Plan, Sizes
from input_pipeline.text import sources

MEMORY = 340 << 20  # bytes that a worker takes, what it shares with the store of its node included; measured


def make_shards(job: jobs.Job) -> tuple[dict[str, records.Split], collections.Counter]:
  """Writes the shards of a mix into `data`; of an output in a bucket into `shared`, which every machine can reach."""
  gathering.refuse_what_is_read_once(job.parts)
  options = ray_jobs.options(job.arguments)
  parts = list(map(sources.absolute, job.parts))
  question = probing.ask(job.shared, f'--output {job.settings.output}', job.settings.engine, parts)
  expected = forecast.of(job)
  plan = Plan(job.settings, tuple(parts), stages.sent(job.vocabulary), job.vocabulary.unk_id, str(job.shared),
              Sizes(sources.CHUNK_BYTES, sources.SECTION_BYTES), None if expected is None else round(expected.text))
  found = ray_jobs.run(_drive, options, job.progress, question, plan, expected)
  jobs.bring(job, found[0])
  return found


def _check(arguments: tuple[str, ...]) -> None:
  ray_jobs.options(arguments)


ENGINE = jobs.Engine(make_shards, _check)

# ---------------------------------------------------------------- the driver


def _drive(tell: Tell, question: probing.Question, plan: Plan, expected: forecast.Forecast | None
           ) -> tuple[dict[str, records.Split], collections.Counter]:
  """In the process that is connected to Ray: a question to each node, what is to be expected, and then the work."""
  nodes = ray_tasks.ask_nodes(tell, question)
  if expected is not None:
    tell(_plan(expected, plan.sizes, nodes), 0, 0)
  return ray_tasks.led(tell, _work, plan)


def _plan(expected: forecast.Forecast, sizes: Sizes, nodes: int) -> str:
  runs = max(1, math.ceil(expected.text / ray_reading.run_bytes(sizes.chunk, sizes.run, round(expected.text))))
  blocks = max(1, math.ceil(expected.run_bytes / min(sizes.value, max(1, expected.run_bytes / ray_tasks.wanted()))))
  rounds = spreading.rounds_of(expected.cells(portions.TOKENS), sizes.fan)
  tasks = runs + rounds * blocks + sum(expected.shards.values())
  return forecast.sentence(expected, runs, tasks, MEMORY, f'that go from worker to worker {rounds + 1} times, '
                           f'{ray_tasks.cpus():,} CPUs of {nodes:,} nodes')


def _work(tell: Tell, plan: Plan) -> tuple[dict[str, records.Split], collections.Counter]:
  made = ray_runs.all_runs(tell, plan)
  counts = collections.Counter()
  for one in made:
    counts.update(one.counts)
  if not made:
    splits.check_documents(0, plan.settings, counts)
  near = plan.settings.near_duplicates is not None
  groups = ray_deciding.groups_of(made, ray_deciding.held(made, plan.sizes, near), near)
  decisions, totals = ray_deciding.decide(made, groups, plan, counts)
  writing_jobs, wanted, written = [], 0, {}
  share = sum(one.bytes for one in made) / max(1, counts['tokens'])
  every = [ray_spreading.cells(split, shards, totals[split], share, plan.sizes)
           for split, shards in splits.shard_counts(plan.settings, totals[spill.TRAIN].tokens).items()
           if totals[split].pieces]
  blocks = ray_spreading.select(made, groups, decisions, every, plan)
  for own, bytes, per_slice in blocks:
    cells = ray_spreading.spread(per_slice, own.ranges, bytes, plan.sizes)
    writing_jobs.append(ray_spreading.writing_of(own, cells, plan))
    wanted += own.shards
  results = {}
  for key, _, result in ray_tasks.flow(itertools.chain(*writing_jobs)):
    results[key] = result
    tell('shards', len(results), wanted)
  for own in every:
    written[spill.SPLITS[own.split]] = splits.split_of(
        totals[own.split].documents, [results[own.split, number] for number in range(own.shards)])
  return written, counts
