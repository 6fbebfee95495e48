#!/usr/bin/python3
"""The console of a coordinator, tried in headless Chromium as an operator would; started by `run`,
which builds first and has the help. Two PostgreSQL servers, a coordinator and two banks; what the
page shows is compared with what was done to them.

    console.py --bin build/release/bin [--screenshots DIR] [--only NAME]
"""

import argparse
import contextlib
import json
import pathlib
import subprocess
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request

from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.keys import Keys

import page_checks
from browser import Browser, contained

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))
from stuck_bank import StuckBank, demo, transfer  # noqa: E402  pylint: disable=wrong-import-position
from stalls import Stalls, now  # noqa: E402  pylint: disable=wrong-import-position

SHOWN_S = 2.0        # what happened is on the page within this; as all limits, of time that was given
MAX_PICTURE = 150_000
LOAD_S, LOAD_FOR_PICTURES_S = 20, 60


class Console:
    """A bank, its console in a browser, and what was checked."""

    def __init__(self, bin_dir, pictures):
        self.pictures = pictures
        self.checks = self.failed = 0
        self.stuck = StuckBank(bin_dir)
        self.bank = self.stuck.bank
        self.browser = None
        self.load = None
        self.url = None
        self.stalls = Stalls()

    # ------------------------------------------------------------------ checking

    def check(self, what, good, seen=""):
        """One check, named; goes on when it failed."""
        self.checks += 1
        if not good:
            self.failed += 1
            print(f"FAILED: {what}{': ' if seen != '' else ''}{str(seen)[:600]}", flush=True)
        return good

    def within(self, seconds, what, condition, seen=lambda: ""):
        """A check that may come true up to `seconds` from now. How long it took."""
        began = now()
        while self.stalls.given(began, now()) < seconds:
            if condition():
                self.check(what, True)
                took = now() - began
                print(f"  {took:5.2f} s  {what}", flush=True)
                return took
            time.sleep(0.02)
        self.check(f"{what} (within {seconds} s)", False, seen())
        return None

    def until(self, what, condition, seconds=20):
        """Waits for something that is no check of the console: without it there is none."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise RuntimeError(f"never came true: {what}")
            time.sleep(0.02)

    def picture(self, name, *selectors):
        """One for the manual, if they are wanted."""
        if not self.pictures:
            return
        size = self.browser.picture(str(self.pictures / f"{name}.png"), *selectors)
        self.check(f"{name}.png is small", size < MAX_PICTURE, size)

    # ------------------------------------------------------------------ the bank

    def start(self):
        """Bank, some transfers, and the console in a browser."""
        self.stuck.start()
        self.url = f"http://127.0.0.1:{self.bank.coordinator.ports['http_port']}/"
        self.browser = Browser()

    def stop(self):
        """Ends all of it."""
        for what in (self.stop_load, self.browser and self.browser.close, self.stuck.stop):
            with contextlib.suppress(Exception):
                if what:
                    what()

    def start_load(self):
        """Transfers, for as long as it takes."""
        self.load = subprocess.Popen(
            self.bank.client("load", "--clients", "3", "--seconds",
                             str(LOAD_FOR_PICTURES_S if self.pictures else LOAD_S),
                             "--accounts", "50", "--journal", str(self.bank.dir / "journal")),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def restore(self):
        """What a scenario that failed left dead."""
        for process in (self.bank.coordinator, *self.bank.branches.values()):
            if not process.running():
                process.start()

    def stop_load(self):
        """None any more."""
        if self.load and self.load.poll() is None:
            self.load.kill()
            self.load.wait()
        self.load = None

    def get(self, path):
        """Status, headers and body, as the coordinator gives them."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as reply:
                return reply.status, reply.headers, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    def api(self, path):
        """An answer of the API."""
        code, _, body = self.get("api/" + path)
        assert code == 200, body
        return json.loads(body)

    def work(self, coordinator, transaction_id, name, account):
        """Work in a branch that is not its last: the branch is open on return. Its claim."""
        from troth.wire.coordinator.ttypes import BranchClaim
        from troth.wire.values.ttypes import Context
        from troth_bank import BankBranch
        from troth_bank.ttypes import Leg
        place = next(p for p in coordinator.resolve([name]) if p.up)
        service = transfer.call_service(BankBranch.Client, place.host, place.port, 10)
        done = service.apply(Context(transaction_id=transaction_id, work=0, deadline_ms=28_000),
                             [Leg(account=account, amount=-1)], "console").branch
        return BranchClaim(participant=done.participant, mark=done.mark, works=done.works,
                           instance=done.instance)

    def commit(self, transaction_id, claims):
        """Asks for the commit, for as long as there is hope."""
        from troth.wire.coordinator.ttypes import CommitRequest, Wait
        address = f"127.0.0.1:{self.bank.coordinator.ports['client_port']}"
        return transfer.connect_coordinator(address, 40).commit(CommitRequest(
            transaction_id=transaction_id, branches=claims, deadline_ms=25_000,
            wait=Wait.DECIDED))

    def both_ready(self):
        """Both banks take part."""
        def up():
            there = {p["participant"]: p["up"] for p in self.api("participants")["participants"]}
            return there.get("east") and there.get("west")
        self.until("both banks are reachable", up)

    # ------------------------------------------------------------------ the page

    def open(self):
        """The page, anew."""
        self.browser.driver.get(self.url)
        self.browser.js("window.sameDocument = true;")

    def doubt(self):
        """Rows of the table of what is in doubt, by transaction."""
        return {row[0]: row for row in self.browser.rows("#doubt-table")}

    def state(self):
        """The badge."""
        return self.browser.text("#state")


