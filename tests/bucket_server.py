"""Google's storage protocol (JSON), in memory on the loopback, as far as gcsfs, tensorstore and Orbax use it, with
faults on demand. No rights, no rate limits."""

import base64
import dataclasses
import itertools
import json
import random
import re
import socket
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import google_crc32c

WRITES = 'POST', 'PUT', 'DELETE', 'PATCH'


@dataclasses.dataclass
class Faults:
  """What goes wrong; set by a test at any time."""
  share: float = 0.0  # of requests that go wrong, by one of `kinds`
  kinds: tuple[str, ...] = ('503',)  # a code; drop: no answer; cut: half of one; hang: silence, then none
  most: float = float('inf')  # that go wrong in all
  plan: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # {pattern of paths: kinds, each once}
  silence: float = 60.0  # seconds
  seconds: float = 0.0  # that each request takes longer
  deny: int = 0  # the code that answers all requests
  read_only: bool = False


@dataclasses.dataclass
class Object:
  data: bytes
  generation: int


class Server:
  """Buckets and what was asked of them. As a context manager it serves at `url`."""

  def __init__(self, *buckets: str):
    self.buckets: dict[str, dict[str, Object]] = {name: {} for name in buckets}
    self.faults, self.uploads = Faults(), {}
    self.requests: list[tuple] = []  # method, code or kind of fault, bytes received, bytes sent, path
    self.lock, self.generations, self.random = threading.RLock(), itertools.count(1), random.Random(0)

  def __enter__(self) -> 'Server':
    handler = type('BoundHandler', (Handler,), {'store': self})
    self.http = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    self.http.daemon_threads = True
    self.url = f'http://127.0.0.1:{self.http.server_port}'
    threading.Thread(target=self.http.serve_forever, daemon=True).start()
    return self

  def __exit__(self, *_) -> None:
    self.http.shutdown()
    self.http.server_close()

  def environment(self) -> dict[str, str]:
    """What leads the libraries of a process here."""
    return {'STORAGE_EMULATOR_HOST': self.url, 'FSSPEC_GCS_TOKEN': 'anon', 'TENSORSTORE_GCS_HTTP_URL': self.url,
            'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'x', 'NO_GCE_CHECK': 'true'}

  def files(self, bucket: str, prefix: str = '') -> dict[str, bytes]:
    """{name below the prefix: content}"""
    return {name.removeprefix(prefix): found.data for name, found in sorted(self.buckets[bucket].items())
            if name.startswith(prefix)}

  def fault(self, path: str) -> str:
    """The kind of fault of a request; '' of one that goes well."""
    faults = self.faults
    with self.lock:
      for pattern, kinds in faults.plan.items():
        if kinds and re.search(pattern, urllib.parse.unquote(path)) and self.random.random() < 0.5:
          return kinds.pop()
      if faults.most <= 0 or self.random.random() >= faults.share:
        return ''
      faults.most -= 1
      return self.random.choice(faults.kinds)

  def put(self, bucket: str, name: str, data: bytes) -> Object:
    with self.lock:
      self.buckets[bucket][name] = Object(data, next(self.generations))
      return self.buckets[bucket][name]


class Handler(BaseHTTPRequestHandler):
  store: Server
  protocol_version = 'HTTP/1.1'

  def log_message(self, *_) -> None:
    pass

  def answer(self, code: int, body: object = b'', headers: dict | None = None, kind: str = 'application/json') -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    self.store.requests.append((self.command, code, len(self.body), len(data), self.path))
    self.send_response(code)
    for name, value in {'Content-Type': kind, 'Content-Length': str(len(data)), **(headers or {})}.items():
      self.send_header(name, value)
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(data[:len(data) // 2] if self.kind == 'cut' else data)
    if self.kind == 'cut':
      self.hang_up()

  def hang_up(self) -> None:
    self.close_connection = True
    self.wfile.flush()
    self.connection.shutdown(socket.SHUT_RDWR)

  def refuse(self, code: int, message: str) -> None:
    self.answer(code, {'error': {'code': code, 'message': message, 'errors': [{'message': message, 'reason': 'x'}]}})

  def serve(self) -> None:
    self.body = self._read_body()
    url, faults = urllib.parse.urlsplit(self.path), self.store.faults
    query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
    time.sleep(faults.seconds)
    self.kind = self.store.fault(self.path)
    if self.kind in ('drop', 'hang'):
      self.store.requests.append((self.command, self.kind, len(self.body), 0, self.path))
      time.sleep(faults.silence if self.kind == 'hang' else 0)
      return self.hang_up()
    if self.kind.isdigit():
      return self.refuse(int(self.kind), 'a made-up fault')
    if faults.deny:
      return self.refuse(faults.deny, 'Anonymous caller does not have storage.objects.list access')
    if faults.read_only and self.command in WRITES:
      return self.refuse(403, 'x@y does not have storage.objects.create access')
    try:
      self.route(url.path, query)
    except OSError:  # the other side has gone
      self.close_connection = True

  do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = serve

  def _read_body(self) -> bytes:
    if self.headers.get('Transfer-Encoding') != 'chunked':
      return self.rfile.read(int(self.headers.get('Content-Length') or 0))
    data = b''
    while size := int(self.rfile.readline().split(b';')[0], 16):
      data += self.rfile.read(size)
      self.rfile.readline()
    self.rfile.readline()
    return data

  def route(self, path: str, query: dict) -> None:
    if path.endswith('/batch/storage/v1'):
      return self.batch()
    if found := re.fullmatch(r'/upload(?:/resumable)?/storage/v1/b/([^/]+)/o', path):
      return self.upload(found[1], query)
    if found := re.fullmatch(r'/storage/v1/b/([^/]+)/o/([^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)', path):
      source, target = (urllib.parse.unquote(name) for name in (found[2], found[4]))
      stored = self.store.put(found[3], target, self.store.buckets[found[1]][source].data)
      return self.answer(200, {'done': True, 'resource': resource(found[3], target, stored)})
    found = re.fullmatch(r'(?:/download)?/storage/v1/b/([^/]+)(?:/o/?(.*))?', path)
    if not found or found[1] not in self.store.buckets:
      return self.refuse(404, 'The specified bucket does not exist.')
    bucket, name = found[1], urllib.parse.unquote(found[2] or '')
    if found[2] is None:
      return self.answer(200, {'kind': 'storage#bucket', 'name': bucket, 'id': bucket, 'locationType': 'region',
                               'hierarchicalNamespace': {'enabled': False}})
    if not name:
      return self.list(bucket, query)
    stored = self.store.buckets[bucket].get(name)
    if stored is None:
      return self.refuse(404, f'No such object: {bucket}/{name}')
    if self.command == 'DELETE':
      self.store.buckets[bucket].pop(name, None)
      return self.answer(204)
    if query.get('alt') == 'media':
      return self.media(stored, query)
    self.answer(200, resource(bucket, name, stored))

  def list(self, bucket: str, query: dict) -> None:
    prefix, delimiter, token = query.get('prefix', ''), query.get('delimiter', ''), query.get('pageToken', '')
    most, end = int(query.get('maxResults', 1000)), query.get('endOffset', '')
    items, prefixes, last = [], [], ''
    with self.store.lock:
      stored = sorted(self.store.buckets[bucket].items())
    for name, found in stored:
      cut = name.find(delimiter, len(prefix)) if delimiter else -1
      shown = name if cut < 0 else name[:cut + 1]
      if not name.startswith(prefix) or (end and name >= end) or (token and shown <= token) or shown in prefixes[-1:]:
        continue
      if len(items) + len(prefixes) == most:
        return self.answer(200, {'items': items, 'prefixes': prefixes, 'nextPageToken': last})
      last = shown
      if shown == name:
        items.append(resource(bucket, name, found))
      else:
        prefixes.append(shown)
    self.answer(200, {'items': items, 'prefixes': prefixes})

  def media(self, stored: Object, query: dict) -> None:
    data, generation = stored.data, str(stored.generation)
    if query.get('ifGenerationNotMatch') == generation:
      return self.answer(304)
    if query.get('ifGenerationMatch', generation) != generation:
      return self.refuse(412, 'precondition')
    headers = {'x-goog-generation': generation, 'x-goog-stored-content-length': str(len(data)), 'ETag': generation,
               'x-goog-hash': f'crc32c={crc32c(data)}', 'x-goog-stored-content-encoding': 'identity'}
    wanted = re.fullmatch(r'bytes=(\d*)-(\d*)', self.headers.get('Range', ''))
    if not wanted:
      return self.answer(200, data, headers, 'application/octet-stream')
    first = int(wanted[1]) if wanted[1] else max(0, len(data) - int(wanted[2]))
    end = min(len(data), int(wanted[2]) + 1) if wanted[1] and wanted[2] else len(data)
    if first >= len(data):
      return self.refuse(416, 'outside of the object')
    headers['Content-Range'] = f'bytes {first}-{end - 1}/{len(data)}'
    self.answer(206, data[first:end], headers, 'application/octet-stream')

  def put(self, bucket: str, name: str, data: bytes, query: dict) -> None:
    with self.store.lock:
      old = self.store.buckets[bucket].get(name)
      if query.get('ifGenerationMatch', (there := str(old.generation if old else 0))) != there:
        return self.refuse(412, 'precondition')
      stored = self.store.put(bucket, name, data)
    self.answer(200, resource(bucket, name, stored))

  def upload(self, bucket: str, query: dict) -> None:
    if bucket not in self.store.buckets:
      return self.refuse(404, 'The specified bucket does not exist.')
    if 'upload_id' in query:
      return self.go_on(bucket, query)
    if query['uploadType'] == 'resumable':
      number = f'upload{next(self.store.generations)}'
      self.store.uploads[number] = [query.get('name') or json.loads(self.body)['name'], b'', query]
      place = f'{self.store.url}{urllib.parse.urlsplit(self.path).path}?uploadType=resumable&upload_id={number}'
      return self.answer(200, {}, {'Location': place})
    if query['uploadType'] == 'media':
      return self.put(bucket, query['name'], self.body, query)
    border = b'--' + re.search(r'boundary="?([^";]+)"?', self.headers['Content-Type'])[1].encode()
    described, content = (part.replace(b'\r\n\r\n', b'\n\n', 1).split(b'\n\n', 1)[1]
                          for part in self.body.split(border)[1:3])
    content = content[:-2] if content.endswith(b'\r\n') else content[:-1]
    self.put(bucket, query.get('name') or json.loads(described)['name'], content, query)

  def go_on(self, bucket: str, query: dict) -> None:
    name, data, first = self.store.uploads[query['upload_id']]
    told = re.fullmatch(r'bytes (?:(\d+)-\d+|\*)/(\d+|\*)', self.headers.get('Content-Range', ''))
    data = (data[:int(told[1])] if told and told[1] else data) + self.body
    self.store.uploads[query['upload_id']][1] = data
    if told and (told[2] == '*' or len(data) < int(told[2])):
      return self.answer(308, b'', {'Range': f'bytes=0-{len(data) - 1}'} if data else {})
    self.put(bucket, name, data, first)

  def batch(self) -> None:
    answers = []
    for number, target in re.findall(rb'Content-ID: *<?([^>\r\n]+).*?DELETE (\S+) HTTP', self.body, re.S):
      bucket, name = re.search(r'/b/([^/]+)/o/([^?]+)', target.decode()).groups()
      removed = self.store.buckets[bucket].pop(urllib.parse.unquote(name), None)
      code = b'204 No Content' if removed else b'404 Not Found'
      answers.append(b'--batch_x\r\nContent-Type: application/http\r\nContent-ID: <response-' + number
                     + b'>\r\n\r\nHTTP/1.1 ' + code + b'\r\nContent-Length: 0\r\n\r\n\r\n')
    self.answer(200, b''.join(answers) + b'--batch_x--\r\n', kind='multipart/mixed; boundary=batch_x')


def crc32c(data: bytes) -> str:
  return base64.b64encode(google_crc32c.value(data).to_bytes(4, 'big')).decode()


def resource(bucket: str, name: str, stored: Object) -> dict:
  return {'kind': 'storage#object', 'bucket': bucket, 'name': name, 'generation': str(stored.generation),
          'metageneration': '1', 'size': str(len(stored.data)), 'crc32c': crc32c(stored.data),
          'updated': '2026-01-01T00:00:00.000Z', 'timeCreated': '2026-01-01T00:00:00.000Z', 'etag': 'x'}
