"""A SLURM cluster of two virtual nodes on this machine, of Debian's packages, that leaves the machine as it was.

Nothing is installed: the packages are unpacked into a folder, and the daemons run in namespaces of their own, in which
/etc/hosts names the nodes, and which end all that runs in them with the first process. It needs root and apt-get.
"""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator

PACKAGES = ('slurmctld', 'slurmd', 'slurm-client', 'slurm-wlm-basic-plugins', 'libmunge2', 'libhwloc15', 'liblua5.1-0')
LIBRARIES = 'usr/lib/x86_64-linux-gnu'
# As few differences from a cluster's usual settings as one machine allows; KillWait is shorter, so that a
# test takes less.
CONF = '''ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
PluginDir={root}/{libraries}/slurm-wlm
StateSaveLocation={work}/state
SlurmdSpoolDir={work}/spool-%n
SlurmdPidFile={work}/slurmd-%n.pid
SlurmctldPidFile={work}/slurmctld.pid
SlurmctldLogFile={work}/slurmctld.log
SlurmdLogFile={work}/slurmd-%n.log
SlurmctldPort=16817
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
OverTimeLimit=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=1,bf_interval=1
NodeName=n1 NodeAddr=127.0.0.1 NodeHostname={host} Port=16901 CPUs=8 RealMemory=1000
NodeName=n2 NodeAddr=127.0.0.1 NodeHostname={host} Port=16902 CPUs=8 RealMemory=1000
PartitionName=normal Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=15
PartitionName=urgent Nodes=ALL PriorityTier=9 PreemptMode=OFF
'''
# setpriv: should the process that starts it be killed, so is it.
APART = ('setpriv', '--pdeathsig', 'KILL', 'unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc')
BEGIN = '''set -e
mount --bind {work}/hosts /etc/hosts
slurmctld-wlm
for node in n1 n2; do slurmd-wlm -d {root}/usr/sbin/slurmstepd-wlm -N $node; done
exec sleep infinity
'''


def possible() -> bool:
  """Whether this machine lets it be made."""
  return os.geteuid() == 0 and all(map(shutil.which, ('apt-get', 'dpkg', 'unshare', 'nsenter', 'mount', 'setpriv')))


class Cluster:
  """A cluster that runs; `work`: its files."""

  def __init__(self, work: pathlib.Path, environment: dict[str, str], pid: int):
    self.work, self.environment, self.pid = work, environment, pid

  def run(self, *command: str, **more: str) -> str:
    """What a command in the cluster prints."""
    enter = ['nsenter', f'--target={self.pid}', '--mount', '--pid', *command]
    done = subprocess.run(enter, env=self.environment | more, capture_output=True, text=True, timeout=60)
    assert not done.returncode, done.stderr
    return done.stdout

  def submit(self, script: pathlib.Path, *arguments: str, options: tuple[str, ...] = (), **more: str) -> int:
    """The number of the job, of one task on each node, without GPUs."""
    small = '--ntasks-per-node=1', '--cpus-per-task=1', '--gpus-per-node=0'
    said = self.run('sbatch', *small, f'--output={self.work}/job-%j.log', *options, str(script), *arguments, **more)
    return int(said.split()[-1])

  def job(self, number: int) -> dict[str, str]:
    """What SLURM says of a job."""
    return dict(re.findall(r'(\w+)=(\S*)', self.run('scontrol', 'show', 'job', '--oneliner', str(number))))

  def log(self, number: int) -> str:
    path = self.work / f'job-{number}.log'
    return path.read_text() if path.exists() else ''

  def wait(self, number: int, states: tuple[str, ...], seconds: float = 60, restarts: int = 0) -> dict[str, str]:
    """The job, once it is in one of these states and was queued again so often."""
    end = time.monotonic() + seconds
    while True:
      job = self.job(number)
      if job['JobState'] in states and int(job['Restarts']) >= restarts:
        return job
      assert time.monotonic() < end, f'{job}\n{self.log(number)}'
      time.sleep(0.2)

  def again(self, number: int, restarts: int = 1, seconds: float = 60) -> dict[str, str]:
    """The job, once it was queued again so often; it then begins soon, where SLURM would wait two minutes."""
    job = self.wait(number, ('PENDING', 'RUNNING', 'COMPLETED', 'FAILED'), seconds, restarts)
    if job['JobState'] == 'PENDING':
      time.sleep(3)  # in the second in which it was queued again its nodes would not have it
      with contextlib.suppress(AssertionError):  # it may have begun
        self.run('scontrol', 'update', f'JobId={number}', 'StartTime=now')
    return job


def unpacked(folder: pathlib.Path) -> pathlib.Path:
  """The folder in which Debian's packages are unpacked."""
  root, packages = folder / 'root', folder / 'packages'
  packages.mkdir(parents=True)
  subprocess.run(['apt-get', 'download', *PACKAGES], cwd=packages, check=True, capture_output=True)
  for package in sorted(packages.glob('*.deb')):
    subprocess.run(['dpkg', '-x', package, root], check=True)
  return root


@contextlib.contextmanager
def cluster(root: pathlib.Path, work: pathlib.Path) -> Iterator[Cluster]:
  """A cluster while it is needed. Raises AssertionError where its nodes do not come up."""
  (work / 'state').mkdir(parents=True)
  host = os.uname().nodename
  (work / 'hosts').write_text('127.0.0.1 n1 n2\n' + pathlib.Path('/etc/hosts').read_text())
  (work / 'slurm.conf').write_text(CONF.format(host=host, root=root, libraries=LIBRARIES, work=work))
  environment = os.environ | {
      'LD_LIBRARY_PATH': f'{root}/{LIBRARIES}:{root}/{LIBRARIES}/slurm-wlm', 'SLURM_CONF': f'{work}/slurm.conf',
      'PATH': f'{root}/usr/bin:{root}/usr/sbin:{os.environ["PATH"]}'}
  outer = subprocess.Popen([*APART, 'bash', '-c', BEGIN.format(work=work, root=root)], env=environment)
  try:
    children = pathlib.Path(f'/proc/{outer.pid}/task/{outer.pid}/children')
    end = time.monotonic() + 30
    while True:
      found = children.read_text().split()
      if found:
        made = Cluster(work, environment, int(found[0]))
        with contextlib.suppress(AssertionError):
          if made.run('sinfo', '--noheader', '--format=%T %D').split() == ['idle', '2']:
            break
      assert outer.poll() is None and time.monotonic() < end, 'the nodes do not come up'
      time.sleep(0.2)
    yield made
  finally:
    outer.kill()  # and with it all in its namespaces
    outer.wait()