# ---------------------------------------------------------------------- scenarios, in order

def opens(console):
    """It opens, is whole, and needs nothing but the coordinator."""
    console.open()
    browser = console.browser
    console.within(5, "says that the coordinator serves", lambda: console.state() == "serving",
                   console.state)
    console.check("names the coordinator", console.api("status")["coordinator"] in
                  browser.text("h1"), browser.text("h1"))
    console.check("its title says so too", "✓ bank-" in browser.driver.title, browser.driver.title)
    console.within(3, "shows both banks as reachable", lambda: [
        row[:2] for row in browser.rows("#participants-table")] ==
        [["east", "✓ yes"], ["west", "✓ yes"]], lambda: browser.rows("#participants-table"))
    console.within(3, "says that nothing waits",
                   lambda: browser.text("#doubt-summary").startswith("Nothing waits"))
    code, headers, _ = console.get("")
    policy = headers["Content-Security-Policy"]
    console.check("has a strict policy", code == 200 and "default-src 'none'" in policy and
                  "unsafe" not in policy and "*" not in policy, policy)
    console.check("is never taken for another type",
                  headers["X-Content-Type-Options"] == "nosniff")
    refused = browser.js(
        "const s = document.createElement('script');"
        "try { s.textContent = 'window.injected = 1'; document.body.append(s); } catch (e) {}"
        "s.remove(); return window.injected === undefined;")
    console.check("a script that is put into the page does not run", refused)
    browser.driver.get_log("browser")  # that one was complained of, rightly
    for path in ("api/nothing", "api/load?after=x", "console.js", "icon.svg"):
        console.check(f"answers /{path}", console.get(path)[0] == (404 if "nothing" in path else 200))


