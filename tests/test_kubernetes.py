"""launch/kubernetes: what apply.sh and prepare.sh refuse and fill in; manifests against the fields of their kinds."""

import re
import subprocess

import pytest
from launchers import AGAIN, ENDS, LAUNCH, MISSING, calls, fake, forbid, run

JOB = {'IMAGE': 'registry/bert-jax:1', 'DATA': 'gs://b/data', 'RUN_DIR': 'gs://b/run&1', 'RECIPE': 'large'}
LABEL = r'[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?'

# ---------------------------------------------------------------- manifests

# Fields of the kinds that are used here, with the types of their values; (…,): a list of such. '!' in front: required.
VARIABLE = {'!name': str, 'value': str, 'valueFrom': {'!fieldRef': {'!fieldPath': str}}}
CONTAINER = {
    '!name': str, '!image': str, 'securityContext': {'runAsUser': int}, 'args': (str,), 'command': (str,),
    'env': (VARIABLE,),
    'ports': ({'!containerPort': int, 'name': str},),
    '!resources': {'!requests': dict, '!limits': dict}, 'volumeMounts': ({'!name': str, '!mountPath': str},)}
POD = {'!restartPolicy': str, '!containers': (CONTAINER,), '!nodeSelector': dict, 'terminationGracePeriodSeconds': int,
       'tolerations': ({'key': str, 'operator': str, 'value': str, 'effect': str},),
       'volumes': ({'!name': str, 'emptyDir': {'medium': str, 'sizeLimit': str}},)}
EXIT_CODES = {'containerName': str, '!operator': str, '!values': (int,)}
POD_RULE = {'!action': str, 'onExitCodes': EXIT_CODES, 'onPodConditions': (dict,)}
JOB_SPEC = {'!completionMode': str, '!parallelism': int, '!completions': int, '!backoffLimit': int,
            'podFailurePolicy': {'!rules': (POD_RULE,)}, '!template': {'metadata': dict, '!spec': POD}}
FAILURE_RULE = {'!name': str, '!action': str, 'onJobFailureReasons': (str,), 'targetReplicatedJobs': (str,)}
RAY_POD = {'!serviceAccountName': str, '!containers': (CONTAINER,), 'terminationGracePeriodSeconds': int}
GROUP = {'!rayStartParams': dict, '!template': {'!spec': RAY_POD}}
METADATA = {'!name': str, 'annotations': dict, 'labels': dict, 'namespace': str}
JOB_SET = {'!apiVersion': str, '!kind': str, '!metadata': METADATA, '!spec': {
    'network': {'enableDNSHostnames': bool, 'subdomain': str},
    'failurePolicy': {'maxRestarts': int, 'rules': (FAILURE_RULE,)},
    '!replicatedJobs': ({'!name': str, 'replicas': int, '!template': {'metadata': dict, '!spec': JOB_SPEC}},)}}
# ray-operator/apis/ray/v1: rayjob_types.go, raycluster_types.go
RAY_JOB = {'!apiVersion': str, '!kind': str, '!metadata': METADATA, '!spec': {
    'submissionMode': str, '!entrypoint': str, 'backoffLimit': int, 'shutdownAfterJobFinishes': bool,
    'ttlSecondsAfterFinished': int, '!rayClusterSpec': {
        '!headGroupSpec': GROUP,
        'workerGroupSpecs': (GROUP | {'!groupName': str, 'replicas': int, '!minReplicas': int, '!maxReplicas': int},)}}}
TEXT = {'IMAGE': 'registry/bert-jax:ray', 'INPUT': 'gs://b/a b/*.gz,gs://b/it\'s=0.5', 'VOCABULARY': '/home/bert/v.txt',
        'OUTPUT': 'gs://b/data'}


def check(value, kind, where: str) -> None:
  if isinstance(kind, dict):
    assert isinstance(value, dict), f'{where} is {value!r}'
    fields = {name.lstrip('!'): (name[0] == '!', inner) for name, inner in kind.items()}
    assert not value.keys() - fields.keys(), f'{where} has unknown {value.keys() - fields.keys()}'
    for name, (required, inner) in fields.items():
      assert name in value or not required, f'{where} lacks {name}'
      if name in value:
        check(value[name], inner, f'{where}.{name}')
  elif isinstance(kind, tuple):
    assert isinstance(value, list) and value, f'{where} is {value!r}'
    for i, item in enumerate(value):
      check(item, kind[0], f'{where}[{i}]')
  else:
    assert type(value) is kind, f'{where} is {value!r}, wanted {kind.__name__}'


