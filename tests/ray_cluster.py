"""A Ray cluster of several nodes on this machine: each with processes, ports and a folder of its own, as `ray start` makes
them, and ended by their ids.
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
from collections.abc import Iterator

CPUS = 1  # of a node
SECONDS = 120  # in which a cluster must be there, on a machine with much else to do
STORE = 200 << 20  # bytes of objects in memory, of a node


def free_port() -> int:
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    return found.getsockname()[1]


@dataclasses.dataclass
class Node:
  """A node whose processes are those of a session of their own."""
  process: subprocess.Popen
  folder: pathlib.Path

  def kill(self) -> None:
    """As a machine that loses its power: all its processes at once."""
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.process.pid, signal.SIGKILL)
    self.process.wait(SECONDS)

  def workers(self, name: str = '') -> list[int]:
    """The processes of its workers that are in a task whose function's name holds `name`."""
    found = []
    for entry in pathlib.Path('/proc').glob('[0-9]*'):
      with contextlib.suppress(OSError, ValueError):
        command = (entry / 'cmdline').read_bytes().decode(errors='replace')
        if command.startswith('ray::') and name in command and os.getpgid(int(entry.name)) == self.process.pid:
          found.append(int(entry.name))
    return found


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

  def add(self) -> Node:
    """Starts one more node, the head first, and waits for it."""
    head = not self.nodes
    command = [sys.executable, '-c', 'from ray.scripts.scripts import main; main()', 'start', '--block',
               '--disable-usage-stats', '--node-ip-address=127.0.0.1', f'--num-cpus={CPUS}',
               f'--object-store-memory={STORE}']
    command += ['--head', f'--temp-dir={self.folder}', f'--port={self.port}', '--include-dashboard=false',
                f'--ray-client-server-port={self.clients}'] if head else [f'--address=127.0.0.1:{self.port}']
    with (self.folder / f'{len(self.nodes)}.log').open('wb') as log:
      process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log,
                                 stdin=subprocess.DEVNULL, start_new_session=True)
    node = Node(process, self.folder)
    self.nodes.append(node)
    deadline = time.monotonic() + SECONDS
    while (log := (self.folder / f'{len(self.nodes) - 1}.log').read_text()).count('Ray runtime started') < 1:
      assert process.poll() is None and time.monotonic() < deadline, log
      time.sleep(0.1)
    return node


@contextlib.contextmanager
def running(nodes: int, path: str) -> Iterator[Cluster]:
  """A cluster; `path`: PYTHONPATH of its workers, which have another working directory than the test."""
  folder = pathlib.Path(tempfile.mkdtemp(prefix='ray-', dir='/tmp'))
  environment = {name: value for name, value in os.environ.items() if not name.startswith('RAY_')}
  environment |= {'PYTHONPATH': path, 'RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER': '1'}
  cluster = Cluster(free_port(), free_port(), folder, environment, [])
  try:
    for _ in range(nodes):
      cluster.add()
    yield cluster
  finally:
    for node in reversed(cluster.nodes):
      node.kill()
    shutil.rmtree(folder, ignore_errors=True)
