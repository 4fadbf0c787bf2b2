"""The site of README and docs/, as its reader's browser sees it; and the notebook, which is made from a program."""

import functools
import http.server
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from launch import site_pages
from tests import pages

pytestmark = pytest.mark.docs
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


TOLD: 'queue.Queue[dict]' = queue.Queue()  # what the page in the browser posts


class Quiet(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *_):
    pass

  def do_POST(self):
    TOLD.put(json.loads(self.rfile.read(int(self.headers['Content-Length']))))
    self.send_response(204)
    self.end_headers()


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> pathlib.Path:
  """What `make docs` makes; a warning, as of a link that leads nowhere, is an error."""
  folder = tmp_path_factory.mktemp('site') / 'site'
  done = subprocess.run([sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', folder], cwd=pages.ROOT,
                        capture_output=True, text=True, timeout=200)
  assert done.returncode == 0, done.stderr
  return folder


@pytest.fixture(scope='module')
def address(site):
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=site))
  threading.Thread(target=server.serve_forever, daemon=True).start()
  yield f'http://127.0.0.1:{server.server_port}/'
  server.shutdown()


def written(site: pathlib.Path) -> list[pathlib.Path]:
  return [page for page in sorted(site.rglob('*.html')) if page.name != '404.html']


def test_each_page_is_there(site):
  names = {page.name for page in pages.PAGES if page.parent.name == 'docs'} - {'package.md'}
  wanted = {'index.html'} | {f'{name.removesuffix(".md")}/index.html' for name in
                             (names | set(site_pages.BESIDE.values())) - {'index.md'}}
  assert {str(page.relative_to(site)) for page in written(site)} == wanted


def test_nothing_is_fetched_from_elsewhere(site):
  """No font, script, style or picture of another place: the site is its own folder."""
  for path in [*written(site), *site.rglob('*.css')]:
    text = path.read_text(encoding='utf-8')
    found = re.findall(r'<(?:link|script|img|iframe)\b[^>]*?(?:href|src)=["\']?((?:https?:)?//[^"\' >]+)', text)
    found += re.findall(r'(?:url\(|@import )["\']?((?:https?:)?//[^)"\']+)', text)
    assert found == [], path


def test_links_of_pages_beside_docs_are_the_sites():
  text = '[a](docs/guide.md#x) [`b`](bert_jax/train.py) [c](CONTRIBUTING.md) `[d](docs/x.md)` [e](file:e) [f](#g)'
  assert site_pages.of_site(text, '.') == (
      '[a](guide.md#x) `b` [c](contributing.md) `[d](docs/x.md)` [e](file:e) [f](#g)')
  assert site_pages.of_site('[a](../README.md#b) [c](tasks.md) [d](../examples)', 'docs') == (
      '[a](index.md#b) [c](tasks.md) d')


@pytest.mark.skipif(CHROMIUM is None, reason='needs a browser: chromium')
def test_in_a_browser(site, address, tmp_path):
  """Each page in turn, in one frame: its links and anchors lead somewhere, its pictures are drawn, and all that it
  loads is the site's own."""
  paths = [str(page.relative_to(site)).removesuffix('index.html') for page in written(site)]
  (site / 'probe.html').write_text('<!doctype html><meta charset="utf-8"><body><script>' + f"""
    const paths = {json.dumps(paths)}, told = {{}}, known = {{}};
    const there = async url => known[url] ??= (await fetch(url)).ok
      ? new DOMParser().parseFromString(await (await fetch(url)).text(), 'text/html') : null;
    const look = path => new Promise(done => {{
      const frame = document.createElement('iframe');
      frame.style = 'width:1280px;height:800px';
      frame.src = '/' + path;
      frame.onload = async () => {{
        const page = frame.contentDocument, broken = [], outside = [];
        for (const link of page.links) {{
          if (new URL(link.href).origin !== location.origin) {{ outside.push(link.href); continue; }}
          const url = new URL(link.href), target = await there(url.pathname);
          const name = decodeURIComponent(url.hash.slice(1));
          if (!target || name && name !== '__skip' && !target.getElementById(name)) broken.push(link.href);
        }}
        const loaded = frame.contentWindow.performance.getEntriesByType('resource').map(entry => entry.name);
        told[path] = {{broken, links: page.links.length, title: page.title,
          foreign: loaded.filter(name => new URL(name).origin !== location.origin), loaded: loaded.length,
          undrawn: [...page.images].filter(image => !image.naturalWidth).map(image => image.src)}};
        frame.remove();
        done();
      }};
      document.body.append(frame);
    }});
    (async () => {{
      for (const path of paths) await look(path);
      await fetch('/told', {{method: 'POST', body: JSON.stringify(told)}});
    }})();
  </script>""")
  command = [CHROMIUM, '--headless', '--disable-gpu', '--no-sandbox', f'--user-data-dir={tmp_path}/profile',
             '--remote-debugging-port=0', address + 'probe.html']  # with a port it stays until it is ended
  browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
                             env=os.environ | {'HOME': str(tmp_path)})
  try:
    told = TOLD.get(timeout=200)
  finally:
    os.killpg(browser.pid, signal.SIGKILL)
    browser.wait()
    (site / 'probe.html').unlink()
  assert set(told) == set(paths)
  for path, page in told.items():
    assert page['loaded'] and page['links'] > 20 and page['title'], (path, page)
    assert page['broken'] == page['undrawn'] == page['foreign'] == [], (path, page)


def test_the_notebook_is_made_from_the_program():
  jupytext = pytest.importorskip('jupytext')
  notebook = json.loads((pages.ROOT / 'examples/quickstart.ipynb').read_text(encoding='utf-8'))
  made = jupytext.read(pages.ROOT / 'examples/quickstart.py')
  cells = lambda book: [(cell['cell_type'], ''.join(cell['source'])) for cell in book['cells']]
  assert cells(notebook) == cells(made), 'make notebook'
  assert not any(cell.get('outputs') for cell in notebook['cells'])
