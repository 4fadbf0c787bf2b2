"""A Ray cluster of several nodes on this machine: each with processes and ports of its own, as `ray start` makes them,
ended by their ids.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping

CPUS = 1  # of a node
SECONDS = 120  # in which a process that was killed must be gone
ATTEMPTS = 4  # to start a node
STORE = 200 << 20  # bytes of objects in memory, of a node
# Ray that began a cluster by itself leaves ~/.ray/auth_token; from then on some of its parts ask for it, others do not.
NO_TOKEN = {'RAY_AUTH_MODE': 'disabled'}
os.environ.update(NO_TOKEN)  # drivers


def free_port() -> int:
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    return found.getsockname()[1]


def _task(process: int) -> str | None:
  """What a process calls itself; None of one that has ended."""
  try:
    return pathlib.Path(f'/proc/{process}/cmdline').read_bytes().decode(errors='replace').rstrip('\0') or None
  except OSError:
    return None


@dataclasses.dataclass
class Node:
  """A node whose processes are those of a session of their own."""
  process: subprocess.Popen

  def processes(self) -> list[int]:
    found = []
    for entry in pathlib.Path('/proc').glob('[0-9]*'):
      with contextlib.suppress(OSError):
        if os.getsid(int(entry.name)) == self.process.pid:
          found.append(int(entry.name))
    return found

  def kill(self) -> None:
    """As a machine that loses its power: all its processes at once."""
    while left := [one for one in self.processes() if _task(one) is not None]:
      for one in left:
        with contextlib.suppress(ProcessLookupError):
          os.kill(one, signal.SIGKILL)
      self.process.poll()
      time.sleep(0.01)
    self.process.wait(SECONDS)

  def tasks(self) -> dict[int, str]:
    """{process: the function that it works on} of its workers."""
    found = {one: _task(one) or '' for one in self.processes()}
    return {one: name.removeprefix('ray::') for one, name in found.items() if name.startswith('ray::')}


@dataclasses.dataclass
class Cluster:
  port: int  # of the head, for drivers on this machine
  clients: int  # of the server for drivers that are elsewhere
  folder: pathlib.Path  # whose name is short: sockets are in it
  environment: dict[str, str]
  nodes: list[Node]

  @property
  def direct(self) -> list[str]:
    return [f'--address=127.0.0.1:{self.port}', f'--_temp_dir={self.folder}']

  @property
  def by_proxy(self) -> list[str]:
    return [f'--address=ray://127.0.0.1:{self.clients}']

  def add(self, before: str = '', **environment: str) -> Node:
    """Starts one more node, the head first, and waits for it. `before`: what a shell does before, in mounts of its own.
    """
    head = not self.nodes
    command = [sys.executable, '-c', 'from ray.scripts.scripts import main; main()', 'start', '--block',
               '--disable-usage-stats', '--node-ip-address=127.0.0.1', f'--num-cpus={CPUS}',
               f'--object-store-memory={STORE}']
    command += ['--head', f'--temp-dir={self.folder}', f'--port={self.port}', '--include-dashboard=false',
                f'--ray-client-server-port={self.clients}'] if head else [f'--address=127.0.0.1:{self.port}']
    if before:
      command = ['unshare', '--mount', 'sh', '-ec', f'{before}; exec "$@"', 'sh', *command]
    for _ in range(ATTEMPTS):
      node = Node(subprocess.Popen(command, cwd=self.folder, env=self.environment | environment, text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   start_new_session=True))
      assert node.process.stdout
      said = []
      for line in node.process.stdout:
        said.append(line)
        if 'Ray runtime started' in line:
          self.nodes.append(node)
          return node
      node.kill()  # Ray gives itself 30 seconds, which a machine with much else to do may not have
    raise TimeoutError(''.join(said))


@contextlib.contextmanager
def running(nodes: int, path: str = '', more: Mapping[str, str] | None = None) -> Iterator[Cluster]:
  """A cluster, of which workers have another working directory than the test; the project comes to them with the job.

  `path`: their PYTHONPATH beside what is installed; `more`: other variables of their environment.
  """
  folder = pathlib.Path(tempfile.mkdtemp(prefix='ray-', dir='/tmp'))
  environment = {name: value for name, value in os.environ.items() if not name.startswith('RAY_')}
  # Ray's workers give way to all else, which beside other tests would be for ever.
  environment |= {'PYTHONPATH': path, 'RAY_worker_niceness': '0', **NO_TOKEN, **(more or {})}
  cluster = Cluster(free_port(), free_port(), folder, environment, [])
  try:
    for _ in range(nodes):
      cluster.add()
    yield cluster
  finally:
    for node in reversed(cluster.nodes):
      node.kill()
    shutil.rmtree(folder, ignore_errors=True)