@pytest.fixture
def forbidden(tmp_path):
  return forbid(tmp_path)


def filled(kind: str, forbidden, *further, **env) -> dict:
  return printed(forbidden, 'kubernetes/apply.sh', kind, *further, **JOB | env)


def printed(forbidden, script: str, *further, **env) -> dict:
  """The manifest that a dry run prints."""
  yaml = pytest.importorskip('yaml')
  result = run(script, *further, path=forbidden, DRY_RUN='1', **env)
  assert result.returncode == 0 and not calls(forbidden, 'kubectl'), result.stderr
  assert 'kubectl create -f -' in result.stderr
  body = '\n'.join(line.partition(' # ')[0] for line in result.stdout.splitlines())
  assert not re.search(r'__[A-Z]\w*__', body.replace('__DATA__ of a person', ''))
  return yaml.safe_load(result.stdout)


def pod_of(manifest) -> dict:
  return manifest['spec']['replicatedJobs'][0]['template']['spec']['template']['spec']


@pytest.mark.parametrize('kind', ['tpu', 'gpu'])
def test_manifests(kind, forbidden):
  further = ['--run.steps', '7', '--x', 'a "b" \\ #c: {d} $(ATTEMPT) __DATA__ of a person']
  manifest = filled(kind, forbidden, *further)
  check(manifest, JOB_SET, kind)
  assert (manifest['apiVersion'], manifest['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
  [rule] = manifest['spec']['failurePolicy']['rules']
  assert re.fullmatch(r'[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?', rule['name'])  # JobSet's own rule
  [replicated] = manifest['spec']['replicatedJobs']
  job = replicated['template']['spec']
  pod = job['template']['spec']
  [container] = pod['containers']
  assert job['completionMode'] == 'Indexed' and job['parallelism'] == job['completions']
  assert pod['restartPolicy'] == 'Never'
  assert all(rule['onExitCodes']['containerName'] == container['name'] for rule in job['podFailurePolicy']['rules'])
  mounted = {mount['name'] for mount in container.get('volumeMounts', [])}
  assert mounted == {volume['name'] for volume in pod.get('volumes', [])}
  names = manifest['metadata']['name'], replicated['name'], container['name']
  assert all(re.fullmatch(LABEL, name) for name in names)
  assert container['image'] == JOB['IMAGE']
  [rule] = job['podFailurePolicy']['rules']
  assert rule['action'] == 'FailJob' and rule['onExitCodes']['operator'] == 'In'
  assert tuple(rule['onExitCodes']['values']) == (*ENDS, *MISSING) and not set(ENDS) & set(AGAIN)
  own, command = container['args'][:4], container['args'][4:]
  assert own == ['supervise', '--attempt', '$(ATTEMPT)', '--']
  assert command[:6] == ['pretrain', 'large', '--data', 'gs://b/data', '--run-dir', 'gs://b/run&1']
  assert command[-4:] == [*further[:-1], further[-1].replace('$(', '$$(')]  # Kubernetes makes one of it
  assert all(('value' in variable) != ('valueFrom' in variable) for variable in container['env'])
  sources = {variable['name']: variable.get('valueFrom') for variable in container['env']}
  assert sources['ATTEMPT'] == {'fieldRef': {'fieldPath': "metadata.annotations['jobset.sigs.k8s.io/restart-attempt']"}}
  variables = {variable['name']: variable.get('value') for variable in container['env']}
  assert variables['JAX_COMPILATION_CACHE_DIR'] == 'gs://b/run&1-compilation-cache'
  assert container['resources']['requests'] == container['resources']['limits']
  kind, = container['resources']['limits']
  check_tpu(job, pod, container) if kind == 'google.com/tpu' else check_gpu(manifest, replicated, job, container)


def check_tpu(job, pod, container):
  sides = [int(side) for side in pod['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x')]
  assert 'cloud.google.com/gke-tpu-accelerator' in pod['nodeSelector']
  assert sides[0] * sides[1] == job['parallelism'] * container['resources']['limits']['google.com/tpu']
  assert not any(word.startswith('--distributed') for word in container['args'])  # GKE tells JAX


def check_gpu(manifest, replicated, job, container):
  from bert_jax.config import Distributed
  flags = dict(zip(container['args'][10:16:2], container['args'][11:16:2]))
  assert flags.pop('--distributed.process-id') == '$(JOB_COMPLETION_INDEX)'
  host, port = flags['--distributed.coordinator'].split(':')
  name = manifest['metadata']['name']
  assert host == f'{name}-{replicated["name"]}-0-0.{name}'  # JobSet's host names
  assert manifest['spec']['network']['enableDNSHostnames']
  assert int(port) in [port['containerPort'] for port in container['ports']]
  distributed = Distributed(flags['--distributed.coordinator'], int(flags['--distributed.processes']), 0)
  assert distributed.processes == job['parallelism']


def test_every_setting_arrives(forbidden):
  tpu = filled('tpu', forbidden, TPU='tpu-v6e-slice', TOPOLOGY='2x4', CHIPS='8', GRACE_SECONDS='25', MOST_RESTARTS='5',
               NAME='mine', CACHE_DIR='gs://b/c', RUN_AS='0')
  job = tpu['spec']['replicatedJobs'][0]['template']['spec']
  container, = pod_of(tpu)['containers']
  assert pod_of(tpu)['nodeSelector'] == {'cloud.google.com/gke-tpu-accelerator': 'tpu-v6e-slice',
                                         'cloud.google.com/gke-tpu-topology': '2x4'}
  assert (job['parallelism'], container['resources']['limits']) == (1, {'google.com/tpu': 8})
  assert pod_of(tpu)['terminationGracePeriodSeconds'] == 25 and tpu['spec']['failurePolicy']['maxRestarts'] == 5
  assert container['securityContext'] == {'runAsUser': 0} and pod_of(filled('gpu', forbidden))['containers'][0][
      'securityContext'] == {'runAsUser': 1000}
  assert tpu['metadata']['name'] == 'mine' and 'gs://b/c' in str(container['env'])
  gpu = filled('gpu', forbidden, GPU='nvidia-l4', GPUS='4', MACHINES='3', NAME='mine')
  container, = pod_of(gpu)['containers']
  assert gpu['spec']['replicatedJobs'][0]['template']['spec']['completions'] == 3
  assert container['resources']['limits'] == {'nvidia.com/gpu': 4}
  assert pod_of(gpu)['nodeSelector'] == {'cloud.google.com/gke-accelerator': 'nvidia-l4'}
  assert container['args'][10:14] == ['--distributed.coordinator', 'mine-worker-0-0.mine:1234',
                                      '--distributed.processes', '3']


def test_two_runs_do_not_collide(forbidden):
  """By the run's folder, as a DNS label, however it is called; the same for the same run."""
  folders = ['gs://b/runs/base', 'gs://c/runs/base', 'gs://b/runs/Base', 'gs://b/runs/base.v2',
             'gs://b/' + 90 * 'long-', 'gs://b/\u4e2d\u6587', 'gs://b/---', 'gs://b/-a-', 'gs://b/1']
  ask = f'source {LAUNCH}/shared.sh; for folder in "$@"; do name_of "$folder"; done'
  command = ['bash', '-c', ask, 'x', *folders, 'gs://b/runs/base/']
  said = subprocess.run(command, capture_output=True, text=True, check=True)
  *names, again = said.stdout.splitlines()
  assert again == names[0] and names[0].startswith('bert-jax-base-') and len(set(names)) == len(folders)
  assert all(re.fullmatch(LABEL, name) and len(f'{name}-worker-0-9999-abcde') <= 63 for name in names), names
  assert filled('gpu', forbidden, RUN_DIR=folders[0])['metadata']['name'] == names[0]


@pytest.mark.parametrize('arguments, env, said', [
    ([], {}, "found no manifest '', wanted tpu or gpu"), (['cpu'], {}, "'cpu'"),
    *[(['tpu'], {name: ''}, f'set {name}') for name in ('IMAGE', 'DATA', 'RUN_DIR')],
    (['tpu'], {'RUN_DIR': '/runs/base'}, "RUN_DIR is '/runs/base', wanted gs://"),
    (['gpu'], {'DATA': 'data'}, 'DATA is'),
    (['tpu', '--run-dir', 'gs://b/x'], {}, '--run-dir is set by'), (['tpu', '--data=gs://b/x'], {}, '--data is set by'),
    (['gpu', '--distributed.processes', '2'], {}, '--distributed.processes is set by the manifest'),
    (['tpu'], {'NAME': 'My_Run'}, 'wanted at most 42'), (['tpu'], {'TOPOLOGY': '4'}, 'wanted 4x4'),
    (['tpu'], {'TOPOLOGY': '1x1'}, 'no whole machines of CHIPS 4'), (['tpu'], {'MACHINES': '3'}, 'not MACHINES 3'),
    (['gpu'], {'GPUS': '0'}, 'wanted a whole number'), (['gpu'], {'RUN_AS': 'root'}, 'number of a user'),
    (['tpu', '--x', 'a\nb'], {}, 'not to be seen'),
    (['tpu'], {'KUBECTL': 'kubectl-that-is-not-here'}, 'is not here'), (['tpu'], {'WRONG': '2'}, 'would not run so')])
def test_what_is_refused(arguments, env, said, tmp_path):
  fake(forbid(tmp_path), 'program', 'exit "${WRONG:-0}"')
  result = run('kubernetes/apply.sh', *arguments, path=tmp_path, **JOB | {'BERT_JAX': 'program'} | env)
  assert result.returncode and said in result.stderr, result.stderr
  assert not calls(tmp_path, 'kubectl')


def test_a_ray_job_has_the_command_word_by_word(forbidden):
  """As a shell of Ray's takes it apart; and fields that KubeRay has, with the sizes of pods."""
  further = ['--shards', '7', '--x', 'a "b" \\ #c: {d} $(ATTEMPT) __DATA__ of a person `of` $HOME', '--',
             '--namespace=it\'s']
  manifest = printed(forbidden, 'kubernetes/prepare.sh', *further, **TEXT)
  check(manifest, RAY_JOB, 'prepare')
  assert (manifest['apiVersion'], manifest['kind']) == ('ray.io/v1', 'RayJob')
  spec = manifest['spec']
  said = subprocess.run(f'printf "%s\\n" {spec["entrypoint"]}', shell=True, capture_output=True, text=True, check=True)
  assert said.stdout.splitlines() == [
      'bert-jax', 'prepare', '--input', TEXT['INPUT'], '--vocabulary', TEXT['VOCABULARY'], '--output', TEXT['OUTPUT'],
      *further[:4], '--engine', 'ray', '--', '--address=auto', further[-1]]
  assert spec['submissionMode'] == 'HTTPMode' and spec['shutdownAfterJobFinishes'] and spec['backoffLimit'] == 2
  head, [workers] = spec['rayClusterSpec']['headGroupSpec'], spec['rayClusterSpec']['workerGroupSpecs']
  assert all(isinstance(value, str) for group in (head, workers) for value in group['rayStartParams'].values())
  assert (head['rayStartParams']['num-cpus'], workers['rayStartParams']['num-cpus']) == ('0', '15')
  for group in (head, workers):
    [container] = group['template']['spec']['containers']
    assert container['image'] == TEXT['IMAGE'] and container['securityContext'] == {'runAsUser': 1000}
    assert container['resources']['requests'] == container['resources']['limits']
    assert container['resources']['limits'].keys() == {'cpu', 'memory', 'ephemeral-storage'}
  assert re.fullmatch(LABEL, manifest['metadata']['name'])
  again = printed(forbidden, 'kubernetes/prepare.sh', **TEXT | {
      'NAME': 'mine', 'WORKERS': '3', 'CPUS': '7', 'MEMORY': '9Gi', 'DISK': '1Ti', 'SERVICE_ACCOUNT': 'reader',
      'HEAD_CPUS': '2', 'HEAD_MEMORY': '5Gi', 'RUN_AS': '0', 'RETRIES': '0', 'KEEP_SECONDS': '0'})
  spec = again['spec']['rayClusterSpec']
  head, [workers] = spec['headGroupSpec'], spec['workerGroupSpecs']
  assert again['metadata']['name'] == 'mine' and again['spec']['backoffLimit'] == 0
  assert (workers['replicas'], workers['minReplicas'], workers['maxReplicas']) == (3, 3, 3)
  sizes = [group['template']['spec']['containers'][0]['resources']['limits'] for group in (head, workers)]
  assert sizes == [{'cpu': '2', 'memory': '5Gi', 'ephemeral-storage': '1Ti'},
                   {'cpu': '7', 'memory': '9Gi', 'ephemeral-storage': '1Ti'}]
  assert workers['template']['spec']['serviceAccountName'] == 'reader'


@pytest.mark.parametrize('arguments, env, said', [
    *[([], {name: ''}, f'set {name}') for name in TEXT], ([], {'INPUT': 'a.txt'}, "INPUT is 'a.txt', wanted gs://"),
    ([], {'OUTPUT': '/data'}, 'OUTPUT is'), ([], {'VOCABULARY': 'v.txt'}, 'VOCABULARY is'),
    (['--input', 'gs://b/x'], {}, '--input is set by'), (['--engine=beam'], {}, '--engine is set by'),
    (['--', '--address', 'x'], {}, '--address is set by'), ([], {'NAME': 'My_Run'}, 'wanted at most 42'),
    ([], {'NAME': 'a' * 43}, 'wanted at most 42'), ([], {'WORKERS': '0'}, 'wanted a whole number'),
    ([], {'MEMORY': 'much'}, 'wanted such as 48Gi'), ([], {'RETRIES': '-1'}, 'wanted a whole number'),
    (['--x', 'a\nb'], {}, 'not to be seen'), ([], {'WRONG': '2'}, '`bert-jax prepare` would not run so'),
    ([], {'KUBECTL': 'kubectl-that-is-not-here'}, 'is not here')])
def test_what_is_refused_of_a_ray_job(arguments, env, said, tmp_path):
  fake(forbid(tmp_path), 'program', 'exit "${WRONG:-0}"')
  result = run('kubernetes/prepare.sh', *arguments, path=tmp_path, **TEXT | {'BERT_JAX': 'program'} | env)
  assert result.returncode and said in result.stderr, result.stderr
  assert not calls(tmp_path, 'kubectl')


KUBECTL = """
case "$*" in
  *' get '*) if [[ -n "${DOWN:-}" ]]; then echo 'Unable to connect to the server' >&2; exit 1; fi; echo "${THERE:-}" ;;
  *' create -f -') cat > "$0.yaml" ;;
esac
"""


@pytest.mark.parametrize('command, kinds, kind, settings', [
    (['kubernetes/apply.sh', 'tpu'], 'jobsets.jobset.x-k8s.io', 'JobSet', JOB),
    (['kubernetes/prepare.sh'], 'rayjobs.ray.io', 'RayJob', TEXT)])
def test_it_is_created_once(command, kinds, kind, settings, tmp_path):
  """A run that is there is left alone, and a cluster that does not answer is no cluster without it."""
  fake(tmp_path, 'kubectl', KUBECTL)
  there = settings | {'KUBECTL': 'kubectl --context c', 'NAME': 'mine'}
  result = run(*command, path=tmp_path, **there)
  assert result.returncode == 0, result.stderr
  assert calls(tmp_path, 'kubectl') == [f'--context c get {kinds}/mine --ignore-not-found --output name',
                                        '--context c create -f -']
  assert 'name: "mine"' in (tmp_path / 'kubectl.yaml').read_text()
  for more, said in (({'THERE': 'x/mine'}, f'there is a {kind} mine already'), ({'DOWN': '1'}, 'does not say')):
    result = run(*command, path=tmp_path, **there | more)
    assert result.returncode == 2 and said in result.stderr
  assert sum('create' in call for call in calls(tmp_path, 'kubectl')) == 1


@pytest.mark.parametrize('script, kinds, made', [
    ('apply.sh', ('tpu', 'gpu'), {'FURTHER', 'COORDINATOR', 'PROCESSES'}), ('prepare.sh', ('prepare',), {'COMMAND'})])
def test_every_setting_is_a_variable_that_is_explained(script, kinds, made):
  text = (LAUNCH / 'kubernetes' / script).read_text()
  settings = {line[5:].split(':')[0]: line for line in text.splitlines() if line.startswith(': "${')}
  explained = [name for name, line in settings.items() if '# ' in line or 'set ' in line]
  assert len(settings) > 14 and set(settings) - set(explained) <= {'RECIPE', 'MACHINES'}
  places = {name for kind in kinds for name in re.findall(r'__([A-Z]+(?:_[A-Z]+)*)__',
                                                          (LAUNCH / f'kubernetes/{kind}.yaml').read_text())}
  assert places - set(settings) == made