def updates(console):
    """Under load: figures and charts follow, focus stays, who listens is left in peace."""
    browser = console.browser
    console.start_load()
    rate = lambda: float(browser.text("#now-rate").replace("–", "0").replace(",", ""))
    console.within(6, "shows transfers within seconds", lambda: rate() > 5, rate)
    line = lambda: browser.js("return document.querySelector('#rate-chart .line.one')"
                              ".getAttribute('d');")
    before, seen = line(), browser.text("#load-table")
    console.within(3, "draws on", lambda: line() != before and line().count("L") >= 2, line)
    console.check("the numbers below a fold are there for who opens it", seen == "")
    browser.js("document.querySelector('details').open = true;"
               "window.newsChanged = 0;"
               "new MutationObserver(() => ++window.newsChanged).observe("
               "document.getElementById('news'), {childList: true, characterData: true});")
    browser.js("document.querySelector('summary').focus();"
               "window.kept = document.querySelector('#participants-table tbody').rows[0];")
    first = console.api("status")["committed"]
    began = time.monotonic()
    row = lambda: (browser.rows("#load-table") or [[""]])[-1][0]
    at = row()
    for _ in range(3):
        console.until("another second is shown", lambda: row() != at)
        at = row()
    took = time.monotonic() - began
    console.check("three seconds take about three seconds", 1.5 < took < 7, took)
    real = (console.api("status")["committed"] - first) / took
    console.check("shows the rate that is real", real / 3 < rate() < real * 3, (real, rate()))
    latency = float(browser.text("#now-p50").replace("–", "0"))
    console.check("shows a latency", 0 < latency < 1000, latency)
    console.check("focus stays where it was",
                  browser.js("return document.activeElement.localName;") == "summary")
    console.check("rows are kept, not made anew", browser.js(
        "return window.kept === document.querySelector('#participants-table tbody').rows[0];"))
    console.check("who listens hears of news only", browser.js("return window.newsChanged;") == 0,
                  browser.text("#news"))
    browser.js("document.querySelector('details').open = false;")


def looks(console):
    """Light and dark, by the system's wish and by choice; readable in both."""
    browser = console.browser
    papers = {}
    for scheme in ("light", "dark"):
        browser.colours(scheme)
        papers[scheme] = browser.js("return getComputedStyle(document.body).backgroundColor;")
        worst, where = page_checks.contrast(browser)
        print(f"  {scheme}: the least contrast of a text is {worst:.2f} ({where})", flush=True)
        console.check(f"texts can be read in {scheme}", worst >= 4.5, f"{worst:.2f} at {where}")
        worst, where = page_checks.contrast_of_lines(browser)
        console.check(f"lines can be seen in {scheme}", worst >= 3, f"{worst:.2f} at {where}")
    console.check("light and dark differ", papers["light"] != papers["dark"], papers)
    browser.colours("light")
    browser.js("const t = document.getElementById('theme'); t.value = 'dark';"
               "t.dispatchEvent(new Event('change'));")
    paper = lambda: browser.js("return getComputedStyle(document.body).backgroundColor;")
    console.check("a choice of colours counts more", paper() == papers["dark"], paper())
    console.open()
    console.check("and is remembered", paper() == papers["dark"], paper())
    browser.js("localStorage.clear();")
    console.open()
    console.check("and can be forgotten", paper() == papers["light"], paper())


def overview(console):
    """Pictures of the whole page under load, if they are wanted."""
    if console.load is None:
        return
    if console.pictures:
        console.until("there is a curve to be seen",
                      lambda: console.browser.js("return known.samples.length;") > 45, 60)
        for scheme in ("light", "dark"):
            console.browser.colours(scheme)
            console.picture(f"console-{scheme}")
        console.browser.colours("light")
    console.load.wait()


def accessible(console):
    """For who does not see it."""
    for what, faults in page_checks.structure(console.browser).items():
        console.check(what, not faults, faults)


