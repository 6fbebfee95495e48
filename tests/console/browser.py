"""Headless Chromium for the console's test: one page, driven through chromedriver, its requests and
errors recorded. Knows no bank. Whatever it starts ends with it: see `contained`."""

import base64
import ctypes
import io
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def contained(function):
    """Runs `function` in a child that ends when this process does, however that ends, and that
    adopts all it starts: on its own way out it kills what is left of them, by their pids. Returns
    its exit code."""
    child = os.fork()
    if child:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda n, _: os.kill(child, signal.SIGTERM))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    def stopped(number, _frame):
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stopped)
    code = 2
    try:
        code = function()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 2
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        kill_descendants()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def descendants(of):
    """Pids of the children of a process, and of theirs."""
    parents = {}
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit():
                stat = pathlib.Path(f"/proc/{entry}/stat").read_text()
                parents[int(entry)] = int(stat[stat.rindex(")") + 2:].split()[1])
        except OSError:
            continue
    found, level = [], {of}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        found.extend(level)
    return found


def kill_descendants():
    """SIGKILL to every process that this one started, directly or not; returns when all are gone.
    (The guardian of PostgreSQL servers, which would clean up after us, has nothing left to do.)"""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        pids = descendants(os.getpid())
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.02)


class Browser:
    """One window. Not thread-safe."""

    def __init__(self, width=1280, height=900):
        self.profile = tempfile.mkdtemp(prefix="troth-console-", dir="/tmp")
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio",
                         "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
                         "--disable-background-networking", "--disable-component-update",
                         "--disable-sync", "--disable-extensions", "--force-color-profile=srgb",
                         "--lang=en-GB", f"--user-data-dir={self.profile}",
                         # No name resolves: what it shows, it got from the coordinator.
                         "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
                         f"--window-size={width},{height}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(service=Service(shutil.which("chromedriver")),
                                       options=options)
        self.driver.set_page_load_timeout(20)
        self.driver.set_script_timeout(20)
        self._requests = []
        self._errors = []

    def close(self):
        """Ends the browser."""
        try:
            self.driver.quit()
        finally:
            shutil.rmtree(self.profile, ignore_errors=True)

    def js(self, script, *arguments):
        """What the script returns."""
        return self.driver.execute_script(script, *arguments)

    def settled(self):
        """Waits until nothing on the page is on its way to another place or colour."""
        self.driver.execute_async_script(
            "const done = arguments[0];"
            "Promise.allSettled(document.getAnimations().map((a) => a.finished)).then(() => done());")

    def cdp(self, command, **arguments):
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, arguments)

    def text(self, selector):
        """What is shown of an element; empty if it is not there."""
        return self.js("const e = document.querySelector(arguments[0]);"
                       "return e ? e.innerText : '';", selector)

    def rows(self, selector):
        """Texts of a table's cells, row by row; none while it is hidden."""
        return self.js("const t = document.querySelector(arguments[0]);"
                       "return !t || t.hidden ? [] : [...t.tBodies[0].rows].map("
                       "row => [...row.cells].map(cell => cell.innerText));", selector)

    def press(self, *keys):
        """Keys, to whatever has the focus."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def tab(self, back=False):
        """The next control."""
        actions = ActionChains(self.driver)
        if back:
            actions.key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT)
        else:
            actions.send_keys(Keys.TAB)
        actions.perform()

    def colours(self, scheme):
        """What the system is said to prefer: light or dark."""
        self.cdp("Emulation.setEmulatedMedia",
                 features=[{"name": "prefers-color-scheme", "value": scheme}])

    def errors(self):
        """What scripts and policies complained of so far. (That a request failed is no error: the
        coordinator is killed on purpose.)"""
        self._errors += [f"{entry['source']}: {entry['message']}"
                         for entry in self.driver.get_log("browser")
                         if entry["source"] != "network" and entry["level"] in ("SEVERE", "WARNING")]
        return self._errors

    def requests(self):
        """Addresses of everything that was asked for so far."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self._requests.append(message["params"]["request"]["url"])
        return self._requests

    def picture(self, path, *selectors):
        """Writes a PNG of the whole page, or of some elements with a little around them."""
        clip = self.js("""
const boxes = (arguments[0].length ? arguments[0] : ['html']).map(
  (selector) => document.querySelector(selector).getBoundingClientRect());
const [x, y] = [Math.min(...boxes.map((b) => b.left)), Math.min(...boxes.map((b) => b.top))];
return {x: x + scrollX, y: y + scrollY, width: Math.max(...boxes.map((b) => b.right)) - x,
        height: Math.max(...boxes.map((b) => b.bottom)) - y};""", selectors)
        margin = 12 if selectors else 0
        clip = {"x": max(clip["x"] - margin, 0), "y": max(clip["y"] - margin, 0),
                "width": clip["width"] + 2 * margin, "height": clip["height"] + 2 * margin,
                "scale": 1}
        shot = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=True,
                        clip=clip)
        image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
        image.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
        return os.path.getsize(path)
