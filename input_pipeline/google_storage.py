"""gcsfs with fewer requests, for us and for Orbax; imported only where gs:// is used, as it needs the extra [gcs].

gcsfs asks twice whether something is there, as an object and as a folder, and up to four times for what is not; and
opens a stream by three requests where a small file is one. In a checkpoint that is most of what is sent. Nor does it
try again what got no answer in time, and only a whole request has a time: a slow link would never fetch a large file.
"""

import asyncio
import io
import os
import time
from typing import Any

import aiohttp
import fsspec
from fsspec import asyn
from gcsfs.core import GCSFileSystem  # that of `gcsfs` may ask by gRPC what kind of bucket it is
from gcsfs.retry import HttpError, retry_request

from input_pipeline import storage_answers

TRIES = 9  # of a request, with pauses of 1 to 32 s: two minutes of a storage that is away
SLOWEST = 64 << 10  # bytes a second, below which an upload counts as lost
SLOW_SECONDS, SLOW_IN_ROW = 1.0, 3  # requests of less than SMALL that are said to be slow
SEEN_SECONDS = 5.0  # Orbax asks for one folder ten times in a save, for one file four times in a start
MOST_SEEN = 10_000  # names that are remembered
SMALL = 1 << 20  # bytes; a file that is shorter is read by one request
BATCH = 100  # requests that Google takes as one, at most
OUTSIDE = 416  # HTTP's code for a range that an object does not have, as an empty one has none