def keyboard(console):
    """Everything is reached and used without a mouse."""
    browser = console.browser
    console.open()  # Tab begins at the top of a page that was just loaded
    console.until("it is filled in", lambda: console.state() == "serving")
    order = page_checks.walk(browser)
    names = [step["name"] for step in order]
    for control in ("a.skip", "button#pause", "select#theme", "summary", "input#find-id", "button"):
        console.check(f"Tab comes to {control}", control in names, names)
    console.check("the way to what is in doubt comes first", names[0] == "a.skip", names)
    console.check("Tab is trapped nowhere", len(names) == len(set(map(str, order))), names)
    hidden = [step["name"] for step in order if not step["outline"]]
    console.check("focus can be seen everywhere", not hidden, hidden)
    console.check("what has the focus is on the screen",
                  all(step["visible"] for step in order), order)

    console.open()
    focus = lambda: browser.js("return document.activeElement.id;")
    browser.tab()
    browser.press(Keys.ENTER)
    console.within(2, "Enter on it leads there", lambda: focus() == "in-doubt", focus)
    browser.js("document.getElementById('pause').focus();")
    browser.press(Keys.SPACE)
    pressed = lambda: browser.js(
        "return document.getElementById('pause').getAttribute('aria-pressed');")
    console.check("Space pauses", pressed() == "true", pressed())
    time.sleep(0.3)  # what was under way comes in
    life = browser.text("#life")
    asked = len(browser.requests())
    time.sleep(2.2)  # that nothing happens can only be waited for
    console.check("paused, it stands still", browser.text("#life") == life)
    console.check("paused, it asks nothing", len(browser.requests()) == asked)
    browser.press(Keys.SPACE)
    console.within(2, "Space goes on", lambda: pressed() == "false" and
                   browser.text("#life") != life)
    browser.js("document.getElementById('find-id').focus();")
    browser.press("nonsense", Keys.ENTER)
    console.within(3, "an id that is none is said to be none",
                   lambda: "nonsense" in browser.text("#transaction-summary") and
                   "Asking" not in browser.text("#transaction-summary"),
                   lambda: browser.text("#transaction-summary"))


def lost_before_the_vote(console):
    """East is lost before it voted; west is prepared, and two sessions wait there."""
    browser = console.browser
    console.both_ready()
    coordinator = console.stuck.connect()
    lease = coordinator.lease(1)
    transaction_id = f"{lease.prefix}{lease.first}"
    claims = [console.work(coordinator, transaction_id, "east", 7),
              console.stuck.prepare(coordinator, transaction_id, "west", 7)]
    waiting = console.stuck.wait_behind("west", 7, 2)
    lost = time.time()
    console.bank.branches["east"].kill()
    reach = lambda: dict(row[:2] for row in browser.rows("#participants-table"))
    console.within(SHOWN_S + 1, "shows that east is not reachable",
                   lambda: reach().get("east") == "✕ no", reach)
    outcome = []
    asked = threading.Thread(target=lambda: outcome.append(
        console.commit(transaction_id, claims)), daemon=True)
    asked.start()
    console.within(SHOWN_S, "shows the stuck transaction",
                   lambda: transaction_id in console.doubt(), console.doubt)
    row = lambda: console.doubt().get(transaction_id, [""] * 5)
    console.within(SHOWN_S, "says why: east is not reachable",
                   lambda: "east" in row()[3] and
                   ("reach" in row()[3] or "down" in row()[3]), row)
    console.within(6, "says that two sessions wait at west",
                   lambda: "2 sessions wait" in row()[4] and "at west" in row()[4] and
                   "reports" in row()[4] and "UPDATE account" in row()[4], row)
    since = browser.rows("#participants-table")[0][2]
    seen = [time.strftime("%H:%M:%S", time.localtime(lost + n)) for n in range(-1, 4)]
    console.check("says since when", any(s in since for s in seen), (since, seen))
    console.check("tells who listens", "east" in browser.text("#news") and
                  "in doubt" in browser.text("#news"), browser.text("#news"))
    one_transaction(console, transaction_id)
    console.picture("console-stuck", "#in-doubt", "#participants")
    console.picture("console-transaction", "#transaction")
    console.bank.branches["east"].start()
    asked.join(30)
    for session in waiting:
        session.join(20)
    console.check("the transaction ended, and the sessions went on",
                  outcome and all(session.done for session in waiting), outcome)
    console.within(SHOWN_S + 1, "says that nothing waits any more",
                   lambda: browser.text("#doubt-summary").startswith("Nothing waits"),
                   lambda: browser.text("#doubt-summary"))


