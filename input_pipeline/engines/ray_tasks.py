"""Tasks of Ray, some in flight at once; what is asked of each node; a driver that stays on the cluster."""

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from input_pipeline.engines import probing, ray_jobs

_IN_FLIGHT = 2  # tasks for each CPU that are asked for at once
_PERIOD = 10  # seconds for which the size of the cluster is believed
Tell = Callable[..., None]  # (stage, done, total, documents), of ray_jobs.py


def task(function: Callable, **options):
  import ray
  return ray.remote(**{'num_cpus': 1} | options)(function)


def cpus() -> int:
  """Of the cluster as it is now: one that grows when it has much to do gets more."""
  return _cpus_in(int(time.monotonic() // _PERIOD))


@functools.lru_cache(maxsize=1)
def _cpus_in(period: int) -> int:
  import ray
  return max(1, int(ray.cluster_resources().get('CPU', 1)))


def wanted() -> int:
  """Tasks that are to be in flight, or as many parts as work is worth to be cut into."""
  return _IN_FLIGHT * cpus()


def flow(jobs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, list, Any]]:
  """(key, references, small result) of tasks as they end. `jobs` are asked for as there is room: (key, the references
  that the task gives, the last of which is of the small result; or that one)."""
  import ray
  asked = iter(jobs)
  waiting: dict[Any, tuple[Any, list]] = {}
  while True:
    while len(waiting) < wanted() and (job := next(asked, None)) is not None:
      key, refs = job[0], job[1] if isinstance(job[1], list) else [job[1]]
      waiting[refs[-1]] = key, refs[:-1]
    if not waiting:
      return
    [done], _ = ray.wait(list(waiting))
    key, refs = waiting.pop(done)
    yield key, refs, ray.get(done)


def in_order(jobs: Iterable[tuple[Any, Any]]) -> list[tuple[list, Any]]:
  """(references, small result) of all tasks, by their keys."""
  found = {key: (refs, small) for key, refs, small in flow(jobs)}
  return [found[key] for key in sorted(found)]


def bundles(sized: Iterable[tuple], most: float) -> Iterator[list[tuple]]:
  """Items, whose first value is their size, in bundles of at most so much, and at least one."""
  bundle: list[tuple] = []
  size = 0.
  for item in sized:
    if bundle and size + item[0] > most:
      yield bundle
      bundle, size = [], 0.
    bundle.append(item)
    size += item[0]
  if bundle:
    yield bundle


def ask_nodes(tell: Tell, question: probing.Question) -> int:
  """Puts a question to each node, and gives how many there are. Raises what they find."""
  import ray
  from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
  nodes = [node['NodeID'] for node in ray.nodes() if node['Alive'] and node['Resources'].get('CPU')]
  to = [{'scheduling_strategy': NodeAffinitySchedulingStrategy(node, soft=True)} for node in nodes]
  answers = [task(probing.answer, **one).remote(question) for one in to or [{}]]
  while answers:
    done, answers = ray.wait(answers, timeout=ray_jobs.PATIENCE)
    ray.get(done)
    if not done:
      tell('waits for a free CPU of the cluster', 0, 0)
  probing.check_answered(question)
  return len(nodes)


def led(tell: Tell, work: Callable, *arguments) -> Any:
  """What work(tell, *arguments) gives: called here, or, where this machine is no part of the cluster, on it, so that
  references stay there. Of a list of references what they name, one by one."""
  import ray
  if not ray_jobs.is_by_proxy():
    found = work(tell, *arguments)
    return list(map(ray.get, found)) if isinstance(found, list) else found
  lead = ray.remote(num_cpus=0, max_concurrency=2)(_Lead).remote()
  result = lead.work.remote(work, *arguments)
  while not ray.wait([result], timeout=1)[0]:
    tell(*ray.get(lead.last.remote()))
  found, many = ray.get(result)
  return [ray.get(lead.value.remote(number)) for number in range(many)] if many is not None else found


class _Lead:
  """The driver as an actor on the cluster."""

  def __init__(self):
    self.told, self.refs = ('', 0, 0), []

  def work(self, work: Callable, *arguments) -> tuple[Any, int | None]:
    """(what it gives, None), or (None, how many references it gave)."""
    found = work(lambda *what: setattr(self, 'told', what), *arguments)
    if not isinstance(found, list):
      return found, None
    self.refs = found
    return None, len(found)

  def value(self, number: int) -> Any:
    import ray
    return ray.get(self.refs[number])

  def last(self) -> tuple:
    return self.told