class GoogleStorage(GCSFileSystem):
  """The file system for gs://."""

  def __init__(self, *args, **kwargs):
    limit = storage_answers.REQUEST_SECONDS
    super().__init__(*args, requests_timeout=aiohttp.ClientTimeout(sock_connect=limit, sock_read=limit), **kwargs)
    self.seen: dict[str, tuple[float, dict[str, Any]]] = {}  # what was there, and when
    self.slow = 0  # requests in a row that took long

  @retry_request(retries=TRIES)
  async def _request(self, method: str, path: str, *args, data=None, **kwargs):
    """One request of gcsfs, whose decorator tries it again here; what may pass is told."""
    size = data.getbuffer().nbytes if isinstance(data, io.BytesIO) else len(data or b'')
    seconds = storage_answers.REQUEST_SECONDS + size / SLOWEST if size else None
    begin = time.monotonic()
    try:
      request = GCSFileSystem._request.__wrapped__(self, method, path, *args, data=data, **kwargs)
      answer = await asyncio.wait_for(request, seconds)
    except Exception as error:
      if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
        error = aiohttp.ServerTimeoutError(f'no answer within {seconds:.0f} s')
      if storage_answers.may_pass(error):
        storage_answers.tell(f'gs://: {storage_answers.meaning(error)}; trying again')
      raise error
    self.slow = self.slow + 1 if time.monotonic() - begin > SLOW_SECONDS and size + len(answer[-1]) < SMALL else 0
    if self.slow >= SLOW_IN_ROW:
      storage_answers.tell(f'gs://: a request takes {time.monotonic() - begin:.1f} s')
    return answer

  async def _call(self, method: str, path: str, *args, **kwargs):
    """What is written or removed is no longer remembered."""
    if method == 'DELETE' and len(args) == 2:
      parts = f'{args[0]}/{args[1]}'.split('/')
      for end in range(len(parts)):
        self.seen.pop('/'.join(parts[:end + 1]), None)
    elif method != 'GET':  # an upload makes no folder vanish
      keeps = '/upload/' in path
      self.seen = {name: found for name, found in self.seen.items() if keeps and found[1]['type'] == 'directory'}
    return await super()._call(method, path, *args, **kwargs)

  call = asyn.sync_wrapper(_call)

  def _remember(self, *entries: dict[str, Any]) -> None:
    if len(self.seen) + len(entries) > MOST_SEEN:
      self.seen.clear()
    if len(entries) < MOST_SEEN:
      self.seen |= {entry['name']: (time.monotonic(), entry) for entry in entries}

  async def _info(self, path: str, generation: str | None = None, **_) -> dict[str, Any]:
    """An object or a folder, by one request that finds both. Raises FileNotFoundError."""
    bucket, name, generation_of_path = self.split_path(self._strip_protocol(path).rstrip('/'))
    if generation or generation_of_path:
      return await super()._info(path, generation)
    folder = {'name': f'{bucket}/{name}'.rstrip('/'), 'size': 0, 'type': 'directory'}
    when, seen = self.seen.get(folder['name'], (float('-inf'), folder))
    if time.monotonic() - when < SEEN_SECONDS:
      return seen
    if not name:
      await self._page(bucket, maxResults=1)
      self._remember(folder)
      return folder
    after = chr(ord('/') + 1)  # names from `name` to all of `name/…`
    token = {}
    while True:
      page = await self._page(bucket, prefix=name, delimiter='/', endOffset=name + after, **token)
      for item in page.get('items', ()):
        if item['name'] == name:
          found = self._process_object(bucket, item)
          self._remember(found)
          return found
      if f'{name}/' in page.get('prefixes', ()) or any(item['name'] == f'{name}/' for item in page.get('items', ())):
        self._remember(folder)
        return folder
      if 'nextPageToken' not in page:
        raise FileNotFoundError(path)
      token = {'pageToken': page['nextPageToken']}

  async def _ls(self, path: str, detail: bool = False, prefix: str = '', versions: bool = False, **kwargs) -> list:
    """What is in a folder; nothing where there is none. Its placeholder, an object called like the folder, is none."""
    bucket, name, _ = self.split_path(self._strip_protocol(path).rstrip('/'))
    if not bucket or prefix or versions or kwargs.get('max_results'):
      return await super()._ls(path, detail=detail, prefix=prefix, versions=versions, **kwargs)
    entries, token = [], {}
    while True:
      page = await self._page(bucket, delimiter='/', **({'prefix': f'{name}/'} if name else {}), **token)
      entries += [self._process_object(bucket, item) for item in page.get('items', ()) if item['name'] != f'{name}/']
      entries += [{'name': f'{bucket}/{folder}'.rstrip('/'), 'size': 0, 'type': 'directory'}
                  for folder in page.get('prefixes', ())]
      if 'nextPageToken' not in page:
        break
      token = {'pageToken': page['nextPageToken']}
    if not entries and name and (await self._info(path))['type'] == 'file':
      entries = [await self._info(path)]
    self._remember(*entries)
    return entries if detail else [entry['name'] for entry in entries]

  async def _rm(self, path: str | os.PathLike | list, recursive: bool = False, **kwargs) -> None:
    """A folder is listed once, and its objects are removed by a hundred a request. Raises FileNotFoundError."""
    if not recursive or isinstance(path, list):
      return await super()._rm(path, recursive=recursive, **kwargs)
    bucket, name, _ = self.split_path(self._strip_protocol(os.fspath(path)).rstrip('/'))
    names, token = [], {}
    while True:
      page = await self._page(bucket, prefix=f'{name}/', fields='items(name),nextPageToken', **token)
      names += [f'{bucket}/{item["name"]}' for item in page.get('items', ())]
      if 'nextPageToken' not in page:
        break
      token = {'pageToken': page['nextPageToken']}
    if not names:
      return await super()._rm(os.fspath(path), **kwargs)
    for at in range(0, len(names), BATCH):
      for result in await self._rm_files(names[at:at + BATCH]):
        if isinstance(result, Exception) and '404' not in str(result):
          raise result

  rm = asyn.sync_wrapper(_rm)  # gcsfs names its own

  async def _page(self, bucket: str, **query) -> dict[str, Any]:
    return await self._call('GET', 'b/{}/o', bucket, json_out=True, **query)

  def _open(self, path: str, mode: str = 'rb', **kwargs):
    """A stream: of a small file all at once, and to write at the end by one upload."""
    if mode == 'wb':
      return _Upload(self, path)
    if mode == 'rb':
      try:
        head = self.cat_file(path, start=0, end=SMALL)
      except HttpError as error:
        if str(error.code) != str(OUTSIDE):
          raise
        head = b''
      if len(head) < SMALL:
        return io.BytesIO(head)
    return super()._open(path, mode, **kwargs)


class _Upload(io.BytesIO):
  """What is written becomes an object when it is closed."""

  def __init__(self, storage: GoogleStorage, path: str):
    super().__init__()
    self.storage, self.path = storage, path

  def close(self) -> None:
    if not self.closed:
      self.storage.pipe_file(self.path, self.getvalue())
    super().close()


def register() -> None:
  """Makes fsspec give this file system for gs://."""
  for scheme in ('gs', 'gcs'):
    fsspec.register_implementation(scheme, GoogleStorage, clobber=True)