def one_transaction(console, transaction_id):
    """Its branches, who waits and its timeline, found with the keyboard."""
    browser = console.browser
    browser.js("document.getElementById('in-doubt').focus();")
    browser.tab()
    if browser.js("return document.activeElement.className;") == "wide":
        browser.tab()
    console.check("Tab leads to the transaction", browser.js(
        "return document.activeElement.textContent;") == transaction_id)
    browser.press(Keys.ENTER)
    console.within(3, "Enter shows it", lambda: browser.js(
        "return document.activeElement.id;") == "transaction" and
        len(browser.rows("#branch-table")) == 2, lambda: browser.text("#transaction"))
    branches = {row[0]: row for row in browser.rows("#branch-table")}
    console.check("its branch at east is not reachable", "not reachable" in branches["east"][1],
                  branches)
    console.check("its branch at west is prepared", "prepared" in branches["west"][1] and
                  "account" in branches["west"][2] and
                  branches["west"][3] == f"troth:west:{transaction_id}", branches)
    waiting = browser.rows("#waiting-table")
    console.check("two sessions wait behind it", len(waiting) == 2 and
                  all("UPDATE account" in row[5] for row in waiting), waiting)
    timeline = browser.rows("#timeline-table")
    told = [cell for row in timeline for cell in row[1:]]
    console.check("its timeline begins with the commit call",
                  any("commit asked" in cell for cell in told), timeline)
    console.check("focus stays there",
                  browser.js("return document.activeElement.id;") == "transaction")


def lost_after_the_decision(console):
    """East is lost with the decision under way; the coordinator is killed and comes back; nothing
    of it is forgotten, and the page needs no help."""
    browser = console.browser
    console.both_ready()
    transaction_id, claims = console.stuck.begin(account=9)
    console.bank.branches["east"].kill()
    console.until("the coordinator knows", lambda: not all(
        p["up"] for p in console.api("participants")["participants"]))
    console.stuck.decide(transaction_id, claims)
    waiting = console.stuck.wait_behind("east", 9, 2)
    console.within(SHOWN_S, "shows what is decided and not applied", lambda: "committed" in
                   console.doubt().get(transaction_id, ["", ""])[1], console.doubt)
    owes = lambda: {row[0]: row[4] for row in browser.rows("#participants-table")}
    console.within(SHOWN_S, "says that east owes it", lambda: owes().get("east") == "▲ 1", owes)

    row = lambda: console.doubt().get(transaction_id, [""] * 5)
    console.within(6, "says why, and what it can't know", lambda: "not applied at east (down for" in
                   row()[3] and "east can't be asked" in row()[4], row)
    epoch = console.api("status")["epoch"]
    samples = browser.js("return known.samples.length;")
    console.bank.coordinator.kill()
    console.within(SHOWN_S + 2.5, "says that the coordinator is not reachable",
                   lambda: console.state() == "not reachable" and
                   "not reachable since" in browser.text("#banner"), console.state)
    console.check("keeps what was known", transaction_id in console.doubt(), console.doubt())
    console.check("tells who listens of it", "coordinator is not reachable" in
                  browser.text("#news"), browser.text("#news"))
    console.bank.coordinator.start()
    console.within(SHOWN_S, "is back by itself", lambda: console.state() == "serving",
                   console.state)
    console.check("takes the banner away", browser.text("#banner") == "", browser.text("#banner"))
    console.check("was not loaded anew", browser.js("return window.sameDocument === true;"))
    console.check("is of another epoch", console.api("status")["epoch"] != epoch)
    console.within(SHOWN_S, "shows again what is not applied",
                   lambda: transaction_id in console.doubt(), console.doubt)
    console.check("its charts go on from before",
                  browser.js("return known.samples.length;") >= samples)
    console.bank.branches["east"].start()
    console.within(4, "shows that it is applied", lambda: not console.doubt() and
                   owes().get("east") == "0", lambda: (console.doubt(), owes()))
    for session in waiting:
        session.join(20)
    console.check("and those who waited went on", all(session.done for session in waiting))


