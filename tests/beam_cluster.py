"""Apache Beam's portable runner on this machine: a job server and a pool that starts workers, as processes that share
nothing with the test but disks: not its working directory, and what is asked for of its Python.
"""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

WORKERS = 2
SECONDS = 120  # in which a server must be there, on a machine with much else to do


def _free_port() -> int:
  with socket.socket() as found:
    found.bind(('localhost', 0))
    return found.getsockname()[1]


@contextlib.contextmanager
def portable(folder: pathlib.Path, path: str) -> Iterator[list[str]]:
  """The arguments by which Beam reaches the cluster. `path`: PYTHONPATH of the workers."""
  jobs, pool = _free_port(), _free_port()
  environment = os.environ | {'PYTHONPATH': path, 'PATH': f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}'}
  folder.mkdir()
  with (folder / 'log.txt').open('wb') as log:
    start = lambda module, *arguments: subprocess.Popen(
        [sys.executable, '-m', f'apache_beam.runners.{module}', *arguments], cwd=folder, env=environment, stdout=log,
        stderr=log)
    servers = [start('portability.local_job_service_main', '-p', str(jobs)),
               start('worker.worker_pool_main', f'--service_port={pool}')]
    try:
      for port in (jobs, pool):
        _wait_for(port, servers)
      yield ['--runner=PortableRunner', f'--job_endpoint=localhost:{jobs}', '--environment_type=EXTERNAL',
             f'--environment_config=localhost:{pool}', f'--direct_num_workers={WORKERS}']
    finally:
      for server in servers:
        server.terminate()
      for server in servers:
        server.wait(SECONDS)


def _wait_for(port: int, servers: list[subprocess.Popen]) -> None:
  deadline = time.monotonic() + SECONDS
  while time.monotonic() < deadline:
    assert all(server.poll() is None for server in servers), 'a server ended'
    with contextlib.suppress(OSError), socket.create_connection(('localhost', port), 1):
      return
    time.sleep(0.1)
  raise TimeoutError(f'nothing listens on {port}')