def a_participant_that_hangs(console):
    """A stopped process holds up neither the page nor who asks for health."""
    import signal
    console.both_ready()
    west = console.bank.branches["west"]
    west.signal(signal.SIGSTOP)
    try:
        slowest = 0
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            began = now()
            for path in ("api/in-doubt", "healthz", "api/participants"):
                console.get(path)
            slowest = max(slowest, console.stalls.given(began, now()))
        console.check("answers do not wait for it", slowest < 0.5, slowest)
    finally:
        west.signal(signal.SIGCONT)


def hostile(console):
    """Addresses and names that were made to do harm."""
    browser = console.browser
    browser.driver.get("about:blank")
    browser.driver.get(console.url + "#transaction=%zz")  # once this ended the script at its start
    console.within(5, "opens also with an address that is no address",
                   lambda: console.state() == "serving", console.state)
    console.within(3, "says that it is no id", lambda: "not a transaction id" in
                   browser.text("#transaction-summary"), lambda: browser.text("#transaction-summary"))
    console.check("shows markup as text", browser.js("""
        const bad = '<img src=x onerror="window.injected = 1"><b>';
        const session = {pid: 1, user: bad, application: bad, waiting_ms: 1, lock: bad, behind: [],
                         statement: bad};
        setPaused(true);
        known.doubt = {now_unix_ms: 1, under_way: 1, transactions: [
          {transaction_id: bad, state: bad, age_ms: 1, waiting_for: [bad], why: bad, branches: [
            {participant: bad, unseen: bad, prepared: {waiting: [session]}}]}]};
        showDoubt();
        return !document.querySelector('main img, main b') && window.injected === undefined &&
          document.getElementById('doubt-table').innerText.includes(bad);"""))
    # Once a row was left over each second.
    console.check("what is told twice is shown twice, and no oftener", browser.js("""
        const table = document.createElement('table');
        table.append(document.createElement('tbody'));
        const fill = (cells, item) => setText(cells[0], item);
        for (const list of ['aab', 'aab', 'baa', 'ba', 'aaa', 'ab']) {
          fillTable(table, [...list], (item) => item, 1, fill);
          if (table.innerText.replace(/\\s/g, '') !== list) return false;
        }
        return true;"""))
    browser.driver.get("about:blank")
    console.open()


def no_errors(console):
    """What the browser complained of, and what it asked for, in all of that."""
    errors = console.browser.errors()
    console.check("no script failed", not errors, errors)
    others = [url for url in console.browser.requests()
              if not url.startswith((console.url, "data:", "chrome:"))]
    console.check("nothing was asked for elsewhere", not others, others)


SCENARIOS = (opens, updates, accessible, keyboard, looks, overview, lost_before_the_vote,
             lost_after_the_decision, a_participant_that_hangs, hostile, no_errors)


def run(options):
    """All scenarios. The exit code."""
    console = Console(options.bin, options.screenshots)
    try:
        console.start()
        for scenario in SCENARIOS:
            if options.only and options.only not in scenario.__name__ and \
                    scenario not in (opens, no_errors):
                continue
            console.restore()
            print(f"{scenario.__name__}: {scenario.__doc__.splitlines()[0]}", flush=True)
            try:
                scenario(console)
            except (RuntimeError, AssertionError, WebDriverException, LookupError,
                    OSError, subprocess.SubprocessError) as error:
                traceback.print_exc()
                console.check(scenario.__name__, False, error)
    except (demo.StartError, WebDriverException, OSError, subprocess.SubprocessError) as error:
        print(f"tests/console/run: {error}", file=sys.stderr)
        return 2
    finally:
        console.stop()
    print(f"console: checks={console.checks} failed={console.failed}", flush=True)
    return 1 if console.failed or not console.checks else 0


def main():
    """Takes the options; runs in a process that leaves none behind."""
    parser = argparse.ArgumentParser(prog="tests/console/run", allow_abbrev=False)
    parser.add_argument("--bin", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--screenshots", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--only", metavar="NAME")
    options = parser.parse_args()
    if options.screenshots:
        options.screenshots.mkdir(parents=True, exist_ok=True)
    sys.exit(contained(lambda: run(options)))


if __name__ == "__main__":
    main()
